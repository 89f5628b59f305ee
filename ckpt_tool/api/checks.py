"""Rule files looked at: checked, turned round, matched with a pair of checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ckpt_tool.api.how import How
from ckpt_tool.api.long_names import check_names
from ckpt_tool.api.plans import draft_open, open_source, open_target, planned
from ckpt_tool.api.rule_files import beside, find_shipped, read_rules, shipped_mappings
from ckpt_tool.errors import InputError, Problem, RuleError
from ckpt_tool.formats import Checkpoint, open_checkpoint

if TYPE_CHECKING:
    from ckpt_tool.engine.sources import TensorSource
    from ckpt_tool.importing.transformers import Imported
    from ckpt_tool.mapping import InvertedRules, RuleSet


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check found; `rules` and `tests` count what was read. `notes` are worth a look and no fault."""

    problems: tuple[Problem, ...]
    rules: int = 0
    tests: int = 0
    notes: tuple[Problem, ...] = ()


def check(name: str, source: str | None, target: str | None, how: How) -> Checked:
    """The problems of a rule file: by itself, with a source's keys, or with both sides'. Raises InputError."""
    from ckpt_tool.keys.effort import Effort
    from ckpt_tool.mapping import check_rules, find_notes, read_config

    try:
        rules = read_rules(how)
    except RuleError as error:
        return Checked(error.problems)
    assert rules is not None
    effort = Effort()
    problems = [] if source else check_rules(rules, effort=effort)
    found = len(rules.rules), len(rules.tests), tuple(find_notes(rules, effort))
    if source and target:
        with planned(source, target, how) as work:
            return Checked(work.problems, *found)
    if source:
        with open_source(source, rules.unwrap) as ours:
            config = read_config(source) if rules.params else {}
            return Checked(tuple(check_rules(rules, ours.catalog, how.settings, config)), *found)
    return Checked(tuple(problems), *found)


def invert(source: str | None, target: str | None, how: How) -> InvertedRules:
    """The inverse of a rule file; with both sides' keys, sizes that the rules alone don't tell come from them, and it is proved on them.

    Raises RuleError for rules that are not sound.
    """
    from ckpt_tool.mapping import invert_rules, read_config

    if source is None:
        rules = read_rules(how)
        assert rules is not None
        return invert_rules(rules)
    with planned(source, target, how) as work:
        assert work.rules is not None
        config = read_config(work.source.path) if work.rules.params else {}
        return invert_rules(work.rules, work.checked(), how.settings, config)


def write_text(path: str, text: str, force: bool = False) -> None:
    """Writes a small text file, complete or not at all. Raises OutputError."""
    from ckpt_tool.engine.atomic import atomic_output
    from ckpt_tool.engine.copying import write_at

    content = text.encode()
    with atomic_output(path, len(content), force) as fd:
        write_at(fd, content, 0)


@dataclass(frozen=True, slots=True)
class ShippedMapping:
    """A shipped rule file; for a pair that it accounts for, how many tensors it maps, keeps and drops."""

    name: str
    path: str
    about: str
    counts: dict[str, int] | None = None


def mappings(source: str | None, target: str | None, how: How) -> list[ShippedMapping]:
    """The shipped mappings; for a pair, those that account for every key of both sides, the ones that map most first."""
    from ckpt_tool.mapping import read_rule_files

    if (source is None) is not (target is None):
        raise InputError("mappings", "takes a source and a target, or neither")
    sets = {name: read_rule_files([find_shipped(name)], beside) for name in shipped_mappings()}
    listed = [ShippedMapping(name, find_shipped(name), rules.about) for name, rules in sets.items()]
    if source is None or target is None:
        return listed
    with open_checkpoint(source) as ours, open_target(target) as theirs:
        check_names(source, ours.catalog)
        check_names(target, theirs.catalog)
        fitting = [(each, _counts_for(sets[each.name], ours, theirs, how)) for each in listed]
    found = [replace(each, counts=counts) for each, counts in fitting if counts]
    return sorted(found, key=lambda each: -(each.counts or {})["mapped"])


def _counts_for(rules: RuleSet, source: Checkpoint, target: TensorSource, how: How) -> dict[str, int] | None:
    from ckpt_tool.mapping import read_config
    from ckpt_tool.mapping.compile import may_fit

    declared = {param.name for param in rules.params}
    settings = {name: number for name, number in how.settings.items() if name in declared}
    config = read_config(source.path) if rules.params else {}
    try:
        # To say what is wrong with rules that don't fit costs much more than to see that they don't.
        if not may_fit(rules, source.catalog, target.catalog, settings, config):
            return None
        return draft_open(source, target, rules, replace(how, settings=settings)).counts
    except RuleError:
        return None


def import_mapping(model_type: str) -> Imported:
    """A rule file out of the installed transformers' table of conversions. Raises InputError."""
    from ckpt_tool.importing import transformers

    return transformers.import_mapping(model_type)
