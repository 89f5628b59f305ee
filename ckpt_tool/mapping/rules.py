"""Rules as values: what a rule file says, every part with its place in the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Literal

from ckpt_tool.errors import Location
from ckpt_tool.frozen import frozen

if TYPE_CHECKING:
    from ckpt_tool.keys import Matcher, Pattern
    from ckpt_tool.mapping.formulas import Formula
    from ckpt_tool.ops import Op
    from ckpt_tool.ops.fits import Fit


@frozen
class Selector:
    """A pattern of keys to drop or to keep; an optional one may match nothing."""

    pattern: Pattern
    matcher: Matcher
    where: Location
    is_optional: bool = False


@frozen
class RuleSide:
    """One pattern of a rule, source or target, with its place; its holes carry the ids that pairing
    gave them.
    """

    pattern: Pattern
    where: Location
    only: tuple[str, ...]
    """The ids of the holes that no pattern of the other side has, from the left."""


def part_of(where: Location, pattern: Pattern, start: int, end: int) -> Location:
    """The place of characters `start` to `end` of a pattern; of the whole pattern where it isn't
    written out in the file.
    """
    if where.length != len(pattern.text):
        return where
    return Location(where.file, where.line, where.column + start, end - start, where.text)


def names_in_pattern(pattern: Pattern) -> set[str]:
    """The names of a pattern's numbers, and those that bound them."""
    return {*pattern.numbers, *bound_names(pattern)}


def bound_names(pattern: Pattern) -> Iterator[str]:
    """The names, of parameters, in the ends of a pattern's ranges, as in `{i:0..layers-1}`."""
    for ends in pattern.open_bounds.values():
        for end in ends:
            yield from end.names


@frozen
class Rule:
    """`sources -> targets: ops`. Mostly one of each; `carried` are the ids of the holes that both
    sides have.

    `matchers` are those of the sources; of the targets for a rule without a source. An `is_extra`
    rule reads source keys that others take.
    """

    text: str
    sources: tuple[RuleSide, ...]
    targets: tuple[RuleSide, ...]
    ops: tuple[Op, ...]
    matchers: tuple[Matcher, ...]
    carried: tuple[str, ...]
    where: Location
    is_optional: bool = False
    is_extra: bool = False

    @property
    def is_of_groups(self) -> bool:
        """Whether several source keys become one target key, or one becomes several."""
        sides = (*self.sources, *self.targets)
        return len(sides) > 2 or any(side.only for side in sides)

    @property
    def is_rename(self) -> bool:
        """Whether each source key becomes one target key, unchanged."""
        return (
            not self.ops
            and len(self.sources) == len(self.targets) == 1
            and not self.sources[0].only
            and not self.targets[0].only
        )


@frozen
class Param:
    """A number that rules may name. It comes from `--set`, the config file, the catalogs, a
    `formula` of others, or `default`.

    From the catalog of the source, or of the target where `of_target`: the `dimension` of a key, or
    how many keys `count` matches.
    """

    name: str
    where: Location
    config_keys: tuple[str, ...] = ()
    dimension: tuple[str, int] | None = None
    default: int | None = None
    count: Matcher | None = None
    of_target: bool = False
    formula: Formula | None = None


@frozen
class Expect:
    """How many tensors must be mapped, kept and dropped; None where any number will do."""

    mapped: int | None
    kept: int | None
    dropped: int | None
    where: Location


@frozen
class NameTest:
    """A source key and the target keys that it must reach; none when it must be dropped."""

    source: str
    targets: tuple[str, ...]
    where: Location


@frozen
class FitRule:
    """A line of `fit:`: target keys that may be adapted to the target's shape, and how."""

    selector: Selector
    fit: Fit


@frozen
class Condition:
    """Something that is true of a source's keys or headers, or not; never of values.

    `kind` is `has` or `lacks` (a key that `matcher` matches), or `ndim`, `shape`, `dtype` (of the
    keys that it matches).
    """

    kind: str
    matcher: Matcher
    wanted: object
    where: Location


@frozen
class Block:
    """Rules for a source of which all `conditions` hold."""

    conditions: tuple[Condition, ...]
    rules: tuple[Rule, ...]
    drop: tuple[Selector, ...]
    keep: tuple[Selector, ...]
    where: Location


@frozen
class RuleSet:
    """A rule file, or several, read and understood. Paths are as the command should open them.

    >>> from pathlib import Path
    >>> import ckpt_tool
    >>> _ = Path("r.yaml").write_text("rules: [module.** -> **]")
    >>> from ckpt_tool.mapping import read_rule_files
    >>> rules = read_rule_files(["r.yaml"])
    >>> isinstance(rules, ckpt_tool.RuleSet), [rule.text for rule in rules.rules]
    (True, ['module.** -> **'])
    """

    files: tuple[str, ...]
    rules: tuple[Rule, ...]
    where: Location
    about: str = ""
    source: str | None = None
    target: str | None = None
    output: str | None = None
    drop: tuple[Selector, ...] = ()
    keep: tuple[Selector, ...] = ()
    rest_source: Literal["problem", "drop"] = "problem"
    rest_target: Literal["problem", "keep"] = "problem"
    expect: Expect | None = None
    tests: tuple[NameTest, ...] = ()
    tables: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    table_places: Mapping[str, Location] = field(default_factory=dict)
    params: tuple[Param, ...] = ()
    blocks: tuple[Block, ...] = ()
    fits: tuple[FitRule, ...] = ()
    strip: tuple[str, ...] = ()
    unwrap: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    """The files that were read, the included ones too."""
