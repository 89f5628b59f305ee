"""How much two runs of numbers differ, in float64: by numpy, whose import takes a tenth of torch's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import isfinite, isnan, nan, sqrt
from typing import TYPE_CHECKING

from ckpt_tool.tensors import DType

if TYPE_CHECKING:
    from numpy import bool_, float64
    from numpy.typing import NDArray

    Numbers = NDArray[float64]
    Marks = NDArray[bool_]

Bytes = bytes | memoryview

_NUMPY = {
    DType.F64: "<f8", DType.F32: "<f4", DType.F16: "<f2", DType.I64: "<i8", DType.I32: "<i4", DType.I16: "<i2", DType.I8: "i1",
    DType.U64: "<u8", DType.U32: "<u4", DType.U16: "<u2", DType.U8: "u1", DType.BOOL: "?",
    DType.C128: "<f8", DType.C64: "<f4", DType.C32: "<f2",
}  # fmt: skip
"""numpy's names; a complex number counts as two."""


@dataclass(frozen=True, slots=True)
class Values:
    """How two tensors of one shape and dtype differ.

    `changed` of `elements` differ, NaN being equal to NaN and 0 to -0. `max_abs` is the largest difference, NaN where just
    one side is NaN; sums are in float64, over the elements that are finite on both sides.
    """

    elements: int
    changed: int
    max_abs: float
    dot: float
    squares_a: float
    squares_b: float

    @property
    def cosine(self) -> float:
        """Of the angle between the two; NaN where one of them is all zeros."""
        length = sqrt(self.squares_a) * sqrt(self.squares_b)
        return self.dot / length if length else nan

    def __add__(self, other: Values) -> Values:
        return Values(
            self.elements + other.elements, self.changed + other.changed, _larger(self.max_abs, other.max_abs),
            self.dot + other.dot, self.squares_a + other.squares_a, self.squares_b + other.squares_b,
        )  # fmt: skip


UNMEASURED = Values(0, 0, nan, 0.0, 0.0, 0.0)
"""They differ; how, is not known."""


def _larger(one: float, other: float) -> float:
    return nan if isnan(one) or isnan(other) else max(one, other)


def measure(ours: Bytes, theirs: Bytes, dtype: DType) -> Values:
    """The contiguous little-endian bytes of as many elements on both sides, compared."""
    import numpy as np

    a, b = _as_numbers(ours, dtype), _as_numbers(theirs, dtype)
    with np.errstate(all="ignore"):
        squares = float(a @ a), float(b @ b)
        if all(map(isfinite, squares)) and dtype not in (DType.I64, DType.U64):
            apart = a - b
            changed = int(np.count_nonzero(apart))
            return Values(a.size, changed, float(np.abs(apart, out=apart).max()), float(a @ b), *squares)
        differs = _differs(ours, theirs, a, b, dtype)
        finite = np.isfinite(a) & np.isfinite(b)
        x, y = np.where(finite, a, 0), np.where(finite, b, 0)
        return Values(a.size, int(differs.sum()), _max_abs(a, b, differs), float(x @ y), float(x @ x), float(y @ y))


def _as_numbers(raw: Bytes, dtype: DType) -> Numbers:
    """Real numbers in float64."""
    import numpy as np

    if dtype is DType.BF16:  # the upper half of a float32
        wide = np.frombuffer(raw, "<u2").astype("<u4")
        wide <<= 16
        return wide.view("<f4").astype(np.float64)
    if dtype in _NUMPY:
        return np.frombuffer(raw, _NUMPY[dtype]).astype(np.float64)
    return np.take(_numbers_of_bytes(dtype), np.frombuffer(raw, "u1"))


@cache
def _numbers_of_bytes(dtype: DType) -> Numbers:
    """What each byte means in an 8-bit type that numpy lacks: torch says it."""
    import numpy as np

    from ckpt_tool.torch_bridge import shown

    return np.array(shown(bytes(range(256)), dtype).double().tolist())


def _differs(ours: Bytes, theirs: Bytes, a: Numbers, b: Numbers, dtype: DType) -> Marks:
    """Which elements differ. 64-bit integers are compared as they are: float64 would round them."""
    import numpy as np

    if dtype in (DType.I64, DType.U64):
        a, b = np.frombuffer(ours, "<i8"), np.frombuffer(theirs, "<i8")
    return np.not_equal(a, b) & ~(np.isnan(a) & np.isnan(b))


def _max_abs(a: Numbers, b: Numbers, differs: Marks) -> float:
    """NaN where an element is NaN on one side alone, and where infinities of one sign are subtracted."""
    return float(abs(a - b)[differs].max()) if differs.any() else 0.0
