"""How similar two modules are by themselves: their words, their numbers, what the modules around
them hold.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cache
from math import fsum, log

from ckpt_tool.align.naming.modules import ModuleTensors, NumberedName
from ckpt_tool.align.naming.paths import Names, paths_above
from ckpt_tool.align.sides import Sides
from ckpt_tool.align.weights import WEIGHTS


class Words:
    """The words of two catalogs by how rare they are; equal sets of words are compared once."""

    def __init__(self, source: Sequence[ModuleTensors], target: Sequence[ModuleTensors]) -> None:
        from_source, from_target = (
            Counter(word for module in side for word in module.words) for side in (source, target)
        )
        total = len(source) + len(target) + 1
        self._specificity = {
            word: log(1 + total / (1 + from_source[word] + from_target[word]))
            for word in from_source | from_target
        }
        for word in from_source.keys() ^ from_target.keys():
            self._specificity[word] *= WEIGHTS.foreign_word
        self._shared = cache(self._compare)

    def of(self, a: ModuleTensors, b: ModuleTensors) -> float:
        """The share of two modules' words that they have in common, rare words counting more."""
        return self._shared(a.words, b.words, a.near, b.near)

    def _compare(
        self, a: frozenset[str], b: frozenset[str], near_a: frozenset[str], near_b: frozenset[str]
    ) -> float:
        # Sets of words have no order of their own: `fsum` gives one sum for every order.
        near = near_a | near_b
        both = fsum(self._weight(word, near) for word in a & b)
        lone = fsum(self._weight(word, near) for word in a ^ b)
        return both / (both + lone) if both else 0.0

    def _weight(self, word: str, near: frozenset[str]) -> float:
        return self._specificity[word] * (WEIGHTS.near_word if word in near else 1.0)


def number_agreement(a: ModuleTensors, b: ModuleTensors) -> float:
    """How far numbers agree: by the place among all of a kind, of the modules or of what is around
    them; else by each number.
    """
    if a.ordinal[1] == b.ordinal[1] > 1:
        if a.ordinal == b.ordinal:
            return 1.0
        return min(WEIGHTS.other_ordinal, _index_agreement(a, b))
    if a.outer_ordinal[1] == b.outer_ordinal[1] > 1:
        if a.outer_ordinal == b.outer_ordinal:
            return WEIGHTS.same_outer_ordinal
        return min(WEIGHTS.other_outer_ordinal, _index_agreement(a, b))
    return _index_agreement(a, b)


def _index_agreement(a: ModuleTensors, b: ModuleTensors) -> float:
    """How far the places of numbered names agree."""
    if len(a.indices) != len(b.indices):
        return _unequal_agreement(a, b)
    if not a.indices:
        return WEIGHTS.no_indices
    same = [
        _is_same(*each) for each in zip(a.indices, b.indices, a.numbered, b.numbered, strict=True)
    ]
    if all(same):
        return 1.0
    last = WEIGHTS.last_index if same[-1] else 0.0
    return WEIGHTS.some_indices * sum(same) / len(same) + last


def _unequal_agreement(a: ModuleTensors, b: ModuleTensors) -> float:
    """The same for modules of which one has more numbers: the blocks around them agree, or the ones
    are among the others.
    """
    outer, others = outer_indices(a), outer_indices(b)
    if outer and len(outer) == len(others):
        pairs = zip(outer, others, strict=True)
        is_same = all(_is_same(x[0], y[0], x[1], y[1]) for x, y in pairs)
        return WEIGHTS.same_blocks if is_same else WEIGHTS.other_blocks
    is_part = a.indices and b.indices and _is_part(a.indices, b.indices)
    return WEIGHTS.contained_indices if is_part else WEIGHTS.other_indices


def outer_indices(module: ModuleTensors) -> list[tuple[int, NumberedName]]:
    """The indices of the blocks around a module, without its own, and what stands there."""
    found = list(zip(module.indices, module.numbered, strict=True))
    return found[:-1] if module.is_indexed[-1] else found


def _is_same(index: int, other: int, source: NumberedName, target: NumberedName) -> bool:
    """Whether two numbers mean one place: by value under one stem, where the ones are among the
    others; else by index.
    """
    is_one = source.stem == target.stem != "" and (
        source.siblings <= target.siblings or target.siblings <= source.siblings
    )
    return source.number == target.number if is_one else index == other


def _is_part(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether the shorter one's numbers stand in the longer one, in order."""
    short, rest = (a, iter(b)) if len(a) < len(b) else (b, iter(a))
    return all(number in rest for number in short)


class Structures:
    """How far the modules that two modules are part of hold tensors of the same shapes."""

    def __init__(self, source: Sequence[ModuleTensors], target: Sequence[ModuleTensors]) -> None:
        self._sides = Sides(_Contents(source), _Contents(target))
        self._parents = {
            module.parent for module in target if self._sides.target.parts_around(module.parent)
        }
        self._nearest: dict[Names, float] = {}
        self._agreement, self._around = cache(self._compare), cache(self._best_around)

    def of(self, a: ModuleTensors, b: ModuleTensors) -> float:
        """The share of tensors that the smallest modules around two have in common."""
        source, target = self._sides.source.family(a.names), self._sides.target.family(b.names)
        return self._agreement(source, target) if source and target else 0.0

    def above(self, source: Names, target: Names) -> float:
        """The mean, over the modules around two blocks, of how far the best of the other side's
        holds the same.
        """
        a, b = paths_above(source), paths_above(target)
        best = [max(self._agreement(path, other) for other in b) for path in a if b]
        best += [max(self._agreement(path, other) for path in a) for other in b if a]
        return sum(best) / len(best) if best else 0.0

    def around(self, a: ModuleTensors, b: ModuleTensors) -> float:
        """The best agreement of modules around them that are neither tiny nor nearly everything; 1
        where there are none.
        """
        return self._around(a.parent, b.parent)

    def nearest(self, a: ModuleTensors) -> float:
        """The best agreement of modules around a source module with any of the target."""
        if a.parent not in self._nearest:
            found = (self._around(a.parent, parent) for parent in self._parents)
            self._nearest[a.parent] = max(found, default=0.0)
        return self._nearest[a.parent]

    def _best_around(self, source: Names, target: Names) -> float:
        paths = self._sides.source.parts_around(source)
        others = self._sides.target.parts_around(target)
        return max((self._agreement(a, b) for a in paths for b in others), default=1.0)

    def _compare(self, source: Names, target: Names) -> float:
        a, b = self._sides.source.at(source), self._sides.target.at(target)
        return (a & b).total() / (a | b).total()


class _Contents:
    """The shapes of all modules of one side, by the paths that these are below."""

    def __init__(self, modules: Sequence[ModuleTensors]) -> None:
        self._count = len(modules)
        self._found: dict[Names, Counter[object]] = defaultdict(Counter)
        for module in modules:
            for path in paths_above(module.names):
                self._found[path][module.shapes] += 1

    def at(self, path: Names) -> Counter[object]:
        """How many modules of each shape are below a path."""
        return self._found[path]

    def family(self, names: Names) -> Names:
        """The smallest module around one that holds some more."""
        above = reversed(paths_above(names))
        return next((path for path in above if self.at(path).total() > 2), ())

    def parts_around(self, parent: Names) -> list[Names]:
        """The paths as far as a module's parent that are neither tiny nor nearly everything."""
        return [
            path
            for path in paths_above((*parent, ""))
            if 2 < self.at(path).total() < WEIGHTS.nearly_all * self._count
        ]
