"""Equal blocks: which of them is which, by everything but what is inside them; where nothing shows
it, they are left open.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain, combinations
from math import inf
from statistics import fmean

from ckpt_tool.align.matching.choosing import Match
from ckpt_tool.align.matching.evidence import Evidence, name_agreement
from ckpt_tool.align.matching.matching import Matches, match
from ckpt_tool.align.matching.neighbours import Kinds
from ckpt_tool.align.naming.modules import Candidate, ModuleTensors
from ckpt_tool.align.naming.paths import Names, paths_above
from ckpt_tool.align.uncertain.blocks import (
    MIN_MODULES,
    Blocks,
    Exchange,
    Placed,
    are_one_sequence,
    is_hinted,
)
from ckpt_tool.align.weights import WEIGHTS

MAX_COMPARED, NEAREST = 40, 3
"""Blocks of one kind that are all compared with each other; of more, each with so many that follow.
"""
MAX_TRIES = 3
"""How often it is decided anew with what stands around the blocks in mind."""


def match_with_exchanges(evidence: Evidence) -> tuple[Matches, list[Exchange]]:
    """What the evidence decides, and the equal blocks that could as well be exchanged.

    Where everything around two blocks says that they should be exchanged, that is decided again
    with it in mind.
    """
    advised: frozenset[Candidate] = frozenset()
    for _ in range(MAX_TRIES):
        matches = match(evidence, advised)
        exchanges = _Exchanges(evidence, matches.found)
        found = [(each, _by_hints(each, evidence)) for each in exchanges.doubtful()]
        doubtful = [each for each, hints in found if hints is not True]
        wrong = (
            each for each, hints in found if hints is False or (hints is None and each.is_wrong)
        )
        better = {candidate for each in wrong for candidate in exchanges.exchanged(each)}
        better |= {
            candidate
            for each in doubtful
            for candidate in exchanges.gathered(each, evidence.hinted)
        }
        if better <= advised:
            break
        advised |= better
    return matches, doubtful


def _by_hints(exchange: Exchange, evidence: Evidence) -> bool | None:
    """Whether the branches of two blocks stand right, as hints say of anything in them; None where
    they say nothing of them, or contradict each other.
    """
    branches = exchange.branches()
    if not branches or not evidence.hinted:
        return None
    (first, right), (second, other) = branches
    source, target = evidence.modules
    said = set()
    for i, j in evidence.hinted:
        a, b = source[i].names, target[j].names
        if (first.has(a) and right.has(b)) or (second.has(a) and other.has(b)):
            said.add(True)
        elif (first.has(a) and other.has(b)) or (second.has(a) and right.has(b)):
            said.add(False)
    return said.pop() if len(said) == 1 else None


class _Exchanges:
    """The blocks of the source that have equals, where they went, and what exchanges would lose."""

    def __init__(self, evidence: Evidence, matches: Sequence[Match]) -> None:
        self._evidence = evidence
        self._source, self._target = evidence.modules.map(Blocks)
        self._partner = {match.source: match.target for match in matches}
        self._free: dict[object, Sequence[Names]] = {}
        self._anchors = evidence.anchored()
        self._kinds = Kinds(evidence.modules, ())
        placed = ((path, self._place(path)) for path in self._open())
        self._placed = {path: place for path, place in placed if place is not None}

    def doubtful(self) -> list[Exchange]:
        """The equal blocks that could be exchanged; what all others are paired with tells some of
        them apart.
        """
        scattered = list(self._scattered())
        unclear = [each for each in self._pairs() if each.is_open]
        unsure = {i for each in (*unclear, *scattered) for i, _ in each.candidates}
        sure = [candidate for candidate in self._partner.items() if candidate[0] not in unsure]
        self._kinds = Kinds(self._evidence.modules, sure)
        rated = [self._rated(each.first, each.second) for each in unclear]
        return [*scattered, *(each for each in rated if each.is_open)]

    def exchanged(self, each: Exchange) -> Iterator[Candidate]:
        """The pairs of modules that there would be."""
        for here, there in ((each.first, each.second), (each.second, each.first)):
            for i, j in here.candidates if there.candidates else ():
                module = self._evidence.modules.target[j]
                moved = self._target.moved(module, here.target, there.target)
                if moved is not None:
                    yield i, moved.place

    def gathered(self, each: Exchange, hinted: Collection[Candidate]) -> Iterator[Candidate]:
        """The pairs of a block whose modules went to two places, all in that of a hint."""
        if each.first.source != each.second.source:
            return
        for here, there in ((each.first, each.second), (each.second, each.first)):
            if is_hinted(there, hinted) and not is_hinted(here, hinted):
                for i, j in here.candidates:
                    module = self._evidence.modules.target[j]
                    moved = self._target.moved(module, here.target, there.target)
                    if moved is not None:
                        yield i, moved.place

    def _open(self) -> Iterator[Names]:
        """The blocks of the source that have equals, but for those that names settled."""
        for group in self._source.groups.values():
            for path in group if len(group) > 1 else ():
                if not self._evidence.fixed.issuperset(self._candidates(path)):
                    yield path

    def _candidates(self, path: Names) -> list[Candidate]:
        """The pairs of a block's modules."""
        return [
            (module.place, self._partner[module.place])
            for module in self._source.inside[path]
            if module.place in self._partner
        ]

    def _above_partners(self, candidates: Iterable[Candidate]) -> Iterator[tuple[Candidate, Names]]:
        """Each pair with each path above its target."""
        for i, j in candidates:
            for path in paths_above(self._evidence.modules.target[j].names):
                yield (i, j), path

    def _place(self, path: Names) -> Placed | None:
        """Where most modules of a block went, if that is one block of about its size."""
        candidates = self._candidates(path)
        met = Counter(above for _, above in self._above_partners(candidates))
        sizes = {
            other: len(self._target.inside[other])
            for other, count in met.items()
            if count >= WEIGHTS.same_block * len(candidates)
        }
        best = min(sizes, key=lambda other: (sizes[other], -len(other)), default=None)
        if best is None or WEIGHTS.same_block * sizes[best] > len(self._source.inside[path]):
            return None
        return Placed(path, best, tuple(candidates))

    def _scattered(self) -> Iterator[Exchange]:
        """Blocks whose modules went to several equal blocks."""
        for path in self._open():
            if path in self._placed:
                continue
            parts: dict[Names, list[Candidate]] = defaultdict(list)
            for candidate, above in self._above_partners(self._candidates(path)):
                parts[above].append(candidate)
            for a, b in combinations(parts, 2):
                if self._are_equal_parts(path, a, b):
                    first, second = (
                        Placed(path, a, tuple(parts[a])),
                        Placed(path, b, tuple(parts[b])),
                    )
                    yield Exchange(first, second, 0.0)

    def _are_equal_parts(self, path: Names, a: Names, b: Names) -> bool:
        """Whether two blocks of the target are equal, and each could take a block of the source."""
        size = len(self._target.inside[a])
        if size < MIN_MODULES or WEIGHTS.same_block * len(self._source.inside[path]) > size:
            return False
        return not _is_within(a, b) and self._target.kind(a) == self._target.kind(b)

    def _pairs(self) -> Iterator[Exchange]:
        """Each two equal blocks that have equal places; each block with an equal place that is
        free, or an equal block without one.
        """
        for group in self._source.groups.values():
            placed = [self._placed[path] for path in group if path in self._placed]
            free = [path for path in group if self._is_free(path)]
            for first, second in chain(self._both(placed), self._alone(placed, free)):
                yield self._rated(first, second)

    def _rated(self, first: Placed, second: Placed) -> Exchange:
        side = "source" if second.source else "target"
        are_members = are_one_sequence(getattr(first, side), getattr(second, side))
        without_order = inf if are_members else self._loss(first, second, by_order=False)
        return Exchange(first, second, self._loss(first, second), without_order)

    def _is_free(self, path: Names) -> bool:
        """Whether no module of a block is in a pair."""
        return path not in self._placed and not self._candidates(path)

    def _both(self, placed: Sequence[Placed]) -> Iterator[tuple[Placed, Placed]]:
        """Each two blocks that have equal places."""
        return (pair for pair in _compared(placed) if self._are_equal(*pair))

    def _alone(
        self, placed: Sequence[Placed], free: Sequence[Names]
    ) -> Iterator[tuple[Placed, Placed]]:
        """Each block with what is free and equal to it, or to its place."""
        return ((each, other) for each in placed for other in self._free_equals(each, free))

    def _free_equals(self, placed: Placed, free: Sequence[Names]) -> Iterator[Placed]:
        """The equal blocks and the equal places that are free; very many mean nothing."""
        places = self._free_places(self._target.kind(placed.target))
        if len(free) + len(places) > MAX_COMPARED:
            return
        for path in free:
            if not _is_within(placed.source, path):
                yield Placed(path, (), ())
        for path in places:
            if not _is_within(placed.target, path):
                yield Placed((), path, ())

    def _free_places(self, kind: object) -> Sequence[Names]:
        if kind not in self._free:
            self._free[kind] = self._target.free_of(kind, set(self._partner.values()))
        return self._free[kind]

    def _are_equal(self, a: Placed, b: Placed) -> bool:
        """Whether two blocks lie apart, and so do their places, which are equal."""
        is_apart = not _is_within(a.source, b.source) and not _is_within(a.target, b.target)
        return is_apart and self._target.kind(a.target) == self._target.kind(b.target)

    def _loss(self, a: Placed, b: Placed, by_order: bool = True) -> float:
        """How much worse it would be, for a module, if the two blocks were exchanged; half of it
        where one of them goes nowhere.
        """
        here = self._support(a, a.source, a.target, by_order)
        if not b.candidates:
            source, target = b.source or a.source, b.target or a.target
            return (here - self._support(a, source, target, by_order)) * 2
        both = here + self._support(b, b.source, b.target, by_order)
        exchanged = self._support(a, a.source, b.target, by_order) + self._support(
            b, b.source, a.target, by_order
        )
        return both - exchanged

    def _support(self, placed: Placed, source: Names, target: Names, by_order: bool) -> float:
        """What speaks for a block being another, for a module in it, besides its own pairs."""
        modules, structures = self._evidence.modules, self._evidence.structures
        own = [
            self._names_and_order(
                self._source.moved(modules.source[i], placed.source, source),
                self._target.moved(modules.target[j], placed.target, target),
                by_order,
            )
            for i, j in placed.candidates
        ]
        neighbours = WEIGHTS.neighbours * self._anchors.of(source[:-1], target[:-1])
        return fmean(own) + (neighbours + WEIGHTS.structure * structures.above(source, target))

    def _names_and_order(
        self, source: ModuleTensors | None, target: ModuleTensors | None, by_order: bool
    ) -> float:
        """What the names and the order of two modules count; 0 where there is none."""
        if source is None or target is None:
            return 0.0
        evidence, candidate = self._evidence, (source.place, target.place)
        order = evidence.order.get(candidate, 0.0) if by_order else 0.0
        order *= WEIGHTS.order * evidence.order_share(candidate)
        names = name_agreement(source, target, evidence.shared_words.of(source, target))
        return names + order + WEIGHTS.elsewhere * self._kinds.of(*candidate)


def _compared(placed: Sequence[Placed]) -> Iterator[tuple[Placed, Placed]]:
    """Each two blocks; of many, each with the next ones."""
    if len(placed) <= MAX_COMPARED:
        yield from combinations(placed, 2)
    else:
        for place, block in enumerate(placed):
            for other in placed[place + 1 : place + 1 + NEAREST]:
                yield block, other


def _is_within(path: Names, other: Names) -> bool:
    """Whether one of two paths is the other, or above it."""
    shorter = min(len(path), len(other))
    return path[:shorter] == other[:shorter]
