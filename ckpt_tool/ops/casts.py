"""The op `cast`, and what a cast loses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ckpt_tool.ops.op import Form, Inverse, Op, OpError
from ckpt_tool.tensors import DType
from ckpt_tool.torch_bridge import DTYPES, torch_dtype

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self

SIGNIFICAND_BITS = {
    DType.F64: 53, DType.F32: 24, DType.BF16: 8, DType.F16: 11, DType.F8_E4M3: 4, DType.F8_E5M2: 3, DType.F8_E4M3FNUZ: 4,
    DType.F8_E5M2FNUZ: 3, DType.F8_E8M0: 1,
}  # fmt: skip
"""Bits of precision, the implicit one included (IEEE 754; OCP 8-bit floating point specification)."""
LARGEST = {
    DType.F16: 65504.0, DType.F8_E4M3: 448.0, DType.F8_E5M2: 57344.0, DType.F8_E4M3FNUZ: 240.0, DType.F8_E5M2FNUZ: 57344.0,
}  # fmt: skip
_EXPONENT_BITS = {DType.F64: 11, DType.F32: 8, DType.BF16: 8, DType.F16: 5, DType.F8_E4M3: 4, DType.F8_E5M2: 5, DType.F8_E8M0: 8}


def dtype_named(value: object, op: str) -> DType:
    """A dtype by safetensors' name or torch's."""
    if isinstance(value, str):
        if value in DTYPES:
            return DTYPES[value]
        found = next((dtype for dtype in DType if dtype.value == value.upper()), None)
        if found:
            return found
    raise OpError(f"`{op}`: {value!r} is no dtype; say BF16 or bfloat16, say")


def losses(given: DType, wanted: DType) -> str | None:
    """What a cast loses, in words; None for one that keeps every value."""
    if given is wanted:
        return None
    ours, theirs = SIGNIFICAND_BITS.get(given), SIGNIFICAND_BITS.get(wanted)
    if ours and theirs:
        parts = [f"keeps {theirs} of {ours} significand bits"] if theirs < ours else []
        if wanted in LARGEST and _EXPONENT_BITS.get(given, 0) >= _EXPONENT_BITS.get(wanted, 0):
            parts.append(f"overflows above {LARGEST[wanted]:g}")
        return f"{given.value} to {wanted.value} {' and '.join(parts)}" if parts else None
    if theirs and not given.is_complex:
        digits = given.bits - (given.value[0] == "I")
        return None if digits <= theirs else f"{given.value} to {wanted.value} is exact up to 2^{theirs} only"
    if given is DType.BOOL and not wanted.is_complex:
        return None
    if (
        given.value[0] in "IU"
        and wanted.value[0] in "IU"
        and given.bits < wanted.bits
        and (given.value[0] == "U" or wanted.value[0] == "I")
    ):
        return None
    return f"{given.value} to {wanted.value} can't hold every value"


@dataclass(frozen=True, slots=True)
class Cast(Op):
    """The values in another dtype, rounded to the nearest where they don't fit."""

    name: ClassVar[str] = "cast"
    dtype: DType = DType.F32

    @classmethod
    def parse(cls, argument: object) -> Self:
        return cls(dtype_named(argument, cls.name))

    def argument(self) -> object:
        return self.dtype.value

    def infer(self, inputs: Sequence[Form]) -> tuple[Form, ...]:
        return tuple(Form(self.dtype, form.shape) for form in inputs)

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [tensor.to(torch_dtype(self.dtype)) for tensor in inputs]

    def loses(self, given: DType) -> str | None:
        return losses(given, self.dtype)

    def invert(self) -> Inverse:
        return Inverse((), "numeric", "the inverse needs the source's dtype; an inverse of a concrete plan knows it")

    def invert_for(self, inputs: Sequence[Form]) -> Inverse:
        given = {form.dtype for form in inputs}
        if len(given) > 1:
            return Inverse((), "lossy", "the tensors have different dtypes")
        loss = self.loses(next(iter(given)))
        return Inverse((Cast(given.pop()),), "numeric" if loss else "exact", loss or "")
