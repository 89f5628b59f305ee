"""The inverse of a rule's ops: one for tensors of any sizes, or for those of a plan at hand."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ckpt_tool.mapping.plan import Plan, Step, input_forms
from ckpt_tool.mapping.rules import Rule
from ckpt_tool.ops import (
    Inverse,
    Op,
    OpError,
    infer_chain,
    invert_chain,
    ops_argument,
    weakest,
)


def inverse_of(rule: Rule) -> Inverse:
    """The inverse of a rule's ops for any sizes; without ops where the rule alone can't tell it."""
    return _shared_parts(rule) or invert_chain(rule.ops)


def inverse_for(rule: Rule, steps: Sequence[Step], plan: Plan) -> Inverse:
    """The inverse of a rule's ops: one that serves any sizes, as far as it leads back from those of
    its steps, else one with these sizes.
    """
    if not steps:
        return inverse_of(rule)
    general = invert_chain(rule.ops)
    found = [_inverse_of_step(step, plan) for step in steps]
    worst = weakest([each.inverse for each in found])
    if _is_there(general, rule) and all(each.has_general for each in found):
        return replace(worst, ops=general.ops)
    sized = _different_ops(rule, found)
    if len(sized) == 1:
        return replace(worst, ops=sized[0])
    if general.ops:
        return replace(weakest([worst, general]), ops=general.ops)
    why = "the rule's tensors need different inverses; invert a plan of one of them"
    return replace(worst, why=worst.why or why)


@dataclass(frozen=True, slots=True)
class _StepInverse:
    """The inverse of a step for its sizes, and whether the one for any sizes leads back from them
    too.
    """

    inverse: Inverse
    has_general: bool


def _inverse_of_step(step: Step, plan: Plan) -> _StepInverse:
    given = input_forms(step, plan.source)
    general = invert_chain(step.ops)
    try:
        leads_back = list(infer_chain(general.ops, infer_chain(step.ops, given))) == given
    except OpError:
        leads_back = False
    return _StepInverse(invert_chain(step.ops, given), leads_back)


def _different_ops(rule: Rule, found: Sequence[_StepInverse]) -> list[tuple[Op, ...]]:
    """The ops of the inverses, each once as they are written; none for those that lead nowhere."""
    chains = (each.inverse.ops for each in found if _is_there(each.inverse, rule))
    return list({str(ops_argument(ops)): ops for ops in chains}.values())


def _is_there(inverse: Inverse, rule: Rule) -> bool:
    """Whether there is an inverse: of no ops, none are."""
    return bool(inverse.ops) or not rule.ops


def _shared_parts(rule: Rule) -> Inverse | None:
    """No inverse where ops that join, or that part, are more than the names that tell how many each
    takes; None elsewhere.
    """
    collects = [op.name for op in rule.ops if op.collects]
    produces = [op.name for op in rule.ops if op.produces]
    for names, sides in ((collects, rule.sources), (produces, rule.targets)):
        dimensions = len(sides[0].only if sides else ()) + (len(sides) > 1)
        if len(names) > max(dimensions, 1):
            shared = f"`{names[0]}` and `{names[1]}` share the names of the parts"
            return Inverse((), "lossy", f"{shared}, which don't say how many each takes")
    return None
