"""What one pass over a tensor's values finds: its size, what is not finite, rows of zeros."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import inf, isfinite, prod, sqrt
from typing import TYPE_CHECKING, TypeAlias

from ckpt_tool.examining.decoding import decoder_of
from ckpt_tool.tensors import TensorInfo

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    Array: TypeAlias = NDArray[Any]

MIN_ROW = 16
"""Shorter rows are nothing by themselves: the nine weights of a depthwise convolution."""
MAX_ROW_BYTES = 4 << 20
VECTOR_PIECE = 1 << 18
"""The bytes of a vector that count as one row."""
PIECE = 1 << 20
"""The bytes that are read at a time: half as many and the two threads wait for each other, twice as
many and they leave the processor's cache (measured from 64 kB to 2 MB).
"""


@dataclass(slots=True)
class Statistics:
    """Of one tensor: `squares` is the sum over its finite elements, `least` and `most` are those of
    them; `first_odd` is the number of the first that isn't finite; `zero_rows` are the numbers of
    rows of zeros, out of `rows`. Of tensors of more than `MAX_RANGED` elements `least` and `most`
    are those of the first, unless these are all one number, or all were asked for.
    """

    elements: int = 0
    squares: float = 0.0
    nans: int = 0
    infs: int = 0
    negative_infs: int = 0
    first_odd: int | None = None
    rows: int = 0
    row_length: int = 0
    zero_rows: tuple[int, ...] = ()
    zero_row_count: int = 0
    least: float = inf
    most: float = -inf

    @property
    def rms(self) -> float:
        """The root of the mean square of the finite elements."""
        finite = self.elements - self.nans - self.infs
        return sqrt(self.squares / finite) if finite else 0.0

    @property
    def is_constant(self) -> bool:
        """Whether all elements are one finite number."""
        return self.least == self.most and not (self.nans or self.infs)

    @property
    def is_zero(self) -> bool:
        """Whether every element is zero."""
        return self.elements > 0 and self.zero_row_count == self.rows

    @property
    def is_mask(self) -> bool:
        """Whether it holds zeros and minus infinity alone, as masks of attention do."""
        return self.infs > 0 and self.infs == self.negative_infs and not (self.nans or self.squares)


MAX_RANGED = 1 << 20
MAX_NOTED = 100_000
"""Rows of zeros whose numbers are kept."""


def row_length_of(info: TensorInfo) -> int:
    """How many elements stand in a row: along the last dimension, or, where that is short (the
    window of a convolution), in one place of the first; of vectors and of huge rows, in a piece.
    """
    shape, size = info.shape, max(info.dtype.itemsize, 1)
    row = shape[-1] if len(shape) > 1 and shape[-1] >= MIN_ROW else prod(shape[1:])
    is_row = len(shape) > 1 and row >= MIN_ROW and row * size <= MAX_ROW_BYTES
    return row if is_row else VECTOR_PIECE // size


def piece_size(info: TensorInfo) -> int:
    """The bytes to read at a time: whole rows, about `PIECE`."""
    row = row_length_of(info) * max(info.dtype.itemsize, 1)
    return row * max(1, PIECE // row)


def statistics_of(
    info: TensorInfo, pieces: Iterable[bytes | memoryview], is_ranged: bool = False
) -> Statistics:
    """The statistics of a tensor from its contiguous little-endian bytes, in pieces of any size;
    `is_ranged` asks for the least and the most of all elements.
    """
    found = Statistics(row_length=row_length_of(info))
    most = inf if is_ranged else MAX_RANGED
    decode = decoder_of(info.dtype)
    zero_rows: list[int] = []
    for piece in _aligned(pieces, piece_size(info)):
        values = decode(piece)
        for block in _blocks(values, found.row_length):
            _add(found, block, zero_rows, most)
    found.zero_rows = tuple(zero_rows)
    return found


def _aligned(pieces: Iterable[bytes | memoryview], size: int) -> Iterator[bytes | memoryview]:
    """The same bytes in pieces of this size, but for the last; what fits already is passed on."""
    rest = bytearray()
    for piece in pieces:
        if not rest and len(piece) == size:
            yield piece
            continue
        rest += piece
        whole = len(rest) // size * size
        for start in range(0, whole, size):
            yield bytes(rest[start : start + size])
        del rest[:whole]
    if rest:
        yield bytes(rest)


def _blocks(values: Array, row_length: int) -> Iterator[Array]:
    """Whole rows as a matrix, and what is left as one more row."""
    whole = values.size // row_length * row_length
    if whole:
        yield values[:whole].reshape(-1, row_length)
    if whole < values.size:
        yield values[whole:].reshape(1, -1)


def _add(found: Statistics, block: Array, zero_rows: list[int], ranged: float) -> None:
    import numpy as np

    with np.errstate(all="ignore"):
        squares = _row_squares(block)
        total = float(squares.sum(dtype=np.float64))
    if isfinite(total):
        if found.elements < ranged or found.least == found.most:
            _widen(found, block)
    else:
        squares = _add_odd(found, block)
        total = float(squares.sum())
        squares[~np.isfinite(block).all(axis=1)] = 1  # no row of zeros
    found.squares += total
    for row in np.flatnonzero(squares == 0):  # also of numbers whose square is none
        if not block[row].any():
            found.zero_row_count += 1
            if len(zero_rows) < MAX_NOTED:
                zero_rows.append(found.rows + int(row))
    found.rows += len(block)
    found.elements += block.size


def _widen(found: Statistics, finite: Array) -> None:
    if finite.size:
        found.least = min(found.least, float(finite.min()))
        found.most = max(found.most, float(finite.max()))


def _row_squares(block: Array) -> Array:
    """The sum of squares of each row; whether it is anything, of integers."""
    import numpy as np

    if block.dtype.kind != "f":
        marks: Array = np.asarray(block.any(axis=1)).astype(np.float64)
        return marks
    if hasattr(np, "vecdot"):
        summed: Array = np.asarray(np.vecdot(block, block))
    else:
        summed = np.einsum("ij,ij->i", block, block)
    return summed


def _add_odd(found: Statistics, block: Array) -> Array:
    """Counts what is not finite, and gives the rows' sums of squares over what is, in float64."""
    import numpy as np

    is_finite = np.isfinite(block)
    odd = np.flatnonzero(~is_finite)
    if odd.size:
        infs = np.isinf(block)
        found.infs += int(infs.sum())
        found.negative_infs += int((infs & (block < 0)).sum())
        found.nans += int(odd.size) - int(infs.sum())
        if found.first_odd is None:
            found.first_odd = found.elements + int(odd[0])
    _widen(found, block[is_finite])
    wide = np.where(is_finite, block, 0).astype(np.float64)
    with np.errstate(all="ignore"):
        squares: Array = (wide * wide).sum(axis=1)
    return squares
