"""`ckpt_tool.suggest`, `mappings`, `check` and `verify`: what is said of rules, and of what they
made.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from ckpt_tool import api
from ckpt_tool.align import Suggestion
from ckpt_tool.api import Checked, DTypePolicy, MappingOptions, Method, ShippedMapping
from ckpt_tool.engine import Mismatch
from ckpt_tool.library.notebook import PrintedInNotebooks
from ckpt_tool.library.options import options_from
from ckpt_tool.library.words import speaks_python
from ckpt_tool.report.mappings import mappings_text
from ckpt_tool.report.parts.problems import notes_text, problems_text, sound_text
from ckpt_tool.report.suggest import suggestion_notes
from ckpt_tool.report.verify import verified_text
from ckpt_tool.wording import plural

if TYPE_CHECKING:
    from ckpt_tool.api.sides import Given
    from ckpt_tool.mapping import Plan


@dataclass(frozen=True, slots=True, repr=False)
class SuggestReport(Suggestion):
    """Drafted rules for two sides; `print()` shows the rule file and what is undecided.

    `text` is the rule file, `rules` its rules with how sure each is, `alignment` the pairs, `next`
    the keyword arguments to go on with, `is_complete` whether they are all that is needed.
    """

    @property
    def next(self) -> dict[str, object]:
        """Keyword arguments with which `plan`, `map` and `verify` map by these rules.

        They are all that is needed where the draft `is_complete`; else `drop` and `keep` are yours
        to add, for what is undecided, or a rule: until then these calls raise RuleError.
        """
        import yaml

        rules = [_inline(yaml.safe_load(rule.line), rule.line) for rule in self.rules]
        named = {} if self.doubts else {"drop": list(self.drop), "keep": list(self.keep)}
        return {"rules": rules, **named}

    def __str__(self) -> str:
        return f"{self.text}\n{suggestion_notes(self)}"

    def _repr_html_(self) -> str:
        from ckpt_tool.report.notebook.reprs import suggest_html

        return suggest_html(self, suggestion_notes(self).rpartition("\n")[2])

    def __repr__(self) -> str:
        mapped = self.plan.counts["mapped"] if self.plan else 0
        unknown = len(self.alignment.ambiguous)
        left = len(self.doubts) + len(self.unsure)
        open_ = f", {left} undecided" if left else ""
        rules = plural(len(self.rules), "rule")
        return f"SuggestReport({rules}, {mapped} mapped, {unknown} ambiguous{open_})"


class MappingsReport(PrintedInNotebooks, tuple[ShippedMapping, ...]):
    """Shipped mappings; `print()` shows them as `ckpt mappings` does."""

    __slots__ = ()

    def __str__(self) -> str:
        return mappings_text(self)

    def __repr__(self) -> str:
        return f"MappingsReport({plural(len(self), 'mapping')})"


@dataclass(frozen=True, slots=True, repr=False)
class CheckReport(PrintedInNotebooks, Checked):
    """What was found in rules; `print()` shows it as `ckpt check` does. `is_sound` where there is
    no problem.
    """

    names: tuple[str, str | None, str | None] = ("", None, None)

    @property
    def is_sound(self) -> bool:
        """Whether there is no problem; notes are none."""
        return not self.problems

    def __str__(self) -> str:
        notes = f"{notes_text(self.notes)}\n\n" if self.notes else ""
        if self.problems:
            return notes + problems_text(self.problems)
        rules, *sides = self.names
        return notes + sound_text(rules, self.rules, self.tests, *sides)

    def __repr__(self) -> str:
        notes = plural(len(self.notes), "note")
        return f"CheckReport({plural(len(self.problems), 'problem')}, {notes})"


@dataclass(frozen=True, slots=True, repr=False)
class VerifyReport(PrintedInNotebooks):
    """Whether a checkpoint is what its plan says, bit for bit; `print()` shows it as `ckpt verify`
    does. False where a tensor is not.
    """

    path: str
    plan: Plan
    mismatches: tuple[Mismatch, ...] = field(default=())

    def __bool__(self) -> bool:
        return not self.mismatches

    def __str__(self) -> str:
        return verified_text(self.path, self.plan, self.mismatches)

    def __repr__(self) -> str:
        return f"VerifyReport({self.path!r}, {len(self.mismatches)} mismatches)"


@speaks_python
def suggest(
    source: Given,
    target: Given,
    *,
    hints: Sequence[str] = (),
    values: bool = False,
    min_confidence: float | None = None,
) -> SuggestReport:
    """Drafts the fewest rules that map a source onto a target, each with how sure it is.

    `hints` are pairs that you know, `SOURCE KEY -> TARGET KEY`; `values` pairs by what tensors hold
    first; `min_confidence` (0 to 1, default 0.9) is what a pair needs. Reads names and shapes, with
    `values` both files. Raises InputError, FormatError.

    >>> import ckpt_tool, torch
    >>> source = {"module.weight": torch.ones(10, 4), "module.bias": torch.ones(10)}
    >>> found = ckpt_tool.suggest(source, torch.nn.Linear(4, 10))
    >>> found
    SuggestReport(1 rule, 2 mapped, 0 ambiguous)
    >>> found.next
    {'rules': ['module.** -> **'], 'drop': [], 'keep': []}
    >>> ckpt_tool.plan(source, torch.nn.Linear(4, 10), **found.next)
    PlanReport(2 mapped, 0 kept, 0 dropped)
    """
    found = api.suggest_rules(source, target, hints, min_confidence, values)
    return SuggestReport(**{each.name: getattr(found, each.name) for each in fields(Suggestion)})


@speaks_python
def mappings(
    source: Given | None = None,
    target: Given | None = None,
    *,
    params: Mapping[str, int] | None = None,
) -> MappingsReport:
    """The shipped mappings; with two sides, those that account for every key of both, the ones that
    map most first. Each has a `name`, for `rules`, its `path`, what it is `about`, for a pair its
    `counts`, and the numbers that it `needs`. `params` are numbers that rules name (heads, say).
    Raises InputError.

    >>> import ckpt_tool
    >>> "resnet50_to_yolo.yaml" in [each.name for each in ckpt_tool.mappings()]
    True
    """
    return MappingsReport(api.mappings(source, target, MappingOptions(params=params or {})))


@speaks_python
def check(
    rules: str | os.PathLike[str] | Sequence[str],
    source: Given | None = None,
    target: Given | None = None,
    *,
    params: Mapping[str, int] | None = None,
) -> CheckReport:
    """Checks rules: by themselves, with a source's keys, or with both sides'. Writes nothing.

    `rules` are rule files, shipped mappings, or rules `SOURCE -> TARGET`. `problems` has what is
    wrong with them, each with its place; `notes` what is worth a look. Raises InputError for files
    that can't be opened.

    >>> import ckpt_tool
    >>> ckpt_tool.check("a.** -> b.**").is_sound
    True
    >>> [problem.code for problem in ckpt_tool.check("a.{n} -> b").problems]
    ['unbalanced']
    """
    options = MappingOptions(rules, params=params or {})  # type: ignore[arg-type]
    found = api.check(source, target, options)
    plain = {each.name: getattr(found, each.name) for each in fields(Checked)}
    name = " ".join((*options.rules, *options.inline))
    return CheckReport(**plain, names=(name, _name(source), _name(target)))


@speaks_python
def verify(
    output: str | os.PathLike[str],
    source: Given | None,
    target: Given | None = None,
    *,
    rules: str | os.PathLike[str] | Sequence[str] = (),
    by: Method | None = None,
    drop: str | Sequence[str] = (),
    keep: str | Sequence[str] = (),
    partial: bool = False,
    expect: int | None = None,
    dtypes: DTypePolicy | str = "strict",
    params: Mapping[str, int] | None = None,
    min_confidence: float | None = None,
) -> VerifyReport:
    """Proves, bit for bit, that a written checkpoint is what the plan for two sides says.

    The arguments of the mapping are those of `plan`. Costs reading all three. Raises RuleError if
    there is no plan; InputError, FormatError.

    >>> import ckpt_tool, torch
    >>> source = {"module.weight": torch.ones(10, 4), "module.bias": torch.ones(10)}
    >>> _ = ckpt_tool.map(source, torch.nn.Linear(4, 10), "out.pth", rules="module.** -> **")
    >>> bool(ckpt_tool.verify("out.pth", source, torch.nn.Linear(4, 10), rules="module.** -> **"))
    True
    """
    options = options_from(rules, drop, keep, by, partial, expect, dtypes, params, min_confidence)
    with api.plan_checkpoint(source, target, options) as planned:
        plan = planned.checked()
        return VerifyReport(os.fspath(output), plan, api.verify(planned, output))


def _inline(read: object, line: str) -> str:
    """A rule's line as it is given inline: without the quotation marks that YAML needs."""
    return read if isinstance(read, str) else line


def _name(given: Given | None) -> str | None:
    """What a side is called: its path, or what kind of thing it is."""
    if given is None or isinstance(given, str):
        return given
    if isinstance(given, os.PathLike):
        return os.fspath(given)
    return getattr(given, "path", None) or type(given).__name__
