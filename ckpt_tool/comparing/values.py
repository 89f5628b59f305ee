"""Two tensors' values, compared in pieces: equal bytes settle most without arithmetic, the others
are measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from ckpt_tool.comparing.measure import (
    NOTHING,
    UNMEASURED,
    Tolerance,
    Values,
    measure_across,
    measure_difference,
)
from ckpt_tool.tensors import DType, TensorInfo

if TYPE_CHECKING:
    from ckpt_tool.formats import Extent

Bytes = bytes | memoryview

WORKERS = 2
BLOCK = 1 << 14
"""Elements that are measured at a time: they stay in the processor's cache, and larger arrays would
be mapped anew each time.
"""
PIECE = 256 << 10
_UNMEASURED = (DType.F4, DType.F6_E2M3, DType.F6_E3M2)
"""Types that nothing here can calculate with: their bytes are compared, nothing is measured."""


class ComparedTensors(Protocol):
    """A side whose values are compared: an open checkpoint, or what is in memory."""

    @property
    def catalog(self) -> Mapping[str, TensorInfo]:
        """Dtype and shape of each tensor."""

    def extent(self, key: str) -> Extent | None:
        """The byte range that is this tensor as it stands, None where there is none."""

    def chunks(self, key: str, size: int = ...) -> Iterator[bytes]:
        """The contiguous little-endian bytes in pieces of at most `size`."""


class HasDigests(Protocol):
    """A side of which digests are enough."""

    def digest(self, key: str) -> str:
        """The digest of a tensor's values."""


def compare_values(
    a: ComparedTensors,
    b: ComparedTensors,
    key: str,
    dtype: DType,
    tolerance: Tolerance | None = None,
) -> Values | None:
    """How the values of a key differ, or None where all bytes are equal. Memory stays at a few
    pieces, whatever the tensors' size.
    """
    source, target = a.extent(key), b.extent(key)
    if (
        source.equals(target)
        if source and target
        else all(one == other for one, other in _chunk_pairs(a, b, key))
    ):
        return None
    if dtype in _UNMEASURED:
        return UNMEASURED
    # The equal pieces before the first difference count too: they are read once more.
    total = NOTHING
    pieces = (
        zip(source.pieces(), target.pieces(), strict=True)
        if source and target
        else _chunk_pairs(a, b, key)
    )
    block = BLOCK * dtype.itemsize
    for one, other in pieces:
        for start in range(0, len(one), block):
            total += measure_difference(
                one[start : start + block], other[start : start + block], dtype, tolerance
            )
    return total


def are_comparable(one: DType, other: DType) -> bool:
    """Whether the numbers of two types can be compared: not those that nothing calculates with, nor
    complex ones with real ones.
    """
    return not {one, other} & {*_UNMEASURED} and one.is_complex is other.is_complex


def compare_across(
    a: ComparedTensors, b: ComparedTensors, key: str, tolerance: Tolerance | None = None
) -> Values | None:
    """How the numbers of a key differ that has two types; None for types that can't be compared."""
    dtypes = a.catalog[key].dtype, b.catalog[key].dtype
    if not are_comparable(*dtypes):
        return None
    total = NOTHING
    for one, other in _element_pairs(a, b, key, dtypes):
        total += measure_across(one, other, dtypes, tolerance)
    return total


def compare_all(
    a: ComparedTensors, b: ComparedTensors, keys: Sequence[str], tolerance: Tolerance | None = None
) -> Iterator[Values | None]:
    """How the values of each key differ, in the keys' order; two are compared at a time, each on a
    processor of its own.
    """
    from concurrent.futures import ThreadPoolExecutor

    def compare(key: str) -> Values | None:
        dtypes = a.catalog[key].dtype, b.catalog[key].dtype
        is_one = dtypes[0] is dtypes[1]
        return (
            compare_values(a, b, key, dtypes[0], tolerance)
            if is_one
            else compare_across(a, b, key, tolerance)
        )

    with ThreadPoolExecutor(WORKERS) as workers:
        yield from workers.map(compare, keys)


def compare_digests(a: HasDigests, b: HasDigests, keys: Sequence[str]) -> Iterator[Values | None]:
    """The same where one side has digests alone: whether the values of each key differ, and nothing
    of how.
    """
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(WORKERS) as workers:
        yield from workers.map(
            lambda key: None if a.digest(key) == b.digest(key) else UNMEASURED, keys
        )


def _element_pairs(
    a: ComparedTensors, b: ComparedTensors, key: str, dtypes: tuple[DType, DType]
) -> Iterator[tuple[Bytes, Bytes]]:
    """Pieces of equally many elements from both sides, at most a block of each, whatever pieces
    they come in.
    """
    source, target = (
        _Elements(side.chunks(key, BLOCK * dtype.itemsize), dtype.itemsize)
        for side, dtype in zip((a, b), dtypes, strict=True)
    )
    while count := min(BLOCK, source.ready(), target.ready()):
        yield source.take(count), target.take(count)


class _Elements:
    """The elements of one side, in whatever pieces they come."""

    def __init__(self, pieces: Iterator[bytes], size: int) -> None:
        self._pieces, self._size = pieces, size
        self._left = memoryview(b"")

    def ready(self) -> int:
        """How many elements are there to be taken; 0 at the end alone."""
        while len(self._left) < self._size and (piece := next(self._pieces, b"")):
            self._left = memoryview(bytes(self._left) + piece if self._left else piece)
        return len(self._left) // self._size

    def take(self, count: int) -> Bytes:
        """The next elements."""
        size = count * self._size
        taken, self._left = self._left[:size], self._left[size:]
        return taken


def _chunk_pairs(a: ComparedTensors, b: ComparedTensors, key: str) -> Iterator[tuple[Bytes, Bytes]]:
    """Pieces of equal length from both sides, whatever pieces they come in."""
    source_pieces, target_pieces = a.chunks(key, PIECE), b.chunks(key, PIECE)
    source = target = b""
    while True:
        source, target = source or next(source_pieces, b""), target or next(target_pieces, b"")
        size = min(len(source), len(target))
        if not size:
            return
        yield source[:size], target[:size]
        source, target = source[size:], target[size:]
