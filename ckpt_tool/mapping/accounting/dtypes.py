"""What happens where a source and a target disagree on the dtype: a problem, unless somebody says
otherwise.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import ckpt_tool.ops
from ckpt_tool.errors import Problem
from ckpt_tool.mapping.plan import Plan, Step, input_forms
from ckpt_tool.tensors import Catalog, DType

if TYPE_CHECKING:
    from ckpt_tool.ops import Op, TensorForm

DTypePolicy = Literal["strict", "target", "source"] | DType
"""`strict`: a difference is a problem. `target`: cast to the target's. `source`: left as it is. A
dtype: all floats become it.
"""


def with_dtypes(plan: Plan, policy: DTypePolicy) -> Plan:
    """The plan with the casts that a policy asks for. What a fit gives is rounded to the output's
    dtype and to no other before.
    """
    if isinstance(policy, DType):
        steps = tuple(_fitted_in(step, plan, policy) for step in plan.steps)
        return replace(plan, dtype=policy, steps=steps)
    if policy != "target" or plan.target is None:
        return plan
    return replace(
        plan, steps=tuple(_cast_to_target(step, plan, plan.target) for step in plan.steps)
    )


def check_casts(plan: Plan) -> Iterator[Problem]:
    """A problem for each type that torch can't cast to the one that all floats shall have."""
    wanted = plan.dtype
    if wanted is None:
        return
    given = {dtype for dtype in _output_dtypes(plan) if dtype.is_floating}
    for dtype in sorted(given - {wanted}, key=lambda dtype: dtype.value):
        if not (ckpt_tool.ops.can_cast(dtype) and ckpt_tool.ops.can_cast(wanted)):
            cast = f"{dtype.value} can't be cast to {wanted.value}"
            yield Problem("dtype", f"{cast}: torch calculates with one of them only")


def _output_dtypes(plan: Plan) -> Iterator[DType]:
    """The type that each tensor of the output has before a plan's `dtype` is applied."""
    for _, info in plan.producers.values():
        yield info.dtype
    if plan.target:
        yield from (plan.target[key].dtype for key in plan.kept)


def _cast_to_target(step: Step, plan: Plan, target: Catalog) -> Step:
    """The step with a final cast, where each of its outputs needs the same one and torch can make
    it.
    """
    pairs = {
        (plan.producers[key][1].dtype, target[key].dtype) for key in step.outputs if key in target
    }
    if len(pairs) != 1:
        return step
    ((given, wanted),) = pairs
    if given is wanted or not all(map(ckpt_tool.ops.can_cast, (given, wanted))):
        return step
    return replace(step, ops=(*_with_dtype(step.ops, wanted), cast_op(wanted)))


def _fitted_in(step: Step, plan: Plan, dtype: DType) -> Step:
    """The step whose fit gives that dtype, where it gives floats that torch can cast to it."""
    if not step.ops or not isinstance(step.ops[-1], ckpt_tool.ops.Fit):
        return step
    given = plan.producers[step.outputs[0]][1].dtype
    if not (given.is_floating and all(map(ckpt_tool.ops.can_cast, (given, dtype)))):
        return step
    return replace(step, ops=_with_dtype(step.ops, dtype))


def _with_dtype(ops: Sequence[Op], dtype: DType) -> tuple[Op, ...]:
    return tuple(op.with_dtype(dtype) if isinstance(op, ckpt_tool.ops.Fit) else op for op in ops)


def cast_notes(plan: Plan) -> tuple[str, ...]:
    """A line for each kind of cast in a plan: how many tensors, and what they lose."""
    kinds: Counter[tuple[DType, DType]] = Counter()
    for step in plan.steps:
        if step.ops:
            kinds.update(_casts(step.ops, input_forms(step, plan.source)))
            kinds.update(_casts_of_own(step, plan))
    if plan.dtype is not None:
        floats = (dtype for dtype in _output_dtypes(plan) if dtype.is_floating)
        kinds.update((dtype, plan.dtype) for dtype in floats)
    return tuple(
        _cast_note(given, wanted, count)
        for (given, wanted), count in kinds.items()
        if given is not wanted
    )


def _casts(ops: Sequence[Op], forms: Sequence[TensorForm]) -> Iterator[tuple[DType, DType]]:
    """What goes into each `cast` and each fit of a chain, and what comes out: one for each
    tensor.
    """
    for op in ops:
        results = op.infer(forms)
        if isinstance(op, ckpt_tool.ops.Cast | ckpt_tool.ops.Fit):
            yield from (
                (given.dtype, wanted.dtype) for given, wanted in zip(forms, results, strict=True)
            )
        elif isinstance(op, ckpt_tool.ops.Each):
            for index, form in enumerate(forms):
                yield from _casts(op.chain(index), [form])
        forms = results


def _casts_of_own(step: Step, plan: Plan) -> Iterator[tuple[DType, DType]]:
    """What the values that a fit takes from the target are, and what they become."""
    if plan.target is not None and any(getattr(op, "needs_target", False) for op in step.ops):
        yield from ((plan.target[key].dtype, plan.outputs[key].dtype) for key in step.outputs)


def _cast_note(given: DType, wanted: DType, count: int) -> str:
    tensors = f"{count:,} tensor{'s are' if count > 1 else ' is'} cast"
    lost = ckpt_tool.ops.losses(given, wanted)
    return f"{tensors}: {lost or f'{given.value} to {wanted.value} loses nothing'}"


def cast_op(dtype: DType) -> Op:
    """The op `cast:` to a dtype."""
    return ckpt_tool.ops.OPS["cast"].parse(dtype.value)
