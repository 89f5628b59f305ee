"""Which rows of the target are which rows of the source, by their digests; one tensor is in memory
at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ckpt_tool.align.by_values.fingerprints import (
    DigestedTensors,
    plain_shape,
    read_as,
    row_length,
    rows_of,
)
from ckpt_tool.align.by_values.row_groups import pairs_of_rows
from ckpt_tool.align.pairs import Pair
from ckpt_tool.align.sides import Side, Sides
from ckpt_tool.tensors import Catalog, DType

RowPlace = tuple[str, int]
"""A key and the number of one of its rows."""

TURNS = (Sides(False, False), Sides(True, False), Sides(True, True), Sides(False, True))
"""Whether rows are columns of the source's tensors, and of the target's; most are neither."""
MAX_PLACES = 32
"""Places of one row that are remembered; rows of zeros are everywhere."""
MAX_ROWS = 4_000_000
"""Rows of one length that are indexed; each takes some 250 bytes, a digest and its places."""
MIN_ROW_BYTES = 8
"""Bytes of a row below which equal ones may be chance."""


@dataclass
class RowFinder:
    """Finds the target's rows in the source; what was read once is not read again."""

    checkpoints: Sides[DigestedTensors]
    _known: dict[tuple[Side, str, DType, bool], list[bytes]] = field(default_factory=dict)

    def pairs(self, keys: Sides[list[str]], turns: Sides[bool]) -> Iterator[Pair]:
        """Pairs of several tensors, or of a part of one, that share rows along the turned
        dimensions; not verified: `[q; k; v] (3n, m) -> q, k, v (n, m)`.
        """
        catalogs = self.checkpoints.map(_catalog)
        for (dtype, length), targets in self._by_kind(keys.target, turns.target).items():
            fitting = [key for key in keys.source if self._fits(key, dtype, length, turns.source)]
            if fitting and self._count(fitting, turns.source) <= MAX_ROWS:
                index = self._index(fitting, dtype, turns.source)
                found = (
                    (key, located(self._rows("target", key, dtype, turns.target), index))
                    for key in targets
                )
                rows = {key: places for key, places in found if places}
                yield from pairs_of_rows(rows, catalogs, turns)

    def _by_kind(
        self, keys: Iterable[str], is_turned: bool
    ) -> Mapping[tuple[DType, int], list[str]]:
        """The target's keys by dtype and length of a row, those of rows long enough."""
        found: dict[tuple[DType, int], list[str]] = defaultdict(list)
        for key in keys:
            info = self.checkpoints.target.catalog[key]
            length = row_length(info.shape, is_turned)
            if length * info.dtype.itemsize >= MIN_ROW_BYTES:
                found[info.dtype, length].append(key)
        return found

    def _fits(self, key: str, dtype: DType, length: int, is_turned: bool) -> bool:
        info = self.checkpoints.source.catalog[key]
        return row_length(info.shape, is_turned) == length and are_castable(info.dtype, dtype)

    def _count(self, keys: Iterable[str], is_turned: bool) -> int:
        """How many rows the source's keys have together."""
        infos = [self.checkpoints.source.catalog[key] for key in keys]
        return sum(
            info.nbytes // max(1, info.dtype.itemsize * row_length(info.shape, is_turned))
            for info in infos
        )

    def _index(
        self, keys: Sequence[str], dtype: DType, is_turned: bool
    ) -> dict[bytes, list[RowPlace]]:
        """The places of each row of the source."""
        index: dict[bytes, list[RowPlace]] = {}
        for key in keys:
            for row, digest in enumerate(self._rows("source", key, dtype, is_turned)):
                places = index.setdefault(digest, [])
                if len(places) < MAX_PLACES:
                    places.append((key, row))
        return index

    def _rows(self, side: Side, key: str, dtype: DType, is_turned: bool) -> list[bytes]:
        """The digests of a tensor's rows, or columns; both are kept of one reading."""
        if (side, key, dtype, is_turned) not in self._known:
            tensor = read_as(self.checkpoints.of(side), key, dtype)
            for each in (False, True):
                self._known[side, key, dtype, each] = rows_of(tensor, each)
        return self._known[side, key, dtype, is_turned]


def are_castable(source: DType, target: DType) -> bool:
    """Whether a tensor can be the other's as floats of another precision, or has its dtype."""
    return source is target or (
        source.is_floating
        and target.is_floating
        and min(source.bits, target.bits) >= MIN_BITS_OF_A_CAST
    )


MIN_BITS_OF_A_CAST = 8
"""Floats of fewer bits are codes, which mean nothing without their scale."""


def located(rows: Sequence[bytes], index: Mapping[bytes, list[RowPlace]]) -> list[RowPlace] | None:
    """A place for every row, those that several places share where their neighbours' run goes on;
    None where one has no place.

    >>> index = {b"x": [("a", 0), ("b", 5)], b"y": [("a", 1)]}
    >>> located([b"x", b"y"], index)
    [('a', 0), ('a', 1)]
    >>> located([b"x", b"z"], index)
    """
    choices = [index.get(row) for row in rows]
    if not rows or not all(choices):
        return None
    found = _chosen([each or [] for each in choices])
    return found if len(set(found)) == len(found) else None


def _chosen(choices: Sequence[Sequence[RowPlace]]) -> list[RowPlace]:
    """Forwards, each row after the one before where it can be; those before the first certain one
    backwards from it; the others at a place that nobody has.
    """
    certain = [each[0] if len(each) == 1 else None for each in choices]
    forwards = _along_runs(certain, choices, 1)
    backwards = _along_runs(forwards[::-1], choices[::-1], -1)
    return _filled(backwards[::-1], choices)


def _along_runs(
    found: Sequence[RowPlace | None], choices: Sequence[Sequence[RowPlace]], step: int
) -> list[RowPlace | None]:
    """The open rows at the place that is a step behind that of the row before, if they can be."""
    placed: list[RowPlace | None] = []
    for place, choice in zip(found, choices, strict=True):
        before = placed[-1] if placed else None
        following = (before[0], before[1] + step) if before else None
        placed.append(following if place is None and following in choice else place)
    return placed


def _filled(
    found: Sequence[RowPlace | None], choices: Sequence[Sequence[RowPlace]]
) -> list[RowPlace]:
    """The rows that are still open at their first place that no other has."""
    used = {place for place in found if place}
    filled: list[RowPlace] = []
    for place, choice in zip(found, choices, strict=True):
        if place is None:
            place = next((each for each in choice if each not in used), choice[0])
            used.add(place)
        filled.append(place)
    return filled


def parts_of_vectors(checkpoints: Sides[DigestedTensors], keys: Sides[list[str]]) -> Iterator[Pair]:
    """Vectors that are parts of longer ones, or that longer ones are joined of, found by their
    bytes: `[q; k; v] (3n) -> q, k, v (n)`.
    """
    source, catalogs = _vectors(checkpoints.source, keys.source), checkpoints.map(_catalog)
    rows: dict[str, list[RowPlace]] = {}
    for key, raw in _vectors(checkpoints.target, keys.target).items():
        dtype = catalogs.target[key].dtype
        fitting = {
            name: other for name, other in source.items() if catalogs.source[name].dtype is dtype
        }
        places = _part(raw, fitting, dtype.itemsize) or _joined(raw, fitting, dtype.itemsize)
        if places:
            rows[key] = places
    yield from pairs_of_rows(rows, catalogs, Sides(False, False))


def _catalog(checkpoint: DigestedTensors) -> Catalog:
    return checkpoint.catalog


def _vectors(side: DigestedTensors, keys: Sequence[str]) -> dict[str, bytes]:
    """The bytes of the keys with one dimension longer than one."""
    flat = [
        key
        for key in keys
        if len(plain_shape(side.catalog[key].shape)) == 1 and side.catalog[key].dtype.itemsize
    ]
    return {key: b"".join(side.chunks(key)) for key in flat}


def _part(raw: bytes, others: Mapping[str, bytes], size: int) -> list[RowPlace] | None:
    for name, other in others.items():
        at = other.find(raw) if len(other) > len(raw) else -1
        if at >= 0 and at % size == 0:
            return [(name, at // size + i) for i in range(len(raw) // size)]
    return None


def _joined(raw: bytes, others: Mapping[str, bytes], size: int) -> list[RowPlace] | None:
    """The vectors that lie in this one side by side, if they fill it."""
    spots = sorted(
        (at, name)
        for name, other in others.items()
        if 0 < len(other) < len(raw) and (at := raw.find(other)) >= 0
    )
    places: list[RowPlace] = []
    for at, name in spots:
        if at == len(places) * size:
            places += [(name, i) for i in range(len(others[name]) // size)]
    return places if len(places) * size == len(raw) else None
