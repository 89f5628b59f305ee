"""A plan by position: the i-th key of the source to the i-th of the target, while their shapes
agree.
"""

from ckpt_tool.errors import Problem, RuleError
from ckpt_tool.keys.relations import equal_positions
from ckpt_tool.mapping.accounting.account import NOTHING_NAMED, Pairing, account, without_named
from ckpt_tool.mapping.accounting.coverage import tally_of
from ckpt_tool.mapping.accounting.dtypes import DTypePolicy
from ckpt_tool.mapping.accounting.unreadable import keys_of
from ckpt_tool.mapping.plan import Origin, Plan, Step
from ckpt_tool.mapping.rules import RuleSet
from ckpt_tool.tensors import Catalog, shape_text
from ckpt_tool.wording import named


def plan_by_position(
    source: Catalog,
    target: Catalog,
    dtypes: DTypePolicy = "strict",
    force_order: bool = False,
    named: RuleSet = NOTHING_NAMED,
) -> Plan:
    """Pairs from the first key on and stops at the first disagreement of shapes, which the plan's
    notes name.

    Keys that are `named`, to be dropped or kept, have no position. Raises RuleError for keys behind
    the place where it stops that nobody named, and when a side's keys are sorted, so that their
    order means nothing, unless `force_order`.
    """
    problems = [
        _unordered(side)
        for side, catalog in (("source", source), ("target", target))
        if not (catalog.is_ordered or force_order)
    ]
    if problems:
        raise RuleError(problems)
    open_source, open_target = without_named(named, source, target)
    pairs = list(zip(open_source, open_target, strict=False))
    count = equal_positions(open_source, open_target)
    if not count:
        raise RuleError(
            [_nothing(open_source, open_target)],
            tally_of((), open_target, keys_of(open_source), target),
        )
    origin = Origin("position")
    steps = tuple(Step((key,), (other,), (), origin) for key, other in pairs[:count])
    notes = _notes(pairs, count, open_source, open_target)
    return account(Pairing(steps, notes, notes), named, source, target, dtypes)


def _notes(
    pairs: list[tuple[str, str]], count: int, source: Catalog, target: Catalog
) -> tuple[str, ...]:
    if count == len(pairs):
        return (
            (f"stopped after {count}: one side has no more keys",)
            if len(source) != len(target)
            else ()
        )
    return (f"stopped after {count}: {_disagreement(*pairs[count], source, target)}",)


def _disagreement(key: str, other: str, source: Catalog, target: Catalog) -> str:
    shape, other_shape = shape_text(source[key].shape), shape_text(target[other].shape)
    return f"{named(key)} has {shape}, {named(other)} has {other_shape}"


def _unordered(side: str) -> Problem:
    message = f"the keys of the {side} are sorted, so their positions mean nothing"
    return Problem(
        "unordered",
        message,
        None,
        ("map by rules or by name; `--force-order` pairs them anyway",),
    )


def _nothing(source: Catalog, target: Catalog) -> Problem:
    if not source or not target:
        return Problem("nothing-pairs", f"the {'target' if source else 'source'} has no keys")
    fact = _disagreement(next(iter(source)), next(iter(target)), source, target)
    return Problem("nothing-pairs", f"the first keys disagree: {fact}")
