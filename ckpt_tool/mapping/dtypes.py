"""What happens where a source and a target disagree on the dtype: a problem, unless somebody says otherwise."""

from dataclasses import replace
from typing import Literal

from ckpt_tool.mapping.plan import Plan, Step
from ckpt_tool.ops import OPS, Op
from ckpt_tool.tensors import Catalog, DType

DTypePolicy = Literal["strict", "target", "source"] | DType
"""`strict`: a difference is a problem. `target`: cast to the target's. `source`: left as it is. A dtype: all floats become it."""


def with_dtypes(plan: Plan, policy: DTypePolicy) -> Plan:
    """The plan with the casts that a policy asks for."""
    if isinstance(policy, DType):
        return replace(plan, dtype=policy)
    if policy != "target" or plan.target is None:
        return plan
    return replace(plan, steps=tuple(_cast_to_target(step, plan, plan.target) for step in plan.steps))


def _cast_to_target(step: Step, plan: Plan, target: Catalog) -> Step:
    """The step with a final cast, where each of its outputs needs the same one."""
    pairs = {(plan.producers[key][1].dtype, target[key].dtype) for key in step.outputs if key in target}
    if len(pairs) != 1:
        return step
    ((given, wanted),) = pairs
    return step if given is wanted else replace(step, ops=(*step.ops, cast_op(wanted)))


def cast_op(dtype: DType) -> Op:
    return OPS["cast"].parse(dtype.value)
