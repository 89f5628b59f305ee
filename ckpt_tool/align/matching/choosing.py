"""Which of the scored pairs are taken, the clearest first; what stays unclear is left open."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

from ckpt_tool.align.naming.modules import Candidate
from ckpt_tool.align.sides import Sides
from ckpt_tool.align.weights import WEIGHTS

Scores = Mapping[Candidate, float]


@dataclass(frozen=True, slots=True)
class Match:
    """Two modules that belong together, by place; `margin` is how far the next best pair of either
    is behind.
    """

    source: int
    target: int
    margin: float
    words: float
    neighbours: float
    order: float
    similarity: float
    exchange: float = inf
    """How much worse it would be to exchange partners with another pair of the same block."""

    @property
    def candidate(self) -> Candidate:
        """Both places."""
        return self.source, self.target


class OpenPairs:
    """The scored pairs of modules that are both free; pairs are taken and given up one by one."""

    def __init__(self, scores: Scores) -> None:
        self._rows: dict[int, dict[int, float]] = defaultdict(dict)
        self._columns: dict[int, dict[int, float]] = defaultdict(dict)
        for (i, j), score in scores.items():
            self._rows[i][j] = self._columns[j][i] = score
        self._given_up: dict[Candidate, float] = {}

    def clear(self, margin: float) -> list[tuple[Candidate, float]]:
        """The pairs that lead by a margin on both sides, with how far they do on the closer one."""
        found = []
        for i, row in self._rows.items():
            if not row:
                continue
            j, lead = _best(row)
            if lead >= margin and self._columns[j]:
                back, other = _best(self._columns[j])
                if back == i and other >= margin:
                    found.append(((i, j), min(lead, other)))
        return found

    def is_last(self, candidate: Candidate) -> bool:
        """Whether neither of two modules has another candidate."""
        i, j = candidate
        return len(self._rows[i]) == len(self._columns[j]) == 1

    def take(self, candidate: Candidate) -> None:
        """Removes all pairs of the two modules."""
        i, j = candidate
        for other in self._rows.pop(i, {}):
            self._columns[other].pop(i, None)
        for other in self._columns.pop(j, {}):
            self._rows[other].pop(j, None)

    def give_up(self, candidate: Candidate) -> None:
        """Removes this pair alone."""
        i, j = candidate
        self._given_up[candidate] = self._rows[i].pop(j)
        self._columns[j].pop(i, None)

    def possible(self) -> dict[int, tuple[int, ...]]:
        """For each source module that is left, the targets that are about as good as the best, also
        those that were given up.
        """
        rows = {i: dict(row) for i, row in self._rows.items()}
        for (i, j), score in self._given_up.items():
            if i in rows and j in self._columns:
                rows[i][j] = score
        return {i: _near_best(row) for i, row in rows.items() if row}


def _best(row: Mapping[int, float]) -> tuple[int, float]:
    """The best place, and how far it leads; without any limit where it is the only one."""
    best, second, where = -inf, -inf, -1
    for place, score in row.items():
        if score > best:
            best, second, where = score, best, place
        elif score > second:
            second = score
    return where, best - second


def _near_best(row: Mapping[int, float]) -> tuple[int, ...]:
    least = max(row.values()) - WEIGHTS.near_best
    return tuple(place for place, score in row.items() if score > least)


def best_first(scores: Scores) -> list[Candidate]:
    """One partner for each, the best pairs first, whatever their lead."""
    pairs: list[Candidate] = []
    source: set[int] = set()
    target: set[int] = set()
    for i, j in sorted(scores, key=lambda candidate: -scores[candidate]):
        if i not in source and j not in target:
            pairs.append((i, j))
            source.add(i)
            target.add(j)
    return pairs


def leading(pairs: Sequence[Candidate], scores: Scores) -> list[Candidate]:
    """The pairs that are clearly better than any other of one of their two."""
    best: Sides[dict[int, tuple[float, float]]] = Sides({}, {})
    for candidate, score in scores.items():
        for side, place in zip(best, candidate, strict=True):
            side[place] = _two_best(side.get(place, (-inf, -inf)), score)
    return [
        (i, j)
        for i, j in pairs
        if _leads(scores[i, j], best.source[i]) and _leads(scores[i, j], best.target[j])
    ]


def _two_best(best: tuple[float, float], score: float) -> tuple[float, float]:
    first, second = best
    if score > first:
        return score, first
    return (first, score) if score > second else best


def _leads(score: float, best: tuple[float, float]) -> bool:
    return score == best[0] and score - best[1] >= WEIGHTS.leading
