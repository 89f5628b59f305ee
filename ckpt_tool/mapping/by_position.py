"""A plan by position: the i-th key of the source to the i-th of the target, while their shapes agree."""

from ckpt_tool.errors import Problem, RuleError
from ckpt_tool.keys.relations import equal_positions
from ckpt_tool.mapping.compile import checked
from ckpt_tool.mapping.dtypes import DTypePolicy
from ckpt_tool.mapping.plan import Origin, Plan, Step
from ckpt_tool.tensors import Catalog, shape_text


def plan_by_position(source: Catalog, target: Catalog, dtypes: DTypePolicy = "strict", force_order: bool = False) -> Plan:
    """Pairs from the first key on and stops at the first disagreement of shapes, which the plan's notes name.

    Raises RuleError when a side's keys are sorted, so that their order means nothing, unless `force_order`.
    """
    problems = [_unordered(side) for side, catalog in (("source", source), ("target", target)) if not (catalog.is_ordered or force_order)]
    if problems:
        raise RuleError(problems)
    pairs = list(zip(source, target, strict=False))
    count = equal_positions(source, target)
    if not count:
        raise RuleError([_nothing(source, target)])
    origin = Origin("position")
    steps = tuple(Step((key,), (other,), (), origin) for key, other in pairs[:count])
    plan = Plan(steps, tuple(source)[count:], tuple(target)[count:], source, target, _notes(pairs, count, source, target))
    return checked(plan, dtypes, [])


def _notes(pairs: list[tuple[str, str]], count: int, source: Catalog, target: Catalog) -> tuple[str, ...]:
    if count == len(pairs):
        return (f"stopped after {count}: one side has no more keys",) if len(source) != len(target) else ()
    return (f"stopped after {count}: {_disagreement(*pairs[count], source, target)}",)


def _disagreement(key: str, other: str, source: Catalog, target: Catalog) -> str:
    return f"`{key}` has {shape_text(source[key].shape)}, `{other}` has {shape_text(target[other].shape)}"


def _unordered(side: str) -> Problem:
    message = f"the keys of the {side} are sorted, so their positions mean nothing"
    return Problem("unordered", message, None, ("map by rules or by name; `--force-order` pairs them all the same",))


def _nothing(source: Catalog, target: Catalog) -> Problem:
    if not source or not target:
        return Problem("nothing-pairs", f"the {'target' if source else 'source'} has no keys")
    fact = _disagreement(next(iter(source)), next(iter(target)), source, target)
    return Problem("nothing-pairs", f"the first keys disagree: {fact}")
