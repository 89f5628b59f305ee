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
from ckpt_tool.align.by_values.row_groups import Turns, pairs_of_rows
from ckpt_tool.align.pairs import Pair
from ckpt_tool.tensors import DType

Place = tuple[str, int]

TURNS = (Turns(False, False), Turns(True, False), Turns(True, True), Turns(False, True))
MAX_PLACES = 32
"""Places of one row that are remembered; rows of zeros are everywhere."""
MAX_ROWS = 4_000_000


@dataclass
class RowFinder:
    """Finds the target's rows in the source; what was read once is not read again."""

    source: DigestedTensors
    target: DigestedTensors
    _known: dict[tuple[int, str, DType, bool], list[bytes]] = field(default_factory=dict)

    def pairs(self, source: Sequence[str], target: Sequence[str], turns: Turns) -> Iterator[Pair]:
        """Pairs of several tensors, or of a part of one, that share rows along the turned
        dimensions; not verified.
        """
        by_kind: dict[tuple[DType, int], list[str]] = defaultdict(list)
        for key in target:
            info = self.target.catalog[key]
            if (length := row_length(info.shape, turns.target)) * info.dtype.itemsize >= 8:
                by_kind[info.dtype, length].append(key)
        for (dtype, length), keys in by_kind.items():
            fitting = [key for key in source if self._fits(key, dtype, length, turns.source)]
            if fitting and self._count(fitting, turns.source) <= MAX_ROWS:
                index = self._index(fitting, dtype, turns.source)
                rows = {
                    key: found
                    for key in keys
                    if (found := located(self._rows(1, key, dtype, turns.target), index))
                }
                yield from pairs_of_rows(rows, self.source.catalog, self.target.catalog, turns)

    def _fits(self, key: str, dtype: DType, length: int, is_turned: bool) -> bool:
        info = self.source.catalog[key]
        return row_length(info.shape, is_turned) == length and are_castable(info.dtype, dtype)

    def _count(self, keys: Iterable[str], is_turned: bool) -> int:
        infos = [self.source.catalog[key] for key in keys]
        return sum(
            info.nbytes // max(1, info.dtype.itemsize * row_length(info.shape, is_turned))
            for info in infos
        )

    def _index(
        self, keys: Sequence[str], dtype: DType, is_turned: bool
    ) -> dict[bytes, list[Place]]:
        index: dict[bytes, list[Place]] = {}
        for key in keys:
            for row, digest in enumerate(self._rows(0, key, dtype, is_turned)):
                places = index.setdefault(digest, [])
                if len(places) < MAX_PLACES:
                    places.append((key, row))
        return index

    def _rows(self, side: int, key: str, dtype: DType, is_turned: bool) -> list[bytes]:
        if (side, key, dtype, is_turned) not in self._known:
            tensor = read_as((self.source, self.target)[side], key, dtype)
            for each in (False, True):
                self._known[side, key, dtype, each] = rows_of(tensor, each)
        return self._known[side, key, dtype, is_turned]


def are_castable(source: DType, target: DType) -> bool:
    return source is target or (
        source.is_floating and target.is_floating and min(source.bits, target.bits) >= 8
    )


def located(rows: Sequence[bytes], index: Mapping[bytes, list[Place]]) -> list[Place] | None:
    """A place for every row, those that several places share where their neighbours' run goes on;
    None where one has no place.
    """
    choices = [index.get(row) for row in rows]
    if not rows or not all(choices):
        return None
    found = _chosen([each or [] for each in choices], 1)
    return found if len(set(found)) == len(found) else None


def _chosen(choices: Sequence[Sequence[Place]], step: int) -> list[Place]:
    """Forwards, each row after the one before where it can be; those before the first certain one
    backwards from it.
    """
    found: list[Place | None] = [each[0] if len(each) == 1 else None for each in choices]
    for direction in (1, -1):
        places = range(len(found)) if direction == 1 else reversed(range(len(found)))
        for i in places:
            beside = found[i - direction] if 0 <= i - direction < len(found) else None
            wanted = (beside[0], beside[1] + direction * step) if beside else None
            if found[i] is None and wanted in choices[i]:
                found[i] = wanted
    used = {each for each in found if each}
    for i, each in enumerate(found):
        if each is None:
            found[i] = next((place for place in choices[i] if place not in used), choices[i][0])
            used.add(found[i])  # type: ignore[arg-type]
    return [each for each in found if each is not None]


def parts_of_vectors(
    source: DigestedTensors,
    target: DigestedTensors,
    from_source: Sequence[str],
    from_target: Sequence[str],
) -> Iterator[Pair]:
    """Vectors that are parts of longer ones, or that longer ones are joined of: found by their
    bytes.
    """
    a, b = (_vectors(side, keys) for side, keys in ((source, from_source), (target, from_target)))
    rows: dict[str, list[Place]] = {}
    for key, raw in b.items():
        dtype = target.catalog[key].dtype
        fitting = {name: other for name, other in a.items() if source.catalog[name].dtype is dtype}
        places = _part(raw, fitting, dtype.itemsize) or _joined(raw, fitting, dtype.itemsize)
        if places:
            rows[key] = places
    yield from pairs_of_rows(rows, source.catalog, target.catalog, Turns(False, False))


def _vectors(side: DigestedTensors, keys: Sequence[str]) -> dict[str, bytes]:
    flat = [
        key
        for key in keys
        if len(plain_shape(side.catalog[key].shape)) == 1 and side.catalog[key].dtype.itemsize
    ]
    return {key: b"".join(side.chunks(key)) for key in flat}


def _part(raw: bytes, others: Mapping[str, bytes], size: int) -> list[Place] | None:
    for name, other in others.items():
        at = other.find(raw) if len(other) > len(raw) else -1
        if at >= 0 and at % size == 0:
            return [(name, at // size + i) for i in range(len(raw) // size)]
    return None


def _joined(raw: bytes, others: Mapping[str, bytes], size: int) -> list[Place] | None:
    """The vectors that lie in this one side by side, if they fill it."""
    spots = sorted(
        (at, name)
        for name, other in others.items()
        if 0 < len(other) < len(raw) and (at := raw.find(other)) >= 0
    )
    places: list[Place] = []
    for at, name in spots:
        if at == len(places) * size:
            places += [(name, i) for i in range(len(others[name]) // size)]
    return places if len(places) * size == len(raw) else None
