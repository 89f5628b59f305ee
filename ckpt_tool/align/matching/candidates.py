"""The pairs of modules that are compared at all: those whose tensors may be the same."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from ckpt_tool.align.matching.similarity import outer_indices
from ckpt_tool.align.naming.modules import Candidate, ModuleTensors
from ckpt_tool.align.naming.paths import Names, without_numbers
from ckpt_tool.align.naming.shapes import ModuleShape, plain, similarity
from ckpt_tool.errors import InputError

MAX_OF_ONE_SHAPE = 8_000
"""Pairs of modules of two shapes that are all compared; of more, only those that stand at one place
among their kind.
"""
MAX_SIMILAR = 24
MAX_PAIRS, PAIRS_OF_EACH = 250_000, 20
"""Pairs of modules that are compared at all: some seconds; in large files so many for each module.
Real conversions have 5 to 60 for each.
"""


def find_candidates(
    source: Sequence[ModuleTensors], target: Sequence[ModuleTensors]
) -> dict[Candidate, float]:
    """The pairs of modules whose tensors may be the same, with how well these go together.

    Raises InputError where hundreds of modules have the same shapes, and names without numbers that
    would tell them apart.
    """
    known: dict[ModuleShape, list[ModuleTensors]] = defaultdict(list)
    for module in target:
        known[module.shapes].append(module)
    by_tensor = _by_tensor(known)
    fitting = cache(lambda shapes: _fitting(shapes, by_tensor))
    of_shape = cache(lambda shapes: _OfOneShape(known[shapes]))
    counts = Counter(module.shapes for module in source)
    found: dict[Candidate, float] = {}
    most = max(MAX_PAIRS, PAIRS_OF_EACH * (len(source) + len(target)))
    for module in source:
        if len(found) > most:
            raise InputError(
                "the source and the target",
                f"have more than {most:,} pairs of modules with the same shapes, "
                "whose names have no numbers that distinguish them",
                "write rules, or try `--by position`",
            )
        for shapes, how in fitting(module.shapes):
            is_many = counts[module.shapes] * len(known[shapes]) > MAX_OF_ONE_SHAPE
            for other in of_shape(shapes).like(module) if is_many else known[shapes]:
                found[module.place, other.place] = how
    return found


class _OfOneShape:
    """Modules of one shape by their place among those that differ from them in numbers only."""

    def __init__(self, modules: Sequence[ModuleTensors]) -> None:
        kinds: dict[Names, list[ModuleTensors]] = defaultdict(list)
        for module in modules:
            kinds[without_numbers(module.names)].append(module)
        few = (kind for kind in kinds.values() if len(kind) <= MAX_SIMILAR)
        self._few = [module for kind in few for module in kind]
        self._by_indices: dict[object, list[ModuleTensors]] = defaultdict(list)
        self._by_blocks: dict[object, list[ModuleTensors]] = defaultdict(list)
        self._by_ordinal: dict[object, list[ModuleTensors]] = defaultdict(list)
        for module in _of_large_kinds(kinds):
            self._by_indices[module.indices].append(module)
            self._by_blocks[_blocks(module)].append(module)
            self._by_ordinal[module.ordinal].append(module)

    def like(self, module: ModuleTensors) -> list[ModuleTensors]:
        """Those of small kinds, and those that stand where this module does."""
        beside = self._by_blocks.get(_blocks(module), ())
        groups = (
            self._by_indices.get(module.indices, ()),
            self._by_ordinal.get(module.ordinal, ()),
            beside if len(beside) <= MAX_SIMILAR else (),
        )
        found = {other.place: other for group in groups for other in group}
        return [*self._few, *found.values()]


def _of_large_kinds(kinds: Mapping[Names, Sequence[ModuleTensors]]) -> Iterator[ModuleTensors]:
    for kind in kinds.values():
        if len(kind) > MAX_SIMILAR:
            yield from kind


def _blocks(module: ModuleTensors) -> tuple[int, ...]:
    """The indices of the blocks around a module."""
    return tuple(index for index, _ in outer_indices(module))


def _by_tensor(known: Mapping[ModuleShape, object]) -> dict[object, list[ModuleShape]]:
    """For each shape of a tensor, whatever its layout, the modules' shapes that have it."""
    found: dict[object, list[ModuleShape]] = defaultdict(list)
    for shapes in known:
        for _, shape in shapes:
            found[plain(shape)].append(shapes)
    return found


def _fitting(
    shapes: ModuleShape, by_tensor: Mapping[object, Sequence[ModuleShape]]
) -> list[tuple[ModuleShape, float]]:
    """The other side's shapes that may be of the same module, with how well they go together."""
    others = dict.fromkeys(
        other for _, shape in shapes for other in by_tensor.get(plain(shape), ())
    )
    return [(other, how) for other in others if (how := similarity(shapes, other)) > 0]
