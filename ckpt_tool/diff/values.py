"""Two tensors' values, compared in pieces: equal bytes settle most without arithmetic, the others are measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from ckpt_tool.diff.measure import UNMEASURED, Values, measure
from ckpt_tool.tensors import Catalog, DType

if TYPE_CHECKING:
    from ckpt_tool.formats import Extent

Bytes = bytes | memoryview

WORKERS = 2
BLOCK = 1 << 14
"""Elements that are measured at a time: they stay in the processor's cache, and larger arrays would be mapped anew each time."""
PIECE = 256 << 10
_UNMEASURED = (DType.F4, DType.F6_E2M3, DType.F6_E3M2)
"""Types that nothing here can calculate with: their bytes are compared, nothing is measured."""


class HasValues(Protocol):
    catalog: Catalog

    def extent(self, key: str) -> Extent | None: ...

    def chunks(self, key: str, size: int = ...) -> Iterator[bytes]: ...


class HasDigests(Protocol):
    def digest(self, key: str) -> str: ...


def compare_values(a: HasValues, b: HasValues, key: str, dtype: DType) -> Values | None:
    """How the values of a key differ, or None where they don't. Memory stays at a few pieces, whatever the tensors' size."""
    ours, theirs = a.extent(key), b.extent(key)
    if ours.equals(theirs) if ours and theirs else all(one == other for one, other in _chunk_pairs(a, b, key)):
        return None
    if dtype in _UNMEASURED:
        return UNMEASURED
    # The equal pieces before the first difference count too: they are read once more.
    total = Values(0, 0, 0.0, 0.0, 0.0, 0.0)
    pieces = zip(ours.pieces(), theirs.pieces(), strict=True) if ours and theirs else _chunk_pairs(a, b, key)
    block = BLOCK * dtype.itemsize
    for one, other in pieces:
        for start in range(0, len(one), block):
            total += measure(one[start : start + block], other[start : start + block], dtype)
    return total if total.changed else None


def compare_all(a: HasValues, b: HasValues, keys: Sequence[str]) -> Iterator[Values | None]:
    """How the values of each key differ, in the keys' order; two are compared at a time, each on a processor of its own."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(WORKERS) as workers:
        yield from workers.map(lambda key: compare_values(a, b, key, a.catalog[key].dtype), keys)


def compare_digests(a: HasDigests, b: HasDigests, keys: Sequence[str]) -> Iterator[Values | None]:
    """The same where one side has digests alone: whether the values of each key differ, and nothing of how."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(WORKERS) as workers:
        yield from workers.map(lambda key: None if a.digest(key) == b.digest(key) else UNMEASURED, keys)


def _chunk_pairs(a: HasValues, b: HasValues, key: str) -> Iterator[tuple[Bytes, Bytes]]:
    """Pieces of equal length from both sides, whatever pieces they come in."""
    mine, yours = a.chunks(key, PIECE), b.chunks(key, PIECE)
    ours = theirs = b""
    while True:
        ours, theirs = ours or next(mine, b""), theirs or next(yours, b"")
        size = min(len(ours), len(theirs))
        if not size:
            return
        yield ours[:size], theirs[:size]
        ours, theirs = ours[size:], theirs[size:]
