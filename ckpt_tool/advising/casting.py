"""Whether the casts of a plan may be proposed to somebody who didn't ask for them."""

from collections.abc import Iterable

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
    casts = {
        (plan.source[name].dtype, plan.outputs[key].dtype)
        for step in plan.steps for key in step.outputs for name in step.inputs
        if plan.source[name].dtype is not plan.outputs[key].dtype
    }  # fmt: skip
    if not all(_is_real(one) and _is_real(other) for one, other in casts):
        return False
    return not any(one in CODES or other in CODES for one, other in casts) or not Scales(keys)


def _is_real(dtype: DType) -> bool:
    return dtype.is_floating and dtype not in _COMPLEX
