"""How far 64-bit integers are from other numbers, exactly: float64 would round both, and call
neighbours equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from ckpt_tool.comparing.numbers import as_numbers
from ckpt_tool.tensors import DType

if TYPE_CHECKING:
    from numpy import generic, uint64
    from numpy.typing import NDArray

    from ckpt_tool.comparing.numbers import Bytes, Marks, Numbers

    Magnitudes: TypeAlias = NDArray[uint64]

WIDE = {DType.I64: "<i8", DType.U64: "<u8"}
"""Types with numbers that float64 can't hold."""


@dataclass(frozen=True, slots=True)
class Distances:
    """Distances in whole `steps`, which count where `are_whole`: both numbers are whole ones of at
    most 64 bits.

    One beyond 2^64 counts as 2^64-1.
    """

    steps: Magnitudes
    are_whole: Marks

    def within(self, bounds: Numbers) -> Marks:
        """Which are at most a bound."""
        import numpy as np

        limits = np.floor(bounds)
        found: Marks = (limits >= 2.0**64) | (
            self.steps <= np.where(limits < 2.0**64, limits, 0).astype(np.uint64)
        )
        return found


def distances(source: Bytes, target: Bytes, dtypes: tuple[DType, DType]) -> Distances | None:
    """The exact distances, or None for types that float64 holds."""
    import numpy as np

    if not any(dtype in WIDE for dtype in dtypes):
        return None
    with np.errstate(all="ignore"):
        (a, a_negative, a_whole), (b, b_negative, b_whole) = map(_parts, (source, target), dtypes)
        apart = np.maximum(a, b) - np.minimum(a, b)
        together = a + b  # wraps round beyond 64 bits
        together = np.where(together < a, np.uint64(2**64 - 1), together)
        return Distances(np.where(a_negative == b_negative, apart, together), a_whole & b_whole)


def _parts(raw: Bytes, dtype: DType) -> tuple[Magnitudes, Marks, Marks]:
    """Magnitudes, which are negative, and which are whole numbers of at most 64 bits."""
    import numpy as np

    if dtype is DType.U64:
        found = np.frombuffer(raw, "<u8")
        return found, np.zeros(found.shape, bool), np.ones(found.shape, bool)
    if dtype is DType.I64:
        signed = np.frombuffer(raw, "<i8")
        bits = signed.view("<u8")
        return (
            np.where(signed < 0, ~bits + np.uint64(1), bits),
            signed < 0,
            np.ones(signed.shape, bool),
        )
    numbers = as_numbers(raw, dtype)
    is_whole = np.isfinite(numbers) & (numbers == np.floor(numbers)) & (np.abs(numbers) < 2.0**64)
    return np.where(is_whole, np.abs(numbers), 0).astype(np.uint64), numbers < 0, is_whole


def exact_numbers(raw: Bytes, dtype: DType) -> NDArray[generic]:
    """The numbers in a type that holds them all, for one rounding and no more."""
    import numpy as np

    return np.frombuffer(raw, WIDE[dtype]) if dtype in WIDE else as_numbers(raw, dtype)
