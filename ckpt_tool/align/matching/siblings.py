"""Pairs of one block that could as well exchange their partners, or had better do so."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations, pairwise, product
from math import inf

from ckpt_tool.align.matching.choosing import Match, Scores
from ckpt_tool.align.matching.evidence import Evidence
from ckpt_tool.align.naming.modules import Candidate, Modules, ModuleTensors
from ckpt_tool.align.naming.paths import Names, block_of
from ckpt_tool.align.sides import Sides
from ckpt_tool.align.weights import WEIGHTS

MAX_EXCHANGED = 200
"""Pairs of one block that are all compared; more of them have no numbers, and their names tell."""


def with_exchanges(found: Sequence[Match], scores: Scores, evidence: Evidence) -> list[Match]:
    """The matches with how much worse it would be to exchange partners within their blocks; nothing
    where chance alone told them from their siblings, those without a partner too.
    """
    least: dict[Candidate, float] = {}
    free = _Free(found, evidence)
    siblings = _Siblings(found, evidence)
    for group in _by_block(found, evidence.modules).values():
        for first, second, loss in _exchanges(group, scores):
            is_open = siblings.are_guessed(first, second)
            for candidate in (first, second):
                known = least.get(candidate, loss)
                least[candidate] = min(loss, known, 0.0 if is_open else inf)
        for first in group:
            if any(
                siblings.are_guessed(first, other, is_free=True)
                for other in free.beside(first, scores)
            ):
                least[first] = min(0.0, least.get(first, 0.0))
    return [replace(each, exchange=least.get(each.candidate, each.exchange)) for each in found]


class _Free:
    """The modules without a partner, by what they stand in."""

    def __init__(self, found: Sequence[Match], evidence: Evidence) -> None:
        self._modules = evidence.modules
        taken = Sides({match.source for match in found}, {match.target for match in found})
        self._children: Sides[dict[Names, list[int]]] = Sides(defaultdict(list), defaultdict(list))
        for modules, paired, children in zip(evidence.modules, taken, self._children, strict=True):
            for module in modules:
                if module.place not in paired:
                    children[module.parent].append(module.place)

    def beside(self, pair: Candidate, scores: Scores) -> Iterator[Candidate]:
        """The pairs that two siblings could be that have no partner, and either of which could be
        one of the pair's.
        """
        i, j = pair
        sources = self._children.source.get(self._modules.source[i].parent, ())
        targets = self._children.target.get(self._modules.target[j].parent, ())
        if len(sources) * len(targets) <= MAX_EXCHANGED:
            for x, y in product(sources, targets):
                if (i, y) in scores and (x, j) in scores and (x, y) in scores:
                    yield x, y


def _by_block(found: Sequence[Match], modules: Modules) -> dict[object, list[Candidate]]:
    """The pairs of each block of either side."""
    groups: dict[object, list[Candidate]] = defaultdict(list)
    for match in found:
        source, target = modules.source[match.source], modules.target[match.target]
        groups["source", block_of(source.parent)].append(match.candidate)
        groups["target", block_of(target.parent)].append(match.candidate)
    return groups


def _exchanges(
    group: Sequence[Candidate], scores: Scores
) -> Iterator[tuple[Candidate, Candidate, float]]:
    """Each two pairs of a block that could exchange partners, with what that would lose."""
    for (i, j), (x, y) in combinations(group if len(group) <= MAX_EXCHANGED else (), 2):
        if (i, y) in scores and (x, j) in scores:
            loss = scores[i, j] + scores[x, y] - scores[i, y] - scores[x, j]
            yield (i, j), (x, y), loss


class _Siblings:
    """What tells the pairs of modules that stand side by side from each other."""

    def __init__(self, found: Sequence[Match], evidence: Evidence) -> None:
        self._evidence = evidence
        self._inside: dict[tuple[Names, Names], set[Candidate]] = defaultdict(set)
        places = evidence.modules.map(_first_places)
        for match in found:
            source, target = evidence.pair(match.candidate)
            for a in range(len(source.names)):
                for b in range(len(target.names)):
                    self._inside[source.names[:a], target.names[:b]].add(
                        (places.source[source.names[: a + 1]], places.target[target.names[: b + 1]])
                    )
        self._have_one_order = cache(self._are_in_one_order)

    def are_guessed(self, first: Candidate, second: Candidate, is_free: bool = False) -> bool:
        """Whether nothing but chance tells two pairs of siblings apart: what they stand in isn't in
        one order on both sides, and names don't say which is which; or names would rather exchange
        them. The order of what has no partner, a second pair that `is_free`, says nothing either.
        """
        (i, j), (x, y) = first, second
        evidence, (source, target) = self._evidence, self._evidence.modules
        if any(pair in evidence.hinted or pair in evidence.fixed for pair in (first, second)):
            return False
        parents = source[i].parent, target[j].parent
        if parents != (source[x].parent, target[y].parent):
            return False
        alone = evidence.unordered
        by_names = alone[i, j] + alone[x, y] - alone[i, y] - alone[x, j]
        has_order = evidence.is_ordered and not is_free and self._have_one_order(*parents)
        return by_names < (-WEIGHTS.crossed if has_order else WEIGHTS.crossed)

    def _are_in_one_order(self, source: Names, target: Names) -> bool:
        """Whether what two modules hold is paired in one order on both sides."""
        pairs = sorted(self._inside[source, target])
        return all(a[1] <= b[1] for a, b in pairwise(pairs))


def _first_places(modules: Sequence[ModuleTensors]) -> dict[Names, int]:
    """For each path the place of the first module in it."""
    found: dict[Names, int] = {}
    for module in modules:
        for depth in range(1, len(module.names) + 1):
            found.setdefault(module.names[:depth], module.place)
    return found
