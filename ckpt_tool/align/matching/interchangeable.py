"""Equal blocks: which of them is which, told by everything but what is inside them; where nothing
tells, they are left open.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean

from ckpt_tool.align.matching.matching import (
    NUMBERS,
    ORDER,
    STRUCTURE,
    VOTES,
    WORDS,
    Match,
    Matches,
    Matching,
)
from ckpt_tool.align.matching.similarity import Candidate, Kinds, number_agreement
from ckpt_tool.align.naming.modules import ModuleTensors, Names

MIN_MODULES = 2
MAX_OF_A_BLOCK = 0.8
MAX_COMPARED, NEAREST = 40, 3
"""Blocks of one kind that are all compared with each other; of more, each with so many that follow.
"""
TELLS = 0.25
"""What the exchange of two blocks must lose for a module to be sure that they stand where they
should.
"""
OTHERS = 1.6
"""What it counts that modules of the same names in other blocks, where nothing is doubtful, are
paired likewise.
"""
ADVICE, MAX_TRIES = 1.0, 3
"""What it counts for a pair that everything around its blocks speaks for; how often is decided
anew.
"""


@dataclass(frozen=True, slots=True)
class Placed:
    """A block of the source, and the block of the target that its modules went to; one of them may
    be missing, with all pairs.
    """

    source: Names
    target: Names
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Exchange:
    """Two equal blocks with their places, and how much worse it would be, for a module, if these
    were exchanged.
    """

    one: Placed
    other: Placed
    loss: float

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        return (*self.one.candidates, *self.other.candidates)


def matched(matching: Matching) -> tuple[Matches, list[Exchange]]:
    """What the matching decides, and the equal blocks that could as well be exchanged.

    Where everything around two blocks says that they should be exchanged, that is decided again
    with it in mind.
    """
    for _ in range(MAX_TRIES):
        matches = matching.run()
        found = _Exchanges(matching, matches.found)
        doubtful = found.doubtful()
        better = {
            candidate
            for each in doubtful
            if each.loss < -TELLS
            for candidate in found.exchanged(each)
        }
        if not better - matching.advised.keys():
            break
        matching.advised |= dict.fromkeys(better, ADVICE)
    return matches, doubtful


class _Blocks:
    """The paths of one side with what lies below them, and which of them are equal: the same names,
    the same shapes.
    """

    def __init__(self, modules: Sequence[ModuleTensors]) -> None:
        self.at = {module.names: module for module in modules}
        self.inside: dict[Names, list[ModuleTensors]] = defaultdict(list)
        for module in modules:
            for path in _above(module.names):
                self.inside[path].append(module)
        self.groups: dict[object, list[Names]] = defaultdict(list)
        self._kinds = {
            path: frozenset((module.names[len(path) :], module.shapes) for module in found)
            for path, found in self.inside.items()
        }
        for path, found in self.inside.items():
            if len(found) >= MIN_MODULES:
                self.groups[self.kind(path)].append(path)

    def kind(self, path: Names) -> object:
        return self._kinds[path]

    def moved(self, module: ModuleTensors, before: Names, after: Names) -> ModuleTensors | None:
        """The module that stands in a block where this one does in another."""
        return (
            self.at.get((*after, *module.names[len(before) :]))
            if module.names[: len(before)] == before
            else None
        )


class _Exchanges:
    def __init__(self, matching: Matching, matches: Sequence[Match]) -> None:
        self._matching = matching
        self._ours, self._theirs = _Blocks(matching.source), _Blocks(matching.target)
        self._partner = {match.source: match.target for match in matches}
        self._free: dict[object, list[Names]] = {}
        self._anchors = matching.anchored()
        self._kinds = Kinds(matching.source, matching.target, ())
        self._placed = {
            path: placed for path in self._open() if (placed := self._place(path)) is not None
        }

    def doubtful(self) -> list[Exchange]:
        """The equal blocks that could be exchanged; what all others are paired with tells some of
        them apart.
        """
        scattered = list(self._scattered())
        open_ones = [each for each in self._pairs() if each.loss < TELLS]
        unsure = {i for each in (*open_ones, *scattered) for i, _ in each.candidates}
        sure = [candidate for candidate in self._partner.items() if candidate[0] not in unsure]
        self._kinds = Kinds(self._matching.source, self._matching.target, sure)
        rated = [replace(each, loss=self._loss(each.one, each.other)) for each in open_ones]
        return [*scattered, *(each for each in rated if each.loss < TELLS)]

    def exchanged(self, each: Exchange) -> Iterator[Candidate]:
        """The pairs of modules that there would be."""
        for here, there in ((each.one, each.other), (each.other, each.one)):
            for i, j in here.candidates if there.candidates else ():
                if (
                    moved := self._theirs.moved(self._matching.target[j], here.target, there.target)
                ) is not None:
                    yield i, moved.place

    def _open(self) -> Iterator[Names]:
        """The blocks of the source that have equals, but for those that names settled."""
        for group in self._ours.groups.values():
            if len(group) > 1:
                yield from (
                    path
                    for path in group
                    if any(candidate not in self._matching.fixed for candidate in self._cells(path))
                )

    def _cells(self, path: Names) -> list[Candidate]:
        return [
            (module.place, self._partner[module.place])
            for module in self._ours.inside[path]
            if module.place in self._partner
        ]

    def _place(self, path: Names) -> Placed | None:
        """Where most modules of a block went, if that is one block of about its size."""
        candidates = self._cells(path)
        met = Counter(
            above for _, j in candidates for above in _above(self._matching.target[j].names)
        )
        sizes = {
            other: len(self._theirs.inside[other])
            for other, count in met.items()
            if count >= MAX_OF_A_BLOCK * len(candidates)
        }
        best = min(sizes, key=lambda other: (sizes[other], -len(other)), default=None)
        is_one = best is not None and MAX_OF_A_BLOCK * sizes[best] <= len(self._ours.inside[path])
        return Placed(path, best, tuple(candidates)) if best is not None and is_one else None

    def _scattered(self) -> Iterator[Exchange]:
        """Blocks whose modules went to several equal blocks."""
        for path in self._open():
            if path in self._placed:
                continue
            parts: dict[Names, list[Candidate]] = defaultdict(list)
            for i, j in self._cells(path):
                for above in _above(self._matching.target[j].names):
                    parts[above].append((i, j))
            for a, b in combinations(parts, 2):
                size = len(self._theirs.inside[a])
                is_one = (
                    size >= MIN_MODULES
                    and MAX_OF_A_BLOCK * len(self._ours.inside[path]) <= size
                    and not _is_within(a, b)
                )
                if is_one and self._theirs.kind(a) == self._theirs.kind(b):
                    yield Exchange(
                        Placed(path, a, tuple(parts[a])), Placed(path, b, tuple(parts[b])), 0.0
                    )

    def _pairs(self) -> Iterator[Exchange]:
        """Each two equal blocks that have equal places; each block with an equal place that is
        free, or an equal block without one.
        """
        for group in self._ours.groups.values():
            placed = [self._placed[path] for path in group if path in self._placed]
            yield from (
                Exchange(a, b, self._loss(a, b))
                for a, b in _compared(placed)
                if self._are_equal(a, b)
            )
            free = [path for path in group if path not in self._placed and not self._cells(path)]
            for each in placed:
                yield from (
                    Exchange(each, other, self._loss(each, other))
                    for other in self._alone(each, free)
                )

    def _alone(self, placed: Placed, free: Sequence[Names]) -> Iterator[Placed]:
        """The equal blocks and the equal places that are free; of very many none tells anything."""
        places = self._free_places(self._theirs.kind(placed.target))
        if len(free) + len(places) <= MAX_COMPARED:
            yield from (
                Placed(path, (), ()) for path in free if not _is_within(placed.source, path)
            )
            yield from (
                Placed((), path, ()) for path in places if not _is_within(placed.target, path)
            )

    def _free_places(self, kind: object) -> Sequence[Names]:
        if kind not in self._free:
            taken = set(self._partner.values())
            group = self._theirs.groups.get(kind, ())
            self._free[kind] = [
                path
                for path in group
                if not any(module.place in taken for module in self._theirs.inside[path])
            ]
        return self._free[kind]

    def _are_equal(self, a: Placed, b: Placed) -> bool:
        is_apart = not _is_within(a.source, b.source) and not _is_within(a.target, b.target)
        return is_apart and self._theirs.kind(a.target) == self._theirs.kind(b.target)

    def _loss(self, a: Placed, b: Placed) -> float:
        """How much worse it would be, for a module, if the two blocks were exchanged; half of it
        where one of them goes nowhere.
        """
        here = [self._speaks(a, a.source, a.target)]
        there = (
            [self._speaks(a, b.source or a.source, b.target or a.target)]
            if not b.candidates
            else [self._speaks(a, a.source, b.target)]
        )
        if b.candidates:
            here.append(self._speaks(b, b.source, b.target))
            there.append(self._speaks(b, b.source, a.target))
        return (sum(here) - sum(there)) * 2 / len(here)

    def _speaks(self, placed: Placed, source: Names, target: Names) -> float:
        """What speaks for a block being another, for a module in it, besides its own pairs."""
        from_source, from_target = self._matching.source, self._matching.target
        own = [
            self._alike(
                self._ours.moved(from_source[i], placed.source, source),
                self._theirs.moved(from_target[j], placed.target, target),
            )
            for i, j in placed.candidates
        ]
        around = VOTES * self._anchors.of(
            source[:-1], target[:-1]
        ) + STRUCTURE * self._matching.structures.above(source, target)
        return fmean(own) + around

    def _alike(self, source: ModuleTensors | None, target: ModuleTensors | None) -> float:
        if source is None or target is None:
            return 0.0
        candidate = (source.place, target.place)
        doubt = 1.0 - max(
            side.get(place, 0.0)
            for side, place in zip(self._matching.known, candidate, strict=True)
        )
        order = ORDER * doubt * self._matching.global_order.get(candidate, 0.0)
        names = WORDS * self._matching.shared.of(source, target) + NUMBERS * number_agreement(
            source, target
        )
        return names + order + OTHERS * self._kinds.of(*candidate)


def _compared(placed: Sequence[Placed]) -> Iterator[tuple[Placed, Placed]]:
    if len(placed) <= MAX_COMPARED:
        yield from combinations(placed, 2)
    else:
        yield from (
            (a, b)
            for place, a in enumerate(placed)
            for b in placed[place + 1 : place + 1 + NEAREST]
        )


def _is_within(path: Names, other: Names) -> bool:
    shorter = min(len(path), len(other))
    return path[:shorter] == other[:shorter]


def _above(names: Names) -> list[Names]:
    return [names[:depth] for depth in range(1, len(names))]
