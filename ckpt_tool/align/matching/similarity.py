"""How alike the modules of two catalogs are: by words, by numbers, and by what their neighbours have
found.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from math import fsum, log

from ckpt_tool.align.naming.modules import (
    ModuleShape,
    ModuleTensors,
    Names,
    NumberedName,
    kind_of,
    plain,
    similarity,
)
from ckpt_tool.errors import InputError

FOREIGN = 0.2
"""What a word counts that the other side doesn't know at all: it can't speak against a pair."""

Candidate = tuple[int, int]


MAX_CELLS = 8_000
"""Pairs of modules of two forms that are all compared; of more, only those that stand at one place
among their kind.
"""
MAX_SIMILAR = 24
MAX_PAIRS, PAIRS_OF_EACH = 250_000, 20
"""Pairs of modules that are compared at all: some seconds; in large files so many for each module. Real
conversions have 5 to 60 for each.
"""


def find_candidates(
    source: Sequence[ModuleTensors], target: Sequence[ModuleTensors]
) -> dict[Candidate, float]:
    """The pairs of modules whose tensors may be the same, by place, with how well these go together.

    Raises InputError where hundreds of modules have the same shapes, and names without numbers that
    would tell them apart.
    """
    known: dict[ModuleShape, list[ModuleTensors]] = defaultdict(list)
    for module in target:
        known[module.shapes].append(module)
    by_leaf: dict[object, list[ModuleShape]] = defaultdict(list)
    for shapes in known:
        for _, shape in shapes:
            by_leaf[plain(shape)].append(shapes)
    goes = cache(lambda shapes: _goes(shapes, by_leaf))
    places = cache(lambda shapes: _OfOneShape(known[shapes]))
    counts = Counter(module.shapes for module in source)
    found: dict[Candidate, float] = {}
    most = max(MAX_PAIRS, PAIRS_OF_EACH * (len(source) + len(target)))
    for module in source:
        if len(found) > most:
            fact = f"more than {most:,} pairs of modules with the same shapes, whose names have no numbers that tell them apart"
            raise InputError(
                "the source and the target", f"have {fact}", "write rules, or try `--by position`"
            )
        for shapes, how in goes(module.shapes):
            is_many = counts[module.shapes] * len(known[shapes]) > MAX_CELLS
            for other in places(shapes).like(module) if is_many else known[shapes]:
                found[module.place, other.place] = how
    return found


class _OfOneShape:
    """Modules of one shapes by their place among those that differ from them in numbers only."""

    def __init__(self, modules: Sequence[ModuleTensors]) -> None:
        kinds: dict[Names, list[ModuleTensors]] = defaultdict(list)
        for module in modules:
            kinds[kind_of(module.names)].append(module)
        self._small = [
            module for kind in kinds.values() if len(kind) <= MAX_SIMILAR for module in kind
        ]
        self._by_indices: dict[object, list[ModuleTensors]] = defaultdict(list)
        self._by_blocks: dict[object, list[ModuleTensors]] = defaultdict(list)
        self._by_ordinal: dict[object, list[ModuleTensors]] = defaultdict(list)
        for kind in kinds.values():
            for module in kind if len(kind) > MAX_SIMILAR else ():
                self._by_indices[module.indices].append(module)
                self._by_blocks[tuple(index for index, _ in _outer(module))].append(module)
                self._by_ordinal[module.ordinal].append(module)

    def like(self, module: ModuleTensors) -> list[ModuleTensors]:
        found = {other.place: other for other in self._by_indices.get(module.indices, ())}
        found |= {other.place: other for other in self._by_ordinal.get(module.ordinal, ())}
        beside = self._by_blocks.get(tuple(index for index, _ in _outer(module)), ())
        found |= {other.place: other for other in (beside if len(beside) <= MAX_SIMILAR else ())}
        return [*self._small, *found.values()]


def _goes(
    shapes: ModuleShape, by_leaf: Mapping[object, Sequence[ModuleShape]]
) -> list[tuple[ModuleShape, float]]:
    others = dict.fromkeys(other for _, shape in shapes for other in by_leaf.get(plain(shape), ()))
    return [(other, how) for other in others if (how := similarity(shapes, other)) > 0]


class Words:
    """The words of two catalogs, rare ones first; comparisons of equal sets of words are made once."""

    def __init__(self, source: Sequence[ModuleTensors], target: Sequence[ModuleTensors]) -> None:
        from_source, from_target = (
            Counter(word for module in side for word in module.words) for side in (source, target)
        )
        total = len(source) + len(target) + 1
        self._weights = {
            word: log(1 + total / (1 + from_source[word] + from_target[word]))
            for word in from_source | from_target
        }
        for word in from_source.keys() ^ from_target.keys():
            self._weights[word] *= FOREIGN
        self.shared = cache(self._shared)

    def _shared(
        self, a: frozenset[str], b: frozenset[str], near_a: frozenset[str], near_b: frozenset[str]
    ) -> float:
        # Sets of words have no order of their own: `fsum` gives one sum for every order.
        near = near_a | near_b
        both = fsum(self._weight(word, near) for word in a & b)
        only = fsum(self._weight(word, near) for word in a ^ b)
        return both / (both + only) if both else 0.0

    def _weight(self, word: str, near: frozenset[str]) -> float:
        return self._weights[word] * (2.0 if word in near else 1.0)

    def of(self, a: ModuleTensors, b: ModuleTensors) -> float:
        return self.shared(a.words, b.words, a.near, b.near)


def number_agreement(a: ModuleTensors, b: ModuleTensors) -> float:
    """How far numbers agree: by the turn among all of a kind, of the modules or of what is around
    them; else by each number.
    """
    if a.ordinal[1] == b.ordinal[1] > 1:
        return 1.0 if a.ordinal == b.ordinal else min(0.3, _indices_agreement(a, b))
    if a.outer_ordinal[1] == b.outer_ordinal[1] > 1:
        return 0.8 if a.outer_ordinal == b.outer_ordinal else min(0.2, _indices_agreement(a, b))
    return _indices_agreement(a, b)


def _indices_agreement(a: ModuleTensors, b: ModuleTensors) -> float:
    if len(a.indices) != len(b.indices):
        inside, others = (_outer(each) for each in (a, b))
        if inside and len(inside) == len(others):
            return (
                0.85
                if all(
                    _is_same(x[0], y[0], x[1], y[1]) for x, y in zip(inside, others, strict=True)
                )
                else 0.2
            )
        return 0.6 if a.indices and b.indices and _is_part(a.indices, b.indices) else 0.3
    if not a.indices:
        return 0.5
    same = [
        _is_same(*each) for each in zip(a.indices, b.indices, a.numbered, b.numbered, strict=True)
    ]
    return 1.0 if all(same) else 0.7 * sum(same) / len(same) + (0.1 if same[-1] else 0.0)


def _outer(module: ModuleTensors) -> list[tuple[int, NumberedName]]:
    """The indices of the blocks around a module, without its own number."""
    found = list(zip(module.indices, module.numbered, strict=True))
    return found[:-1] if module.is_indexed[-1] else found


def _is_same(index: int, other: int, source: NumberedName, target: NumberedName) -> bool:
    """Whether two numbers mean one place: by value under one stem, where the ones are among the
    others; else by rank.
    """
    is_one = source[0] == target[0] != "" and (source[2] <= target[2] or target[2] <= source[2])
    return source[1] == target[1] if is_one else index == other


_OPPOSED = tuple(
    frozenset(words.split())
    for words in (
        "q k v o qkv kv",
        "gate up down",
        "encoder decoder",
        "h w",
        "in out",
        "left right",
        "text visual",
        "mean var",
        "qnorm knorm",
    )
)


@cache
def are_opposed(a: frozenset[str], b: frozenset[str]) -> bool:
    """Whether two sets of words have unlike ones of which a thing can only be one: `q` and `k`."""
    return any(a & words and b & words and not a & b & words for words in _OPPOSED)


def _is_part(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether the shorter one's numbers stand in the longer one, in order."""
    short, rest = (a, iter(b)) if len(a) < len(b) else (b, iter(a))
    return all(number in rest for number in short)


class Structures:
    """How far the modules that two modules are part of hold tensors of the same shapes."""

    def __init__(self, source: Sequence[ModuleTensors], target: Sequence[ModuleTensors]) -> None:
        self._sides = (_contents(source), _contents(target))
        self._counts = (len(source), len(target))
        self._parents = {
            module.parent
            for module in target
            if any(self._is_part(path, 1) for path in _above((*module.parent, "")))
        }
        self._nearest: dict[Names, float] = {}
        self._alike, self._around = cache(self._compare), cache(self._best_around)

    def of(self, a: ModuleTensors, b: ModuleTensors) -> float:
        source, target = (
            _family(module.names, side) for module, side in zip((a, b), self._sides, strict=True)
        )
        return self._alike(source, target) if source and target else 0.0

    def above(self, source: Names, target: Names) -> float:
        """The mean, over the modules around two blocks, of how far the best of the other side's
        holds the same.
        """
        a, b = _above(source), _above(target)
        best = [max(self._alike(path, other) for other in b) for path in a if b]
        best += [max(self._alike(path, other) for path in a) for other in b if a]
        return sum(best) / len(best) if best else 0.0

    def around(self, a: ModuleTensors, b: ModuleTensors) -> float:
        """The best agreement of modules around them that are neither tiny nor nearly everything; 1
        where there are none.
        """
        return self._around(a.parent, b.parent)

    def nearest(self, a: ModuleTensors) -> float:
        """The best agreement of modules around a module with any module."""
        if a.parent not in self._nearest:
            self._nearest[a.parent] = max(
                (self._around(a.parent, parent) for parent in self._parents), default=0.0
            )
        return self._nearest[a.parent]

    def _best_around(self, source: Names, target: Names) -> float:
        paths, others = (
            [path for path in _above((*names, "")) if self._is_part(path, side)]
            for names, side in ((source, 0), (target, 1))
        )
        return max((self._alike(path, other) for path in paths for other in others), default=1.0)

    def _is_part(self, path: Names, side: int) -> bool:
        return 2 < self._sides[side][path].total() < 0.5 * self._counts[side]

    def _compare(self, source: Names, target: Names) -> float:
        a, b = self._sides[0][source], self._sides[1][target]
        return (a & b).total() / (a | b).total()


def _contents(modules: Sequence[ModuleTensors]) -> dict[Names, Counter[object]]:
    found: dict[Names, Counter[object]] = defaultdict(Counter)
    for module in modules:
        for path in _above(module.names):
            found[path][module.shapes] += 1
    return found


def _family(names: Names, contents: Mapping[Names, Counter[object]]) -> Names:
    """The smallest module around a module that holds some more."""
    return next((path for path in reversed(_above(names)) if contents[path].total() > 2), ())


class Kinds:
    """What modules that differ in numbers only are paired with: a block's first convolution in the
    one goes where it goes in the others.
    """

    def __init__(
        self,
        source: Sequence[ModuleTensors],
        target: Sequence[ModuleTensors],
        pairs: Iterable[Candidate],
    ) -> None:
        self._kinds = tuple(
            [numberless(module.names) for module in side] for side in (source, target)
        )
        met = Counter((self._kinds[0][i], self._kinds[1][j]) for i, j in pairs)
        from_source, from_target = Counter[Names](), Counter[Names]()
        for (a, b), count in met.items():
            from_source[a] += count
            from_target[b] += count
        self._shares = {
            (a, b): count / max(from_source[a], from_target[b]) for (a, b), count in met.items()
        }

    def of(self, i: int, j: int) -> float:
        """The share of pairs of either kind that are pairs of both."""
        return self._shares.get((self._kinds[0][i], self._kinds[1][j]), 0.0)


@cache
def numberless(names: Names) -> Names:
    return tuple(re.sub(r"\d+", "#", name) for name in names)


class _Paths:
    """The paths of one side by number: to compare numbers costs less than to compare names."""

    def __init__(self) -> None:
        self._numbers: dict[Names, int] = {}
        self.chains: list[tuple[int, ...]] = []
        """For each path those above it, the outermost first, and itself."""

    def number(self, names: Names) -> int:
        found = self._numbers.get(names)
        if found is None:
            above = self.chains[self.number(names[:-1])] if len(names) > 1 else ()
            found = self._numbers[names] = len(self.chains)
            self.chains.append((*above, found))
        return found

    def chain(self, names: Names) -> tuple[int, ...]:
        return self.chains[self.number(names)] if names else ()


class NeighbourAgreement:
    """What pairs of modules say of their surroundings: how far two paths contain the same."""

    def __init__(
        self,
        source: Sequence[ModuleTensors],
        target: Sequence[ModuleTensors],
        pairs: Iterable[Candidate],
        specificity: tuple[Sequence[float], Sequence[float]],
    ) -> None:
        self._paths = (_Paths(), _Paths())
        sides = zip(self._paths, (source, target), strict=True)
        chains = [[paths.chain(module.parent) for module in side] for paths, side in sides]
        self._sizes = [
            _sizes(side, specific) for side, specific in zip(chains, specificity, strict=True)
        ]
        # For each path of one side the weights of those of the other.
        self._found: tuple[dict[int, dict[int, float]], dict[int, dict[int, float]]] = (
            defaultdict(dict),
            defaultdict(dict),
        )
        for a, b in pairs:
            weight = min(specificity[0][a], specificity[1][b])
            for from_source in chains[0][a]:
                row = self._found[0][from_source]
                for from_target in chains[1][b]:
                    row[from_target] = self._found[1][from_target][from_source] = (
                        row.get(from_target, 0.0) + weight
                    )
        self.of = cache(self._of)
        self._best: tuple[dict[Candidate, float], dict[Candidate, float]] = ({}, {})
        self._sums: tuple[dict[Candidate, float], dict[Candidate, float]] = ({}, {})

    def _of(self, source: Names, target: Names) -> float:
        """For the modules that own two modules: the mean, over the paths to the one, of the best
        agreement with a path to the other.
        """
        a, b = self._paths[0].chain(source), self._paths[1].chain(target)
        if not a or not b or b[0] not in self._found[0].get(a[0], ()):
            return 0.0  # a pair that speaks for two paths speaks for all above them too
        return (self._sum(a, b, 0) / _weight(source) + self._sum(b, a, 1) / _weight(target)) / 2

    def _sum(self, chain: Sequence[int], other: Sequence[int], side: int) -> float:
        """Over a path and all above it, the best agreements with the other path and those above it;
        longer paths count more.
        """
        known, whole = self._sums[side], other[-1]
        depth = next(
            (depth for depth in range(len(chain), 0, -1) if (chain[depth - 1], whole) in known), 0
        )
        total = known[chain[depth - 1], whole] if depth else 0.0
        for path in chain[depth:]:
            depth += 1
            total += depth * self._best_of(path, other, side)
            known[path, whole] = total
        return total

    def _best_of(self, path: int, other: Sequence[int], side: int) -> float:
        """The best agreement of a path with another and those above that."""
        best = self._best[side].get((path, other[-1]))
        if best is None:
            best, row, size, sizes = (
                0.0,
                self._found[side].get(path, {}),
                self._sizes[side][path],
                self._sizes[1 - side],
            )
            for each in other:
                found = row.get(each)
                if not found:
                    break  # what lies deeper has none either
                best = max(best, found / (size + sizes[each] - found))
            self._best[side][path, other[-1]] = best
        return best


def _weight(path: Names) -> float:
    return len(path) * (len(path) + 1) / 2


def _sizes(chains: Sequence[Sequence[int]], specificity: Sequence[float]) -> dict[int, float]:
    sizes: dict[int, float] = defaultdict(float)
    for place, chain in enumerate(chains):
        for path in chain:
            sizes[path] += specificity[place]
    return sizes


def specificity_of(
    candidates: Iterable[Candidate], counts: tuple[int, int]
) -> tuple[list[float], list[float]]:
    """How much a module's pair says: less where it could have many partners."""
    partners = ([0] * counts[0], [0] * counts[1])
    for i, j in candidates:
        partners[0][i] += 1
        partners[1][j] += 1
    source, target = ([1 / count if count else 0.02 for count in side] for side in partners)
    return source, target


def _above(names: Names) -> list[Names]:
    return [names[:depth] for depth in range(1, len(names))]
