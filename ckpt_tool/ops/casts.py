"""The op `cast`, and what a cast loses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import frexp
from typing import TYPE_CHECKING, ClassVar

from ckpt_tool.frozen import frozen
from ckpt_tool.ops.op import Inverse, Leaf, Node, Op, OpError, Part, TensorForm
from ckpt_tool.regions import Region
from ckpt_tool.tensors import TORCH_NAMES, DType
from ckpt_tool.torch_bridge import DTYPES, torch_dtype

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self


@frozen
class FloatFormat:
    """What a type of floating-point numbers can hold: `bits` of precision (the implicit one
    included), powers of two, special values.

    `smallest` is the exponent of the smallest normal number, and `step` that of the distance of the
    numbers below it. `nans` is how many NaNs there are, `sign` whether there are negative numbers.
    """

    bits: int
    smallest: int
    step: int
    largest: float
    nans: int
    has_infinity: bool = True
    has_negative_zero: bool = True
    has_zero: bool = True
    sign: bool = True


def _ieee(exponent: int, fraction: int) -> FloatFormat:
    """A type in which the largest exponent is that of infinity and NaNs (IEEE 754)."""
    bias = (1 << (exponent - 1)) - 1
    largest = (2 - 2.0**-fraction) * 2.0**bias
    return FloatFormat(
        fraction + 1, 1 - bias, 1 - bias - fraction, largest, 2 * ((1 << fraction) - 1)
    )


FLOATS = {
    DType.F64: _ieee(11, 52),
    DType.F32: _ieee(8, 23),
    DType.F16: _ieee(5, 10),
    DType.BF16: _ieee(8, 7),
    DType.F8_E5M2: _ieee(5, 2),
    DType.F8_E4M3: FloatFormat(4, -6, -9, 448.0, 2, has_infinity=False),
    DType.F8_E4M3FNUZ: FloatFormat(
        4, -7, -10, 240.0, 1, has_infinity=False, has_negative_zero=False
    ),
    DType.F8_E5M2FNUZ: FloatFormat(
        3, -15, -17, 57344.0, 1, has_infinity=False, has_negative_zero=False
    ),
    DType.F8_E8M0: FloatFormat(
        1, -127, -127, 2.0**127, 1, False, has_negative_zero=False, has_zero=False, sign=False
    ),
}
"""IEEE 754; OCP 8-bit floating point specification (E4M3, E5M2), OCP Microscaling (E8M0); arXiv
2206.02915 (FNUZ).

F4 and F6 are missing: torch calculates nothing with them.
"""
KEEP_NANS = {(DType.BF16, DType.F32), (DType.F8_E4M3, DType.F32)}
"""Casts that keep each of several NaNs apart: the one appends zeros, the other has two, one of each
sign.
"""


def dtype_named(value: object, op: str) -> DType:
    """A dtype by safetensors' name or torch's."""
    if isinstance(value, str):
        if value in DTYPES:
            return DTYPES[value]
        found = next((dtype for dtype in DType if dtype.value == value.upper()), None)
        if found:
            return found
    raise OpError(f"`{op}`: {value!r} is not a dtype; write BF16 or bfloat16, for example")


def losses(given: DType, wanted: DType) -> str | None:
    """What a cast loses, in words; None for one that keeps every value, NaNs included."""
    if given is wanted:
        return None
    *others, last = _losses(given, wanted) or [""]
    lost = " and ".join([", ".join(others), last] if others else [last])
    return f"{given.value} to {wanted.value} {lost}" if lost else None


def _losses(given: DType, wanted: DType) -> list[str]:
    if given.is_complex or wanted.is_complex:
        return _of_complex(given, wanted)
    if given in FLOATS and wanted in FLOATS:
        return _of_floats(FLOATS[given], FLOATS[wanted]) or _of_nans(given, wanted)
    if wanted in FLOATS:
        return _of_integers(given, FLOATS[wanted])
    if given is DType.BOOL or _holds_integers(given, wanted):
        return []
    return ["can't hold every value"]


def _of_complex(given: DType, wanted: DType) -> list[str]:
    if not wanted.is_complex:
        return ["drops the imaginary part"]
    part = PARTS.get(given, given)
    if part is PARTS[wanted]:
        return [] if part in KEEP_NANS_AS_PARTS else [OTHER_NANS]
    return _losses(part, PARTS[wanted])


PARTS = {DType.C32: DType.F16, DType.C64: DType.F32, DType.C128: DType.F64}
"""What complex numbers consist of."""
KEEP_NANS_AS_PARTS = (DType.F32, DType.F64)
"""Types whose NaNs stay as they are as parts of complex numbers, there and back; torch converts F16
to C32 by way of F32.
"""
OTHER_NANS = "keeps every number, but may give a NaN other bits"


def _of_floats(source: FloatFormat, target: FloatFormat) -> list[str]:
    """What becomes of numbers and infinity. Bits that are lost imply losses of small numbers."""
    is_rounded = target.bits < source.bits
    parts = [f"keeps {target.bits} of {source.bits} significand bits"] if is_rounded else []
    if _overflows(source, target):
        parts.append(f"overflows above {target.largest:g}")
    elif source.has_infinity and not target.has_infinity:
        parts.append("has no infinity")
    if source.step < target.step and not is_rounded:
        parts.append(f"loses precision below 2^{target.smallest}")
    return parts + _of_zeros(source, target)


def _overflows(source: FloatFormat, target: FloatFormat) -> bool:
    """Whether numbers become too large, not counting those that only rounding makes so."""
    if frexp(source.largest)[1] > frexp(target.largest)[1]:
        return True
    return source.largest > target.largest and target.bits >= source.bits


def _of_zeros(source: FloatFormat, target: FloatFormat) -> list[str]:
    if source.has_zero and not target.has_zero:
        return ["has neither 0 nor negative numbers"]
    if source.has_negative_zero and not target.has_negative_zero:
        return ["has no negative zero"]
    return []


def _of_nans(given: DType, wanted: DType) -> list[str]:
    """What becomes of NaNs where every number survives: which of several comes out is not the same
    on every machine.
    """
    is_kept = FLOATS[given].nans == 1 or (given, wanted) in KEEP_NANS
    return [] if is_kept else [OTHER_NANS]


def _of_integers(given: DType, target: FloatFormat) -> list[str]:
    digits = given.bits - (given.value[0] == "I") if given is not DType.BOOL else 1
    if not target.has_zero:
        return ["has neither 0 nor negative numbers"]
    if digits <= target.bits and 2.0**digits <= target.largest:
        return []
    return [f"is exact up to 2^{target.bits} only"]


def _holds_integers(given: DType, wanted: DType) -> bool:
    is_wider = given.value[0] in "IU" and wanted.value[0] in "IU" and given.bits < wanted.bits
    return is_wider and (given.value[0] == "U" or wanted.value[0] == "I")


@dataclass(frozen=True, slots=True)
class Cast(Op):
    """The values in another dtype, rounded to the nearest where they don't fit."""

    name: ClassVar[str] = "cast"
    dtype: DType = DType.F32

    @classmethod
    def parse(cls, argument: object) -> Self:
        """From a dtype's name, safetensors' or torch's."""
        return cls(dtype_named(argument, cls.name))

    def argument(self) -> object:
        """The dtype's name in safetensors."""
        return self.dtype.value

    def infer(self, inputs: Sequence[TensorForm]) -> tuple[TensorForm, ...]:
        """... -> ..., in the new dtype. Raises OpError for types that torch can't convert."""
        for form in inputs:
            odd = [dtype for dtype in (form.dtype, self.dtype) if not can_cast(dtype)]
            if odd and form.dtype is not self.dtype:
                raise OpError(
                    f"`cast` of {form.dtype.value} to {self.dtype.value}: "
                    f"torch calculates nothing with {odd[0].value}"
                )
        return tuple(TensorForm(self.dtype, form.shape) for form in inputs)

    def part(self, output: int, region: Region, inputs: Sequence[TensorForm]) -> Part | None:
        """The same box."""
        return Node((self,), (Leaf(output, region),))

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Converted by torch; a tensor that has the dtype already is passed on as it is."""
        return [tensor.to(torch_dtype(self.dtype)) for tensor in inputs]

    def invert(self) -> Inverse:
        """Nothing: the dtype that came in is not known."""
        return Inverse(
            (),
            "numeric",
            "the inverse needs the source's dtype; an inverse of a concrete plan knows it",
        )

    def invert_for(self, inputs: Sequence[TensorForm]) -> Inverse:
        """The cast back, exact where every value survives; nothing for mixed dtypes."""
        given = {form.dtype for form in inputs}
        if len(given) > 1:
            return Inverse((), "lossy", "the tensors have different dtypes")
        dtype = given.pop()
        if _keeps_numbers(dtype, self.dtype):
            if _keeps_nans(dtype, self.dtype):
                return Inverse((Cast(dtype),), "exact")
            return Inverse((Cast(dtype),), "exact with a check", NO_NANS)
        loss = losses(dtype, self.dtype)
        return Inverse((Cast(dtype),), "numeric" if loss else "exact", loss or "")


def _keeps_numbers(given: DType, wanted: DType) -> bool:
    """Whether floating-point numbers, or the parts of complex ones, all survive."""
    if given.is_complex and not wanted.is_complex:
        return False
    part, wanted_part = PARTS.get(given, given), PARTS.get(wanted, wanted)
    if part not in FLOATS or wanted_part not in FLOATS:
        return False
    return not _of_floats(FLOATS[part], FLOATS[wanted_part])


def _keeps_nans(given: DType, wanted: DType) -> bool:
    """Whether each NaN comes back, there and back again."""
    part = PARTS.get(given, given)
    if given is wanted or FLOATS[part].nans == 1:
        return True
    return part is PARTS.get(wanted, wanted) and part in KEEP_NANS_AS_PARTS


NO_NANS = "every number comes back, a NaN maybe with other bits"


def can_cast(dtype: DType) -> bool:
    """Whether torch converts numbers to and from this type."""
    return dtype in TORCH_NAMES and dtype is not DType.F4
