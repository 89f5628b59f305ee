"""What pairs of modules say of others: of those around them, and of those with their names in other
blocks.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from ckpt_tool.align.naming.modules import Candidate, Modules, ModuleTensors
from ckpt_tool.align.naming.paths import Names, numberless_names
from ckpt_tool.align.sides import Sides
from ckpt_tool.align.weights import WEIGHTS

Specificity = Sides[Sequence[float]]
"""For each module how much its pair says: 1 where it has one candidate alone."""


def specificity_of(candidates: Iterable[Candidate], counts: Sides[int]) -> Specificity:
    """How much a module's pair says: less where it could have many partners."""
    partners = counts.map(lambda count: [0] * count)
    for i, j in candidates:
        partners.source[i] += 1
        partners.target[j] += 1
    return partners.map(lambda found: [1 / n if n else WEIGHTS.no_partner for n in found])


class Kinds:
    """What modules that differ in numbers only are paired with: a block's first convolution in the
    one goes where it goes in the others.
    """

    def __init__(self, modules: Modules, pairs: Iterable[Candidate]) -> None:
        self._kinds = modules.map(lambda side: [numberless_names(each.names) for each in side])
        met = Counter((self._kinds.source[i], self._kinds.target[j]) for i, j in pairs)
        from_source, from_target = Counter[Names](), Counter[Names]()
        for (a, b), count in met.items():
            from_source[a] += count
            from_target[b] += count
        self._shares = {
            (a, b): count / max(from_source[a], from_target[b]) for (a, b), count in met.items()
        }

    def of(self, i: int, j: int) -> float:
        """The share of pairs of either kind that are pairs of both."""
        return self._shares.get((self._kinds.source[i], self._kinds.target[j]), 0.0)


class NeighbourAgreement:
    """How far two paths contain the same, as some pairs of modules say."""

    def __init__(
        self, modules: Modules, pairs: Iterable[Candidate], specificity: Specificity
    ) -> None:
        self._paths = Sides(_Paths(), _Paths())
        chains = Sides(
            _chains(self._paths.source, modules.source), _chains(self._paths.target, modules.target)
        )
        sizes = Sides(
            _sizes(chains.source, specificity.source), _sizes(chains.target, specificity.target)
        )
        shared = _shared(pairs, chains, specificity)
        self._found = shared.source
        self._from_source = _OneWay(shared.source, sizes.source, sizes.target)
        self._from_target = _OneWay(shared.target, sizes.target, sizes.source)
        self.of = cache(self._of)
        """For the paths of the modules that own two modules, the agreement of `_of`."""

    def _of(self, source: Names, target: Names) -> float:
        """The mean, over the paths to the one, of the best agreement with a path to the other."""
        a, b = self._paths.source.chain(source), self._paths.target.chain(target)
        if not a or not b or b[0] not in self._found.get(a[0], ()):
            return 0.0  # a pair that speaks for two paths speaks for all above them too
        from_source = self._from_source.total(a, b) / _weight(source)
        return (from_source + self._from_target.total(b, a) / _weight(target)) / 2


class _Paths:
    """The paths of one side by number: to compare numbers costs less than to compare names."""

    def __init__(self) -> None:
        self._numbers: dict[Names, int] = {}
        self._chains: list[tuple[int, ...]] = []

    def chain(self, names: Names) -> tuple[int, ...]:
        """The numbers of the paths above one, the outermost first, and its own."""
        return self._chains[self._number(names)] if names else ()

    def _number(self, names: Names) -> int:
        found = self._numbers.get(names)
        if found is None:
            above = self.chain(names[:-1])
            found = self._numbers[names] = len(self._chains)
            self._chains.append((*above, found))
        return found


class _OneWay:
    """The best agreements of the paths of one side with those of the other."""

    def __init__(
        self,
        shared: Mapping[int, Mapping[int, float]],
        sizes: Mapping[int, float],
        other_sizes: Mapping[int, float],
    ) -> None:
        self._shared, self._sizes, self._other_sizes = shared, sizes, other_sizes
        self._best: dict[Candidate, float] = {}
        self._totals: dict[Candidate, float] = {}

    def total(self, chain: Sequence[int], other: Sequence[int]) -> float:
        """Over a path and all above it, the best agreements with the other path and those above it;
        longer paths count more.
        """
        known, whole = self._totals, other[-1]
        depths = range(len(chain), 0, -1)
        depth = next((depth for depth in depths if (chain[depth - 1], whole) in known), 0)
        total = known[chain[depth - 1], whole] if depth else 0.0
        for path in chain[depth:]:
            depth += 1
            total += depth * self._best_of(path, other)
            known[path, whole] = total
        return total

    def _best_of(self, path: int, other: Sequence[int]) -> float:
        """The best agreement of a path with another and those above that."""
        best = self._best.get((path, other[-1]))
        if best is None:
            best, row, size = 0.0, self._shared.get(path, {}), self._sizes[path]
            for each in other:
                found = row.get(each)
                if not found:
                    break  # what lies deeper has none either
                best = max(best, found / (size + self._other_sizes[each] - found))
            self._best[path, other[-1]] = best
        return best


def _chains(paths: _Paths, modules: Sequence[ModuleTensors]) -> list[tuple[int, ...]]:
    """For each module the paths that it is below."""
    return [paths.chain(module.parent) for module in modules]


def _shared(
    pairs: Iterable[Candidate], chains: Sides[list[tuple[int, ...]]], specificity: Specificity
) -> Sides[dict[int, dict[int, float]]]:
    """For each path of one side how much it shares with those of the other; the same from both."""
    found: Sides[dict[int, dict[int, float]]] = Sides(defaultdict(dict), defaultdict(dict))
    for i, j in pairs:
        weight = min(specificity.source[i], specificity.target[j])
        for a in chains.source[i]:
            row = found.source[a]
            for b in chains.target[j]:
                row[b] = found.target[b][a] = row.get(b, 0.0) + weight
    return found


def _sizes(chains: Sequence[Sequence[int]], specificity: Sequence[float]) -> dict[int, float]:
    """How much all pairs below each path could say."""
    sizes: dict[int, float] = defaultdict(float)
    for place, chain in enumerate(chains):
        for path in chain:
            sizes[path] += specificity[place]
    return sizes


def _weight(path: Names) -> float:
    return len(path) * (len(path) + 1) / 2
