"""The bytes of a tensor as numbers of float64, and such numbers rounded to a narrower type."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, TypeAlias

from ckpt_tool.tensors import DType

if TYPE_CHECKING:
    from typing import Any

    from numpy import bool_, float64
    from numpy.typing import NDArray

    Numbers: TypeAlias = NDArray[float64]
    Marks: TypeAlias = NDArray[bool_]

Bytes = bytes | memoryview

_NUMPY = {
    DType.F64: "<f8", DType.F32: "<f4", DType.F16: "<f2", DType.I64: "<i8", DType.I32: "<i4",
    DType.I16: "<i2", DType.I8: "i1",
    DType.U64: "<u8", DType.U32: "<u4", DType.U16: "<u2", DType.U8: "u1",
    DType.C128: "<f8", DType.C64: "<f4", DType.C32: "<f2",
}  # fmt: skip
"""numpy's names; a complex number counts as two."""


def as_numbers(raw: Bytes, dtype: DType) -> Numbers:
    """Real numbers in float64."""
    import numpy as np

    if dtype is DType.BF16:  # the upper half of a float32
        wide = np.frombuffer(raw, "<u2").astype("<u4")
        wide <<= 16
        return wide.view("<f4").astype(np.float64)
    if dtype is DType.BOOL:  # any byte but 0 is true
        truths: Numbers = np.not_equal(np.frombuffer(raw, "u1"), 0).astype(np.float64)
        return truths
    if dtype in _NUMPY:
        return np.frombuffer(raw, _NUMPY[dtype]).astype(np.float64)
    return np.take(_numbers_of_bytes(dtype), np.frombuffer(raw, "u1"))


@cache
def _numbers_of_bytes(dtype: DType) -> Numbers:
    """What each byte means in an 8-bit type that numpy lacks: torch says it."""
    import numpy as np

    from ckpt_tool.torch_bridge import shown

    return np.array(shown(bytes(range(256)), dtype).double().tolist())


def rounded_to(numbers: NDArray[Any], dtype: DType) -> Numbers | None:
    """What a cast to a floating-point type leaves of numbers, as torch casts; None for other types.

    torch casts by way of float32, and rounds to nearest, ties to even (c10/util/BFloat16.h,
    Half.h).
    """
    import numpy as np

    if not dtype.is_floating:
        return None
    with np.errstate(all="ignore"):
        single = numbers.astype(np.float32)
        if dtype is DType.F64:
            return numbers.astype(np.float64)
        if dtype is DType.F32:
            return single.astype(np.float64)
        if dtype is DType.F16:
            return single.astype(np.float16).astype(np.float64)
        if dtype is DType.BF16:
            bits = single.view(np.uint32)
            upper = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
            found: Numbers = np.where(
                np.isnan(single), np.float32(np.nan), upper.view(np.float32)
            ).astype(np.float64)
            return found
    return _rounded_by_torch(single.tobytes(), dtype)


def _rounded_by_torch(raw: bytes, dtype: DType) -> Numbers:
    import numpy as np

    from ckpt_tool.torch_bridge import shown, torch_dtype

    return np.array(shown(raw, DType.F32).to(torch_dtype(dtype)).double().tolist())
