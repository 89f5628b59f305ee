"""A rule set and two catalogs into a complete plan, or every reason why not."""

from collections.abc import Container, Iterable, Iterator, Mapping
from itertools import chain, islice

from ckpt_tool.errors import RuleError
from ckpt_tool.mapping.accounting.account import checked_plan
from ckpt_tool.mapping.accounting.coverage import (
    check_collisions,
    check_expect,
    check_unnamed,
    kept_keys,
)
from ckpt_tool.mapping.accounting.dead_rules import check_dead_keeps, check_rules_of_use
from ckpt_tool.mapping.accounting.dtypes import DTypePolicy
from ckpt_tool.mapping.accounting.fitting import fit_steps
from ckpt_tool.mapping.accounting.unreadable import check_readable, keys_of
from ckpt_tool.mapping.assign import assign_rules
from ckpt_tool.mapping.blocks import with_blocks
from ckpt_tool.mapping.checking.name_tests import check_tests
from ckpt_tool.mapping.checking.stray_words import check_words
from ckpt_tool.mapping.params import bind_params, resolve_params
from ckpt_tool.mapping.plan import Draft, Plan
from ckpt_tool.mapping.rules import RuleSet
from ckpt_tool.mapping.steps import build_steps
from ckpt_tool.tensors import Catalog

FEW_KEYS = 64
"""Keys of the source that tell most rules that are not for it."""


def compile_plan(
    rules: RuleSet,
    source: Catalog,
    target: Catalog | None = None,
    params: Mapping[str, int] | None = None,
    config: Mapping[str, object] | None = None,
    dtypes: DTypePolicy = "strict",
) -> Plan:
    """The plan that the rules make for these catalogs. Raises RuleError with every problem.

    `params` and `config` give the numbers of parameters.
    """
    bound, numbers = _bound(rules, source, target, params or {}, config or {})
    claims = assign_rules(bound, source)
    steps, problems = build_steps(bound, claims, source, target)
    problems += check_words(bound, keys_of(source), keys_of(target) if target is not None else ())
    problems += check_tests(rules, numbers)
    problems += check_rules_of_use(bound, claims, source)
    problems += check_collisions(steps)
    fitted = fit_steps(bound, steps, source, target)
    problems += fitted.problems
    kept, unkept = kept_keys(bound, steps, target)
    problems += check_unnamed(bound, claims.unnamed, unkept, source, target)
    problems += check_dead_keeps(bound, kept, target)
    fresh = {*unkept, *_kept_by_rest(kept)}
    unreadable = chain(*claims.unreadable)
    problems += check_readable(source, claims.unnamed, fresh, target, taken=unreadable)
    named = frozenset(chain(*claims.dropped))
    plan = Plan(
        tuple(fitted.steps),
        dropped=_in_order(keys_of(source), {*named, *claims.unnamed, *fitted.left}),
        kept=_in_order(target or (), {*kept, *fitted.fresh}),
        source=source,
        target=target,
        notes=tuple(fitted.notes(target)),
    )
    undecided = claims.unnamed, _in_order(target or (), fresh)
    plan = checked_plan(plan, dtypes, problems, named, undecided)
    if unmet := list(check_expect(bound, plan)):
        raise RuleError(unmet, draft=Draft(plan, frozenset(), frozenset()))
    return plan


def _kept_by_rest(kept: Mapping[str, int]) -> Iterator[str]:
    """The keys that no pattern keeps, but `rest:`."""
    return (key for key, index in kept.items() if index < 0)


def _in_order(keys: Iterable[str], chosen: Container[str]) -> tuple[str, ...]:
    return tuple(key for key in keys if key in chosen)


def may_fit(
    rules: RuleSet,
    source: Catalog,
    target: Catalog,
    params: Mapping[str, int],
    config: Mapping[str, object],
) -> bool:
    """Whether the rules name every key of both sides; where not, no plan can be made, and this says
    so without saying why.

    Raises RuleError.
    """
    bound, _ = _bound(rules, source, target, params, config)
    for keys in (Catalog(islice(source.values(), FEW_KEYS)), source):
        claims = assign_rules(bound, keys)
        if claims.unnamed and bound.rest_source != "drop":
            return False
    steps, problems = build_steps(bound, claims, source, target)
    _, unkept = kept_keys(bound, steps, target)
    return (
        not problems and not unkept and all(key in target for step in steps for key in step.outputs)
    )


def _bound(
    rules: RuleSet,
    source: Catalog,
    target: Catalog | None,
    params: Mapping[str, int],
    config: Mapping[str, object],
) -> tuple[RuleSet, Mapping[str, int]]:
    """The rules with the blocks that a source chooses and the numbers of parameters; and these.
    Raises RuleError.
    """
    rules = with_blocks(rules, source)
    numbers, problems = resolve_params(rules, params, config, source, target)
    if problems:
        raise RuleError(problems)
    return bind_params(rules, numbers), numbers
