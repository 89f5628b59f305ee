"""Whether the casts of a plan may be proposed to somebody who didn't ask for them."""

from collections.abc import Iterable, Iterator
from itertools import product

from ckpt_tool.mapping.accounting.scales import CODES, Scales
from ckpt_tool.mapping.plan import Plan
from ckpt_tool.tensors import DType

_COMPLEX = frozenset(dtype for dtype in DType if dtype.value.startswith("C"))


def are_plain_casts(plan: Plan, keys: Iterable[str]) -> bool:
    """Whether a plan casts only between floating-point types, and no codes; `keys` are all that the
    source's file names.

    A float of few bits counts as a code where the file has a scale anywhere: which weights it is
    for isn't always told by names.
    """
    types = {dtype for cast in _casts(plan) for dtype in cast}
    if not all(map(_is_real, types)):
        return False
    return types.isdisjoint(CODES) or not Scales(keys)


def _casts(plan: Plan) -> Iterator[tuple[DType, DType]]:
    """What becomes of the types of tensors that change theirs."""
    for step in plan.steps:
        for key, name in product(step.outputs, step.inputs):
            given, made = plan.source[name].dtype, plan.outputs[key].dtype
            if given is not made:
                yield given, made


def _is_real(dtype: DType) -> bool:
    return dtype.is_floating and dtype not in _COMPLEX
