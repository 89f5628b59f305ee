"""Two tensors' values, compared in pieces: equal bytes settle most without arithmetic, torch measures the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite, isnan, nan, sqrt
from typing import TYPE_CHECKING, Protocol

from ckpt_tool.tensors import Catalog, DType
from ckpt_tool.torch_bridge import shown, to_tensor

if TYPE_CHECKING:
    import torch

    from ckpt_tool.formats import Extent

Bytes = bytes | memoryview

WORKERS = 2
BLOCK = 1 << 15
"""Elements that are measured at a time: no more than torch gives to one thread, for there is a worker on each processor."""
PIECE = 256 << 10
_UNMEASURED = (DType.F4, DType.F6_E2M3, DType.F6_E3M2)
"""Types that torch can't calculate with: their bytes are compared, nothing is measured."""


class HasValues(Protocol):
    catalog: Catalog

    def extent(self, key: str) -> Extent | None: ...

    def chunks(self, key: str, size: int = ...) -> Iterator[bytes]: ...


class HasDigests(Protocol):
    def digest(self, key: str) -> str: ...


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
            total += _measure(one[start : start + block], other[start : start + block], dtype)
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


def _measure(ours: Bytes, theirs: Bytes, dtype: DType) -> Values:
    a, b = _as_numbers(ours, dtype), _as_numbers(theirs, dtype)
    squares = float(a @ a), float(b @ b)
    if all(map(isfinite, squares)) and dtype not in (DType.I64, DType.U64):
        apart = a - b
        return Values(a.numel(), int(apart.count_nonzero()), float(apart.abs_().amax()), float(a @ b), *squares)
    differs = _differs(ours, theirs, a, b, dtype)
    finite = a.isfinite() & b.isfinite()
    changed = int(differs.sum())
    x, y = a.where(finite, 0), b.where(finite, 0)
    return Values(a.numel(), changed, _max_abs(a, b, differs), float(x @ y), float(x @ x), float(y @ y))


def _as_numbers(raw: Bytes, dtype: DType) -> torch.Tensor:
    """Real numbers in float64; a complex number counts as two."""
    import torch

    tensor = shown(raw, dtype)
    if dtype.is_complex:
        tensor = torch.view_as_real(tensor.to(torch.complex128)).reshape(-1)
    return tensor.to(torch.float64)


def _differs(ours: Bytes, theirs: Bytes, a: torch.Tensor, b: torch.Tensor, dtype: DType) -> torch.Tensor:
    """Which elements differ. 64-bit integers are compared as they are: float64 would round them."""
    if dtype in (DType.I64, DType.U64):
        count = (len(ours) // 8,)
        return to_tensor(ours, DType.I64, count) != to_tensor(theirs, DType.I64, count)
    return (a != b) & ~(a.isnan() & b.isnan())


def _max_abs(a: torch.Tensor, b: torch.Tensor, differs: torch.Tensor) -> float:
    """NaN where an element is NaN on one side alone, and where infinities of one sign are subtracted."""
    return float((a - b).abs()[differs].amax()) if differs.any() else 0.0
