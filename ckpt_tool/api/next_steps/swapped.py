"""Sides that were given in each other's place: rules that don't fit them, and fit them swapped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckpt_tool.api.drafting import draft_open
from ckpt_tool.api.next_steps.commands import WayOn, arguments, command
from ckpt_tool.api.options import MappingOptions
from ckpt_tool.api.rule_files import read_rules
from ckpt_tool.api.sides import is_factory
from ckpt_tool.errors import CkptError, RuleError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ckpt_tool.engine.sources import TensorSource
    from ckpt_tool.errors import Problem

UNNAMED = {"unmapped-source", "unmapped-target"}
"""Problems of rules that fit, and don't name every key."""


def are_swapped(
    source: TensorSource, target: TensorSource, options: MappingOptions, problems: Iterable[Problem]
) -> bool:
    """Whether the rules that were given, and have these problems, fit the two the other way."""
    is_by_rules = bool(options.rules or options.inline)
    if not is_by_rules or {each.code for each in problems} <= UNNAMED:
        return False
    try:
        plan = draft_open(target, source, read_rules(options), options)
    except RuleError as error:
        return {each.code for each in error.problems} <= UNNAMED and _maps(error)
    except CkptError:
        return False
    return plan.counts["mapped"] > 0


def _maps(error: RuleError) -> bool:
    return error.tally is not None and error.tally.mapped > 0


def swapped(source: str, target: str, options: MappingOptions) -> WayOn:
    """The way on for sides that were given in each other's place: a look at the plan for their
    right order; none where one is a model that is built, which can't be a source.
    """
    hint = (
        f"the sides are swapped: the rules lead from {target} to {source}; give them in that "
        "order, or invert the rules with `ckpt check RULES --invert`"
    )
    if is_factory(target):
        return WayOn(None, hint)
    return WayOn(command("plan", [target, source], *arguments(options)), hint)
