"""The way on where nothing was verified: the sides don't fit the rules, or there are none."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from ckpt_tool.api.next_steps.commands import WayOn, arguments, command
from ckpt_tool.api.next_steps.refused import way_on
from ckpt_tool.api.next_steps.swapped import are_swapped
from ckpt_tool.api.requirements import has_values
from ckpt_tool.formats import open_checkpoint
from ckpt_tool.formats.opening import STDIN

if TYPE_CHECKING:
    from ckpt_tool.api.options import MappingOptions
    from ckpt_tool.api.planning import Planned

RULES_ARE_MISSING = "give the rules and options that {output} was written with (-r, -e, --drop, …)"
OUTPUT_IS_FIRST = "the output comes first: {output} seems to be what the rules are for"


def way_to_verify(planned: Planned, options: MappingOptions, output: str) -> WayOn:
    """The same command with its files in the right order, or with options by which the two sides
    fit; without rules, that they are missing. Raises InputError for an output that can't be read.
    """
    source, target = planned.source.path, planned.target_path
    is_source = _is_source(output, planned, options)
    if target and is_source:
        line = command("verify", [target, output, source], *arguments(options))
        hint = OUTPUT_IS_FIRST.format(output=output)
        return WayOn(None if STDIN in (output, source, target) else line, hint)
    found = way_on(planned, options, "verify")
    can_verify = has_values(planned.source) and has_values(planned.target)
    line = _with_output(found.command, output) if can_verify else found.command
    is_by_rules = bool(options.rules or options.inline)
    hint = found.hint or ("" if is_by_rules else RULES_ARE_MISSING.format(output=output))
    return WayOn(line, hint)


def _is_source(output: str, planned: Planned, options: MappingOptions) -> bool:
    """Whether the rules lead from what was given as the output to what was given as the source."""
    if output == STDIN:
        return False
    with open_checkpoint(output) as opened:
        return are_swapped(planned.source, opened, options, planned.problems)


def _with_output(line: str | None, output: str) -> str | None:
    """A command that maps or plans, as one that verifies."""
    words = shlex.split(line or "")
    if words[1:2] not in (["verify"], ["plan"]):
        return line
    return None if output == STDIN else command("verify", [output], *words[2:])
