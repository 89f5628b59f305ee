"""The way on where nothing was verified: the sides don't fit the rules, or there are none."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from itertools import islice, permutations
from typing import TYPE_CHECKING

from ckpt_tool.api.drafting import draft_open
from ckpt_tool.api.next_steps.commands import WayOn, arguments, command
from ckpt_tool.api.next_steps.refused import way_on
from ckpt_tool.api.next_steps.swapped import are_swapped
from ckpt_tool.api.requirements import has_values
from ckpt_tool.api.rule_files import read_rules
from ckpt_tool.errors import CkptError
from ckpt_tool.formats import Checkpoint, open_checkpoint
from ckpt_tool.formats.opening import STDIN
from ckpt_tool.frozen import frozen

if TYPE_CHECKING:
    from ckpt_tool.api.options import MappingOptions
    from ckpt_tool.api.planning import Planned
    from ckpt_tool.engine.sources import TensorSource
    from ckpt_tool.mapping import Plan

RULES_ARE_MISSING = "give the rules and options that {output} was written with (-r, -e, --drop, …)"
OUTPUT_IS_FIRST = "the output comes first: {output} seems to be what the rules are for"
ORDER = "the order is OUT SOURCE TARGET: the rules lead from {source} to the keys of {output}"
MAX_READ, MAX_SIZE = 8, 1 << 20
"""Tensors that are read to tell an output from the target it was made for, and bytes of one."""


@frozen
class _Order:
    """One order of what was given, in which the rules fit and the output has the plan's keys."""

    output: TensorSource
    source: TensorSource
    target: TensorSource | None
    plan: Plan

    @property
    def paths(self) -> list[str]:
        """What was given, in this order."""
        sides = (self.output, self.source, *([self.target] if self.target else []))
        return [side.path for side in sides]


def way_to_verify(planned: Planned, options: MappingOptions, output: str) -> WayOn:
    """The same command with its files in the right order, or with options by which the two sides
    fit; without rules, that they are missing. Raises InputError for an output that can't be read.
    """
    is_by_rules = bool(options.rules or options.inline)
    if is_by_rules and output != STDIN:
        with open_checkpoint(output) as opened:
            if reordered := _reordered(planned, opened, options):
                return reordered
    found = way_on(planned, options, "verify")
    can_verify = has_values(planned.source) and has_values(planned.target)
    line = _with_output(found.command, output) if can_verify else found.command
    hint = found.hint or ("" if is_by_rules else RULES_ARE_MISSING.format(output=output))
    return WayOn(line, hint)


def _reordered(planned: Planned, output: Checkpoint, options: MappingOptions) -> WayOn | None:
    """The command with what was given in another order, where that is the only one that fits; of
    several, what the order is.
    """
    source, target = planned.source, planned.target
    found = list(_orders(output, source, target, options))
    sure = found if len(found) == 1 else [order for order in found if _is_made_by(order)]
    if len(sure) == 1:
        hint = ORDER.format(source=sure[0].source.path, output=sure[0].output.path)
        line = command("verify", sure[0].paths, *arguments(options))
        return WayOn(None if STDIN in sure[0].paths else line, hint)
    if found:
        others = " and of ".join(dict.fromkeys(order.output.path for order in found))
        return WayOn(None, ORDER.format(source=found[0].source.path, output=others))
    if target and are_swapped(source, output, options, planned.problems):
        return WayOn(None, OUTPUT_IS_FIRST.format(output=output.path))
    return None


def _orders(
    output: Checkpoint, source: Checkpoint, target: TensorSource | None, options: MappingOptions
) -> Iterator[_Order]:
    given = [output, source, *([target] if target else [])]
    for first, second, *third in permutations(given):
        last = third[0] if third else None
        is_given = (first, second) == (output, source)
        if is_given or not isinstance(first, Checkpoint) or not isinstance(second, Checkpoint):
            continue
        try:
            plan = draft_open(second, last, read_rules(options), options)
        except CkptError:
            continue
        forms = (
            {key: (info.shape, info.dtype) for key, info in catalog.items()}
            for catalog in (plan.outputs, first.catalog)
        )
        if plan.counts["mapped"] and next(forms) == next(forms):
            yield _Order(first, second, last, plan)


def _is_made_by(order: _Order) -> bool:
    """Whether some tensors of the output are those of the source that moved there as they are: the
    target that it was made for has others.
    """
    from ckpt_tool.engine.sources import moved_tensors

    if not all(map(has_values, (order.output, order.source, order.target))):
        return False
    moved = moved_tensors(order.plan, order.source, order.target)
    outputs = order.plan.outputs
    small = (key for key in order.plan.producers if key in moved and _is_telling(order, key))
    keys = sorted(islice(small, MAX_READ), key=lambda key: outputs[key].nbytes)
    return bool(keys) and all(
        _bytes(order.output, key) == _bytes(moved[key].checkpoint, moved[key].key) for key in keys
    )


def _is_telling(order: _Order, key: str) -> bool:
    """Whether a tensor is read soon, and no count that is equal everywhere."""
    info = order.plan.outputs[key]
    return bool(info.shape) and info.dtype.is_floating and info.nbytes <= MAX_SIZE


def _bytes(side: TensorSource, key: str) -> bytes:
    return b"".join(side.chunks(key))


def _with_output(line: str | None, output: str) -> str | None:
    """A command that maps or plans, as one that verifies."""
    words = shlex.split(line or "")
    if words[1:2] not in (["verify"], ["plan"]):
        return line
    return None if output == STDIN else command("verify", [output], *words[2:])
