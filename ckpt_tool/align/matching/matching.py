"""Modules paired with modules: the clearest first, each pair a vote for those around it; what stays
unclear is left open.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from ckpt_tool.align.matching.hints import Hints
from ckpt_tool.align.matching.reversed_order import reversed_order
from ckpt_tool.align.matching.sequence import on_common_path, within_blocks
from ckpt_tool.align.matching.similarity import (
    Candidate,
    Kinds,
    NeighbourAgreement,
    Structures,
    Words,
    are_opposed,
    find_candidates,
    number_agreement,
    specificity_of,
)
from ckpt_tool.align.naming.modules import ModuleTensors, Names, block_of
from ckpt_tool.align.naming.places import Places

RAREST_FIRST = (0.9, 0.45, 0.3, 0.15, 0.05, 0.0, 0.0)
"""The specificity from which on pairs have a vote, round by round: shapes that few modules have come
first.
"""
WORDS, NUMBERS, VOTES, ORDER = 1.0, 0.6, 1.6, 0.5
CLASH, STRUCTURE, KINDS = 0.7, 0.6, 0.8
MARGINS = (0.5, 0.3, 0.2, 0.12, 0.06)
NEAR = 0.3
"""How far behind the best one a partner may be to count as possible."""
MAX_EXCHANGED = 200
"""Pairs of one block that are all compared; more of them have no numbers, and their names tell."""
LEAST = 0.35
"""The evidence besides shapes that a pair needs."""


@dataclass(frozen=True, slots=True)
class Match:
    """Two modules that belong together, by place; `margin` is how far the next best pair of either is
    behind.
    """

    source: int
    target: int
    margin: float
    words: float
    votes: float
    order: float
    similarities: float
    exchange: float = 9.0
    """How much worse it would be to exchange partners with another pair of the same block."""


@dataclass(frozen=True, slots=True)
class Matches:
    """What was decided, and for each undecided module of the source the targets that it may be."""

    found: tuple[Match, ...]
    open: Mapping[int, tuple[int, ...]]


def with_exchanges(
    found: Sequence[Match],
    scores: Mapping[Candidate, float],
    source: Sequence[ModuleTensors],
    target: Sequence[ModuleTensors],
) -> list[Match]:
    groups: dict[object, list[Candidate]] = defaultdict(list)
    for match in found:
        groups["source", block_of(source[match.source].parent)].append((match.source, match.target))
        groups["target", block_of(target[match.target].parent)].append((match.source, match.target))
    least: dict[Candidate, float] = {}
    for group in groups.values():
        for (i, j), (x, y) in combinations(group if len(group) <= MAX_EXCHANGED else (), 2):
            if (i, y) in scores and (x, j) in scores:
                loss = scores[i, j] + scores[x, y] - scores[i, y] - scores[x, j]
                least |= {
                    candidate: min(loss, least.get(candidate, loss))
                    for candidate in ((i, j), (x, y))
                }
    return [
        replace(match, exchange=least.get((match.source, match.target), match.exchange))
        for match in found
    ]


class Matching:
    """The evidence for each pair of modules. `hints` are pairs that a person gave, `fixed` those that
    names settled.
    """

    def __init__(
        self,
        source: Sequence[ModuleTensors],
        target: Sequence[ModuleTensors],
        is_ordered: bool,
        hints: Sequence[Candidate] = (),
        fixed: Collection[Candidate] = (),
        places: Places | None = None,
    ) -> None:
        in_file_order = target
        target, self.undirected = reversed_order(source, target)
        backwards = {
            module.place
            for module, before in zip(target, in_file_order, strict=True)
            if module.numbers != before.numbers
        }
        self.source, self.target = source, target
        self.fixed = set(fixed)
        self.similarities = _similarities(source, target, self.fixed, places)
        self.shared = Words(source, target)
        self.words = {(i, j): self.shared.of(source[i], target[j]) for i, j in self.similarities}
        self.ordering = {
            candidate: how * (0.5 + self.words[candidate])
            for candidate, how in self.similarities.items()
        }
        self.is_ordered = is_ordered
        self.order: dict[Candidate, float] = {}
        if is_ordered:
            self.order = {
                candidate: how
                for candidate, how in on_common_path(source, target, self.ordering).items()
                if candidate[1] not in backwards
            }
        self.global_order = dict(self.order)
        self.known = _best_words(self.words)
        self.structures = Structures(source, target)
        told = Hints(source, target, hints)
        self.unordered = {
            candidate: self._unordered(candidate, how)
            + told.of(source[candidate[0]], target[candidate[1]])
            for candidate, how in self.similarities.items()
        }
        self.hinted = {
            candidate
            for candidate in self.similarities
            if hints and told.of(source[candidate[0]], target[candidate[1]]) > 0
        }
        self.specificity = specificity_of(self.similarities, (len(source), len(target)))
        self.usual_words = 0.0
        self.advised: dict[Candidate, float] = {}
        self.beside: set[Candidate] = set()
        self.siblings: Counter[tuple[Names, Names]] = Counter()
        self._namesakes: dict[tuple[int, int], float] = {}

    def _unordered(self, candidate: Candidate, how: float) -> float:
        """What speaks for a pair besides the order and other pairs."""
        source, target = self.source[candidate[0]], self.target[candidate[1]]
        clash = CLASH if are_opposed(source.words, target.words) else 0.0
        alike = (
            WORDS * self.words[candidate]
            + NUMBERS * number_agreement(source, target)
            + STRUCTURE * self.structures.of(source, target)
        )
        return how + alike - clash

    @property
    def base(self) -> dict[Candidate, float]:
        """What speaks for each pair besides other pairs. Where words tell, the order needn't."""
        found = dict(self.unordered)
        for candidate, score in self.unordered.items():
            if (how := self.order.get(candidate, 0.0)) or candidate in self.advised:
                found[candidate] = (
                    score
                    + self.advised.get(candidate, 0.0)
                    + ORDER
                    * how
                    * (1.0 - max(self.known[0][candidate[0]], self.known[1][candidate[1]]))
                )
        return found

    def anchored(self) -> NeighbourAgreement:
        """What those pairs alone say that need no others: of shapes that no other module has, or
        settled by names.
        """
        alone = [
            candidate
            for candidate in self.similarities
            if candidate in self.fixed
            or self.specificity[0][candidate[0]] == self.specificity[1][candidate[1]] == 1
        ]
        return NeighbourAgreement(self.source, self.target, alone, self.specificity)

    def _plain_scores(self) -> dict[Candidate, float]:
        of, source, target = self.votes.of, self.source, self.target
        return {
            (i, j): base + VOTES * of(source[i].parent, target[j].parent)
            for (i, j), base in self.base.items()
        }

    def _with_kinds(self, plain: Mapping[Candidate, float]) -> dict[Candidate, float]:
        """The scores with what the other blocks say. How sure a pair is doesn't follow from that:
        it may be the same guess again.
        """
        return {(i, j): score + KINDS * self.kinds.of(i, j) for (i, j), score in plain.items()}

    def run(self) -> Matches:
        self.order, self.votes = (
            dict(self.global_order),
            NeighbourAgreement(self.source, self.target, (), self.specificity),
        )
        self.kinds = Kinds(self.source, self.target, ())
        pairs: list[Candidate] = []
        for rare in RAREST_FIRST:
            plain = self._plain_scores()
            pairs = _greedy(self._with_kinds(plain))
            supporting = [
                (i, j)
                for i, j in pairs
                if min(self.specificity[0][i], self.specificity[1][j]) >= rare
            ]
            self.votes = NeighbourAgreement(self.source, self.target, supporting, self.specificity)
            self.kinds = Kinds(self.source, self.target, _leading(pairs, plain))
            if self.is_ordered:
                self.order |= within_blocks(self.source, self.target, pairs, self.ordering)
        words = sorted(self.words[pair] for pair in pairs)
        self.usual_words = words[len(words) // 2] if words else 0.0
        self.beside = (
            {(i + step, j + step) for i, j in pairs for step in (-1, 1)} if self.order else set()
        )
        plain = self._plain_scores()
        by_itself = {
            (match.source, match.target): match.margin for match in self._decided(plain).found
        }
        self.siblings.clear()
        matches = self._decided(self._with_kinds(plain))
        found = [
            replace(each, margin=by_itself.get((each.source, each.target), 0.0))
            for each in matches.found
        ]
        return replace(matches, found=tuple(with_exchanges(found, plain, self.source, self.target)))

    def _decided(self, scores: Mapping[Candidate, float]) -> Matches:
        rows: dict[int, dict[int, float]] = defaultdict(dict)
        columns: dict[int, dict[int, float]] = defaultdict(dict)
        for (i, j), score in scores.items():
            rows[i][j] = columns[j][i] = score
        found: list[Match] = []
        for margin in MARGINS:
            while clear := _clear(rows, columns, margin):
                for i, j, lead in clear:
                    is_last = len(rows[i]) == len(columns[j]) == 1 and self._has_paired_siblings(
                        i, j
                    )
                    if (match := self._match((i, j), lead, is_last)) is not None:
                        found.append(match)
                        self.siblings[self.source[i].parent, self.target[j].parent] += 1
                        _take(rows, columns, i, j)
                    else:
                        _forget(rows, columns, i, j)
        return Matches(tuple(found), {i: _near_best(row) for i, row in rows.items() if row})

    def _has_paired_siblings(self, i: int, j: int) -> bool:
        return (
            self.siblings[self.source[i].parent, self.target[j].parent] > 0
            and len(self.source[i].shapes) > 2
        )

    def _match(self, candidate: Candidate, lead: float, is_last: bool) -> Match | None:
        votes = self.votes.of(self.source[candidate[0]].parent, self.target[candidate[1]].parent)
        words, order = self.words[candidate], self.order.get(candidate, 0.0)
        is_poor = (
            (max(words, votes, order) < LEAST and not self._is_only(candidate))
            or candidate in self.undirected
            or self._is_odd(candidate, words, votes)
        )
        if is_poor and not is_last and candidate not in self.hinted and candidate not in self.fixed:
            return None
        return Match(*candidate, lead, words, votes, order, self.similarities[candidate])

    def _is_only(self, candidate: Candidate) -> bool:
        """Whether no other module has such shapes, on either side, and these are more than a length."""
        is_alone = self.specificity[0][candidate[0]] == self.specificity[1][candidate[1]] == 1
        return is_alone and any(len(shape) > 1 for _, shape in self.source[candidate[0]].shapes)

    def _is_odd(self, candidate: Candidate, words: float, votes: float) -> bool:
        """Whether a pair has much less in common than the others of these files, and isn't the only
        one of its shapes.
        """
        if self._is_only(candidate):
            return False
        source, target = self.source[candidate[0]], self.target[candidate[1]]
        if votes < 0.4 and words < 1 and self.structures.around(source, target) < 0.45:
            is_elsewhere = self.structures.nearest(source) >= 0.45
            if is_elsewhere or (
                source.indices and target.indices and number_agreement(source, target) < 1.0
            ):
                return True
        better = self._names(source, target) + 0.25
        is_numbered = bool(source.indices and target.indices)
        if (
            is_numbered
            and max(words, votes) < 0.6
            and self._namesake(candidate[0], 0) > better
            and self._namesake(candidate[1], 1) > better
        ):
            return True
        if self.order.get(candidate, 0.0) == 1.0 and (
            candidate in self.beside
            or (len(source.indices) > 1 and number_agreement(source, target) == 1.0)
        ):
            return False
        return words < 0.5 * self.usual_words and votes < 0.6

    def _names(self, source: ModuleTensors, target: ModuleTensors) -> float:
        return WORDS * self.shared.of(source, target) + NUMBERS * number_agreement(source, target)

    def _namesake(self, place: int, side: int) -> float:
        """How well the names of a module agree with those of any module of other shapes that has the
        same roles.
        """
        if (place, side) not in self._namesakes:
            sides = (self.source, self.target)
            module = sides[side][place]
            kind = [(role, len(shape)) for role, shape in module.shapes]
            others = [
                each
                for each in sides[1 - side]
                if [(role, len(shape)) for role, shape in each.shapes] == kind
                and each.shapes != module.shapes
            ]
            rated = (
                self._names(module, each) if side == 0 else self._names(each, module)
                for each in others
            )
            self._namesakes[place, side] = max(rated, default=0.0)
        return self._namesakes[place, side]


def _similarities(
    source: Sequence[ModuleTensors],
    target: Sequence[ModuleTensors],
    fixed: Collection[Candidate],
    places: Places | None,
) -> dict[Candidate, float]:
    """How well the tensors of modules go together, for those that names settled, and for each two
    that are free and not apart.
    """
    taken: tuple[set[int], set[int]] = ({i for i, _ in fixed}, {j for _, j in fixed})
    free = [
        [module for module in side if module.place not in places]
        for side, places in zip((source, target), taken, strict=True)
    ]
    found = find_candidates(free[0], free[1])
    if places is not None:
        found = {
            (i, j): how
            for (i, j), how in found.items()
            if not places.are_apart(source[i], target[j])
        }
    return dict.fromkeys(sorted(fixed), 1.0) | found


def _best_words(words: Mapping[Candidate, float]) -> tuple[dict[int, float], dict[int, float]]:
    """How well the words of each module agree with those of its best partner."""
    best: tuple[dict[int, float], dict[int, float]] = ({}, {})
    for candidate, score in words.items():
        for side, place in zip(best, candidate, strict=True):
            side[place] = max(side.get(place, 0.0), score)
    return best


def _greedy(scores: Mapping[Candidate, float]) -> list[Candidate]:
    """One partner for each, the best first."""
    pairs: list[Candidate] = []
    source: set[int] = set()
    target: set[int] = set()
    for i, j in sorted(scores, key=lambda candidate: -scores[candidate]):
        if i not in source and j not in target:
            pairs.append((i, j))
            source.add(i)
            target.add(j)
    return pairs


def _leading(pairs: Sequence[Candidate], scores: Mapping[Candidate, float]) -> list[Candidate]:
    """The pairs that are clearly better than any other of one of their two."""
    best: tuple[dict[int, list[float]], dict[int, list[float]]] = ({}, {})
    for candidate, score in scores.items():
        for side, place in zip(best, candidate, strict=True):
            side[place] = sorted([*side.get(place, ()), score])[-2:]
    return [
        candidate
        for candidate in pairs
        if all(
            _leads(scores[candidate], side[place])
            for side, place in zip(best, candidate, strict=True)
        )
    ]


def _leads(score: float, best: Sequence[float]) -> bool:
    return score == best[-1] and (len(best) < 2 or score - best[-2] >= MARGINS[-2])


def _clear(
    rows: Mapping[int, Mapping[int, float]],
    columns: Mapping[int, Mapping[int, float]],
    margin: float,
) -> list[tuple[int, int, float]]:
    """The pairs that lead by a margin on both sides."""
    found = []
    for i, row in rows.items():
        if not row:
            continue
        j, lead = _best(row)
        if lead >= margin and columns[j]:
            back, other = _best(columns[j])
            if back == i and other >= margin:
                found.append((i, j, min(lead, other)))
    return found


def _best(row: Mapping[int, float]) -> tuple[int, float]:
    """The best place, and how far it leads."""
    best, second, where = float("-inf"), float("-inf"), -1
    for place, score in row.items():
        if score > best:
            best, second, where = score, best, place
        elif score > second:
            second = score
    return where, min(9.0, best - second)


def _near_best(row: Mapping[int, float]) -> tuple[int, ...]:
    best = max(row.values())
    return tuple(place for place, score in row.items() if score > best - NEAR)


def _take(
    rows: dict[int, dict[int, float]], columns: dict[int, dict[int, float]], i: int, j: int
) -> None:
    for other in rows.pop(i, {}):
        columns[other].pop(i, None)
    for other in columns.pop(j, {}):
        rows[other].pop(j, None)


def _forget(
    rows: dict[int, dict[int, float]], columns: dict[int, dict[int, float]], i: int, j: int
) -> None:
    rows[i].pop(j, None)
    columns[j].pop(i, None)
