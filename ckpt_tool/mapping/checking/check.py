"""What can be said of rules before there is a target, or without any checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import TYPE_CHECKING

from ckpt_tool.errors import Problem, RuleError
from ckpt_tool.mapping.accounting.coverage import check_collisions, check_unnamed
from ckpt_tool.mapping.accounting.dead_rules import check_rules_of_use
from ckpt_tool.mapping.accounting.unreadable import check_readable, keys_of
from ckpt_tool.mapping.assign import assign_rules
from ckpt_tool.mapping.blocks import with_blocks
from ckpt_tool.mapping.checking.analysis import find_problems
from ckpt_tool.mapping.checking.name_tests import check_tests
from ckpt_tool.mapping.checking.stray_words import check_words
from ckpt_tool.mapping.params import bind_params, known_numbers, resolve_params
from ckpt_tool.mapping.rules import RuleSet
from ckpt_tool.mapping.steps import build_steps
from ckpt_tool.tensors import Catalog

if TYPE_CHECKING:
    from ckpt_tool.keys.effort import Effort


def check_rules(
    rules: RuleSet,
    source: Catalog | None = None,
    params: Mapping[str, int] | None = None,
    config: Mapping[str, object] | None = None,
    effort: Effort | None = None,
) -> list[Problem]:
    """Problems of the rules by themselves, and with a source those of its keys; for a target too,
    compile a plan.

    What comparing rules costs comes out of `effort`.
    """
    if source is None:
        return [*find_problems(rules, effort), *_check_names(rules, params or {})]
    whole, rules = rules, with_blocks(rules, source)
    numbers, problems = resolve_params(rules, params or {}, config or {}, source)
    if problems:
        return problems
    try:
        bound = bind_params(rules, numbers)
    except RuleError as error:
        return list(error.problems)
    claims = assign_rules(bound, source)
    steps, problems = build_steps(bound, claims, source, None)
    problems += check_tests(whole, numbers)
    problems += check_rules_of_use(bound, claims, source)
    problems += check_words(bound, keys_of(source))
    problems += check_collisions(steps)
    problems += check_unnamed(bound, claims.unnamed, (), source, None)
    problems += check_readable(source, (), (), None, taken=chain(*claims.unreadable))
    return problems


def _check_names(rules: RuleSet, params: Mapping[str, int]) -> list[Problem]:
    """Problems of the tests, and of the numbers that are known without a checkpoint."""
    numbers, problems = known_numbers(rules, params)
    if problems:
        return problems
    try:
        return list(check_tests(rules, numbers))
    except RuleError as error:
        return list(error.problems)
