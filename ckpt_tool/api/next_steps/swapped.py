"""Sides that were given in each other's place: rules that don't fit them, and fit them swapped."""

from __future__ import annotations

from dataclasses import replace
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
    from ckpt_tool.mapping import Plan


UNNAMED = {"unmapped-source", "unmapped-target"}
"""Problems of rules that fit, and don't name every key."""


def are_swapped(
    source: TensorSource, target: TensorSource, options: MappingOptions, problems: Iterable[Problem]
) -> bool:
    """Whether the rules that were given, and have these problems, fit the two the other way: they
    make less than half of the target from the source, and all of the source from the target.
    """
    is_by_rules = bool(options.rules or options.inline)
    if not is_by_rules or {each.code for each in problems} <= UNNAMED:
        return False
    whole = replace(options, partial=False)
    plan, is_whole = _drafted(target, source, whole)
    if plan is None or not is_whole or not plan.counts["mapped"]:
        return False
    return not _makes_most(_drafted(source, target, whole)[0], target)


def _drafted(
    source: TensorSource, target: TensorSource, options: MappingOptions
) -> tuple[Plan | None, bool]:
    """The plan, and whether it was made; else what there was of it when it was refused."""
    try:
        return draft_open(source, target, read_rules(options), options), True
    except RuleError as error:
        return getattr(error.draft, "plan", None), False
    except CkptError:
        return None, False


def _makes_most(plan: Plan | None, target: TensorSource) -> bool:
    """Whether the steps of a plan make half of the target's keys or more."""
    made = {key for step in plan.steps for key in step.outputs} if plan else set()
    return 2 * sum(key in target.catalog for key in made) >= len(target.catalog)


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
