"""What every key of both sides holds, as digests; a source key's in the target's dtype where only
there it has an equal.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

from ckpt_tool.align.by_values.fingerprints import (
    Content,
    DigestedTensors,
    cast_content,
    content_of,
)
from ckpt_tool.align.by_values.row_search import are_castable
from ckpt_tool.align.by_values.unpaired import PairsSoFar
from ckpt_tool.align.pairs import Pair
from ckpt_tool.align.sides import Sides
from ckpt_tool.tensors import Catalog, DType, TensorInfo

READERS = 2
"""Tensors that are read at a time: digests leave Python to others."""

Kind = tuple[DType, bytes]
"""A dtype and the digest of what is held in it: equal for tensors of the same bytes."""


@dataclass(frozen=True, slots=True)
class TensorContent:
    """What a key holds, and whether equal content is more than chance."""

    kind: Kind
    tells: bool


@dataclass(frozen=True)
class DigestedSides:
    """Two checkpoints and what each of their keys holds."""

    checkpoints: Sides[DigestedTensors]
    held: Sides[Mapping[str, TensorContent]]

    @property
    def catalogs(self) -> Sides[Catalog]:
        """The tensors of both sides."""
        return self.checkpoints.map(_catalog)

    @cached_property
    def telling(self) -> frozenset[Kind]:
        """What the target holds and is equal elsewhere for a reason."""
        return frozenset(each.kind for each in self.held.target.values() if each.tells)

    @cached_property
    def kinds(self) -> Sides[frozenset[Kind]]:
        """All that either side holds."""
        return self.held.map(lambda held: frozenset(each.kind for each in held.values()))

    @cached_property
    def by_kind(self) -> Mapping[Kind, Sides[list[str]]]:
        """The keys of both sides that hold the same."""
        return self.grouped(self.held)

    def grouped(self, keys: Sides[Iterable[str]]) -> Mapping[Kind, Sides[list[str]]]:
        """Some keys of both sides by what they hold, the source's first."""
        found: dict[Kind, Sides[list[str]]] = defaultdict(lambda: Sides([], []))
        for key in keys.source:
            found[self.held.source[key].kind].source.append(key)
        for key in keys.target:
            found[self.held.target[key].kind].target.append(key)
        return found

    def are_equal(self, pair: Pair) -> bool:
        """Whether a rename's two keys hold the same."""
        if not pair.is_rename:
            return False
        (origin,), (key,) = pair.sources[0], pair.targets[0]
        return self.held.source[origin].kind == self.held.target[key].kind

    def without_equal(self, left: PairsSoFar) -> Sides[list[str]]:
        """Unpaired keys of telling content that the other side doesn't hold."""
        return Sides(
            [key for key in self.of_telling(left) if self._is_alone(key)],
            [
                key
                for key in left.keys.target
                if (held := self.held.target[key]).tells and held.kind not in self.kinds.source
            ],
        )

    def of_telling(self, left: PairsSoFar) -> list[str]:
        """Unpaired source keys of telling content, though the target may hold it elsewhere."""
        return [key for key in left.keys.source if self.held.source[key].tells]

    def _is_alone(self, origin: str) -> bool:
        return self.held.source[origin].kind not in self.kinds.target


def read_contents(
    source: DigestedTensors, target: DigestedTensors, by_bytes: bool = False
) -> DigestedSides:
    """What both sides hold. Costs reading both once; source tensors of a dtype that the target has
    otherwise once more, but for their bytes alone.
    """
    held_by_target = {
        key: _held(target.catalog[key].dtype, content) for key, content in _read(target)
    }
    known = frozenset(each.kind for each in held_by_target.values())
    dtypes = _dtypes_by_size(target.catalog)
    held_by_source = {}
    for key, content in _read(source):
        held = _held(source.catalog[key].dtype, content)
        if held.kind not in known and not by_bytes:
            others = dtypes.get(_size(source.catalog[key]), ())
            held = _as_held_by_target(source, key, others, known) or held
        held_by_source[key] = held
    return DigestedSides(Sides(source, target), Sides(held_by_source, held_by_target))


def _as_held_by_target(
    source: DigestedTensors, key: str, dtypes: Iterable[DType], known: frozenset[Kind]
) -> TensorContent | None:
    """What a key holds in the first dtype in which the target holds it too."""
    own = source.catalog[key].dtype
    for dtype in dtypes:
        if dtype is not own and are_castable(own, dtype):
            held = _held(dtype, cast_content(source, key, dtype))
            if held.kind in known:
                return held
    return None


def _held(dtype: DType, content: Content) -> TensorContent:
    return TensorContent((dtype, content.digest), content.tells)


def _dtypes_by_size(catalog: Catalog) -> Mapping[int, Iterable[DType]]:
    """The dtypes of the tensors of so many elements, each once, in their order."""
    found: dict[int, dict[DType, None]] = defaultdict(dict)
    for info in catalog.values():
        found[_size(info)][info.dtype] = None
    return found


def _size(info: TensorInfo) -> int:
    """How many elements a tensor has."""
    return info.nbytes * 8 // info.dtype.bits


def _read(side: DigestedTensors) -> Iterator[tuple[str, Content]]:
    """Every key with its content, in order."""
    with ThreadPoolExecutor(READERS) as readers:
        contents = readers.map(lambda key: content_of(side, key), side.catalog)
        yield from zip(side.catalog, contents, strict=True)


def _catalog(checkpoint: DigestedTensors) -> Catalog:
    return checkpoint.catalog
