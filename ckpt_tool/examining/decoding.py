"""The bytes of a tensor as numbers to add up, as fast as they are read: short types as float32."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

from ckpt_tool.tensors import DType

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[Any]

_NUMPY = {
    DType.F64: "<f8", DType.F32: "<f4", DType.I64: "<i8", DType.I32: "<i4", DType.I16: "<i2",
    DType.I8: "i1", DType.U64: "<u8", DType.U32: "<u4", DType.U16: "<u2", DType.U8: "u1",
    DType.BOOL: "u1", DType.C128: "<f8", DType.C64: "<f4",
}  # fmt: skip
"""numpy's names; a complex number counts as two."""
SIGN_AND_NUMBER = 0x8FFFE000 - (1 << 32)
"""The bits of a float16 in a float32: the sign, and the others three places below."""
EIGHT_BITS = (
    DType.F8_E4M3, DType.F8_E5M2, DType.F8_E8M0, DType.F8_E4M3FNUZ, DType.F8_E5M2FNUZ,
)  # fmt: skip


def decoder_of(dtype: DType) -> Callable[[bytes | memoryview], Array]:
    """Gives numbers for bytes: floats as float32 or float64, integers as they are, what has less
    than a byte (F4, F6) as bytes.
    """
    import numpy as np

    if dtype is DType.BF16:
        return _from_bfloat16
    if dtype in (DType.F16, DType.C32):
        return _from_float16
    if dtype in EIGHT_BITS:
        return lambda raw: np.take(_numbers_of_bytes(dtype), np.frombuffer(raw, "u1"))
    name = _NUMPY.get(dtype, "u1")
    return lambda raw: np.frombuffer(raw, name)


def _from_bfloat16(raw: bytes | memoryview) -> Array:
    """A bfloat16 is the upper half of a float32."""
    import numpy as np

    wide = np.frombuffer(raw, "<u2").astype("<u4")
    wide <<= 16
    return wide.view("<f4")


def _from_float16(raw: bytes | memoryview) -> Array:
    """The bits moved to float32's places, and the exponent by a factor: numpy's own cast takes
    several times as long. That is for what is not finite, whose exponent is all ones.
    """
    import numpy as np

    half = np.frombuffer(raw, "<u2")
    signed = half.view("<i2")
    if half.size and (half.max() >= 0xFC00 or signed.max() >= 0x7C00):
        return half.view("<f2").astype("<f4")
    wide = signed.astype("<i4")  # the sign stands in all upper bits
    wide <<= 13
    wide &= np.int32(SIGN_AND_NUMBER)
    numbers = wide.view("<f4")
    numbers *= np.float32(2.0**112)
    return numbers


@cache
def _numbers_of_bytes(dtype: DType) -> Array:
    """What each byte means in an 8-bit type: torch says it."""
    import numpy as np

    from ckpt_tool.torch_bridge import shown

    return np.array(shown(bytes(range(256)), dtype).double().tolist(), np.float32)
