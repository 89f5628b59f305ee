"""The command to go on with after an answer that leaves something to do: one that was tried, or a
look that always answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from ckpt_tool.api.diffs import Comparison
from ckpt_tool.api.next_steps.commands import (
    WayOn,
    command,
    free_path,
    is_read_once,
    map_command,
)
from ckpt_tool.api.next_steps.drafts import is_draft, to_decide
from ckpt_tool.api.next_steps.refused import Trying
from ckpt_tool.api.next_steps.said import says_enough
from ckpt_tool.api.next_steps.swapped import are_swapped, swapped
from ckpt_tool.api.options import MappingOptions
from ckpt_tool.api.requirements import has_values
from ckpt_tool.api.rule_files import read_rules
from ckpt_tool.api.sides import open_target
from ckpt_tool.errors import CkptError
from ckpt_tool.formats import Checkpoint, open_checkpoint
from ckpt_tool.frozen import frozen

if TYPE_CHECKING:
    from ckpt_tool.align import Suggestion
    from ckpt_tool.api.shipped import ShippedMapping
    from ckpt_tool.comparing import Diff
    from ckpt_tool.errors import Problem

UNEQUAL = ("only_a", "only_b", "shape", "renamed")
"""Kinds of differences that a mapping has something to do with."""

MAX_TRIED = 20_000
"""Keys of a side up to which ways of mapping are tried for an answer that nobody asked to map."""


def after_diff(
    result: Diff,
    names: tuple[str, str],
    options: Comparison,
    opened: tuple[Checkpoint, Checkpoint] | None = None,
) -> str | None:
    """For keys or shapes that differ: the way to map one onto the other, or a look at what may be
    renamed. Sides that are still `opened` are not read again.
    """
    counts = result.counts
    is_chosen = bool(options.include or options.exclude)
    if is_read_once(*names) or is_chosen or not any(counts[kind] for kind in UNEQUAL):
        return None
    if options.values and options.renames and _are_moved(result):
        return command("suggest", names, "--values")
    is_relooked = options.renames or not (counts["only_a"] and counts["only_b"])
    found = _way_between(*names, MappingOptions(), is_relooked, opened)
    if found.command or not found.may_align:
        return found.command
    values = ["--values"] if options.values else []
    if is_relooked:
        return command("suggest", names, *values)
    return command("diff", names, "--renames", *values)


def _are_moved(result: Diff) -> bool:
    """Whether values pair keys otherwise than names would, which all other ways on go by."""
    return any(
        entry.kind == "renamed"
        and (entry.key in result.b or (entry.b is not None and entry.b.key in result.a))
        for entry in result.changes
    )


def after_mappings(
    found: Sequence[ShippedMapping], source: str | None, target: str | None, options: MappingOptions
) -> str | None:
    """For a pair: the shipped mapping that maps most; where none accounts for it another way, or a
    draft.
    """
    if source is None or target is None or is_read_once(source, target):
        return None
    if not found:
        other = way_to_map(source, target, MappingOptions(params=options.params))
        return other or command("suggest", [source, target])
    ready = [each.name for each in found if not each.needs]
    if not ready or not _have_values(source, target):
        return None
    return map_command(source, target, replace(options, rules=(ready[0],)))


def _have_values(source: str, target: str) -> bool:
    """Whether both sides are more than key lists."""
    with (
        open_checkpoint(source) as opened_source,
        open_target(target, opened_source) as opened_target,
    ):
        return has_values(opened_source) and has_values(opened_target)


def after_check(
    problems: Sequence[Problem], source: str | None, target: str | None, options: MappingOptions
) -> WayOn:
    """For rules and a pair: to map with them, completed by what they leave where that is safe, or a
    draft to compare them with; that the sides are swapped, where they are. For mistakes in the
    rules' text there is none.
    """
    if source is None or target is None or is_read_once(source, target):
        return WayOn()
    if problems and not _can_be_read(options):
        return WayOn()
    if problems and _are_swapped(problems, source, target, options):
        return swapped(source, target, options)
    if line := way_to_map(source, target, options):
        return WayOn(line)
    drafted = command("suggest", [source, target]) if _draft_helps(problems, options) else None
    return WayOn(drafted, to_decide(options, problems))


def _can_be_read(options: MappingOptions) -> bool:
    """Whether the rules' text has no mistakes: what these say is what there is to do."""
    try:
        read_rules(options)
    except CkptError:
        return False
    return True


def _draft_helps(problems: Sequence[Problem], options: MappingOptions) -> bool:
    return bool(problems) and not is_draft(options) and not says_enough(problems, options)


def _are_swapped(
    problems: Sequence[Problem], source: str, target: str, options: MappingOptions
) -> bool:
    try:
        with open_checkpoint(source) as one, open_target(target, one) as other:
            return are_swapped(one, other, options, problems)
    except CkptError:
        return False


def after_suggestion(
    found: Suggestion, names: tuple[str, str], output: str | None, asked: Sequence[str] = ()
) -> str | None:
    """For a draft that is whole, to map with it; else another way to map, or to write it, where it
    was not, and to look at what is left.

    `asked` are the options that the draft was made with.
    """
    if is_read_once(*names):
        return None
    if output is not None:
        by_file = way_to_map(*names, MappingOptions(rules=(output,))) if found.is_complete else None
        return by_file or command("check", [output, *names])
    if not asked and (
        by_itself := way_to_map(
            *names, MappingOptions(by="auto") if found.is_complete else MappingOptions()
        )
    ):
        return by_itself
    if found.plan is None:
        is_asked = bool(found.alignment.questions or found.shape_mismatches)
        return None if is_asked else command("diff", names)
    return command("suggest", names, *asked, "-o", free_path("rules", ".yaml"))


def way_to_map(
    source: str,
    target: str,
    options: MappingOptions,
    aligning: bool = True,
    opened: tuple[Checkpoint, Checkpoint] | None = None,
) -> str | None:
    """The command that maps one checkpoint onto another and leaves least fresh, as far as a way is
    known that is safe.

    Without `aligning` names alone are tried. Sides that are still `opened` are not read again.
    """
    return _way_between(source, target, options, aligning, opened).command


@frozen
class _WayBetween:
    """The command that maps one side onto the other, and whether more than names may pair them."""

    command: str | None = None
    may_align: bool = True


def _way_between(
    source: str,
    target: str,
    options: MappingOptions,
    aligning: bool = True,
    opened: tuple[Checkpoint, Checkpoint] | None = None,
) -> _WayBetween:
    try:
        with ExitStack() as closing:
            opened_source, opened_target = opened or (
                first := closing.enter_context(open_checkpoint(source)),
                closing.enter_context(open_target(target, first)),
            )
            known = all(
                getattr(side, "has_values", True) and len(side.catalog) <= MAX_TRIED
                for side in (opened_source, opened_target)
            )
            if not known or any(
                isinstance(side, Checkpoint) and side.contents.rivals
                for side in (opened_source, opened_target)
            ):
                return _WayBetween()
            trying = Trying(opened_source, opened_target, options)
            best = trying.best() if aligning else trying.asked()
            line = map_command(source, target, best.options) if best else None
            return _WayBetween(line, line is not None or not aligning or trying.aligns)
    except CkptError:
        return _WayBetween()
