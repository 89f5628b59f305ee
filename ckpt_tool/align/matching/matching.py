"""Units paired with units: the clearest first, each pair a vote for those around it; what stays
unclear is left open.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from ckpt_tool.align.matching.hints import Hints
from ckpt_tool.align.matching.reversed_order import turned
from ckpt_tool.align.matching.sequence import on_common_path, within_blocks
from ckpt_tool.align.matching.similarity import (
    Cell,
    Kinds,
    Structures,
    Votes,
    Words,
    are_opposed,
    candidates,
    numbers_alike,
    rarity_of,
)
from ckpt_tool.align.naming.modules import Names, Unit, block_of
from ckpt_tool.align.naming.places import Places

RAREST_FIRST = (0.9, 0.45, 0.3, 0.15, 0.05, 0.0, 0.0)
"""The rarity from which on pairs have a vote, round by round: shapes that few units have come
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
    """Two units that belong together, by place; `margin` is how far the next best pair of either is
    behind.
    """

    source: int
    target: int
    margin: float
    words: float
    votes: float
    order: float
    forms: float
    exchange: float = 9.0
    """How much worse it would be to exchange partners with another pair of the same block."""


@dataclass(frozen=True, slots=True)
class Matches:
    """What was decided, and for each undecided unit of the source the targets that it may be."""

    found: tuple[Match, ...]
    open: Mapping[int, tuple[int, ...]]


def with_exchanges(
    found: Sequence[Match],
    scores: Mapping[Cell, float],
    source: Sequence[Unit],
    target: Sequence[Unit],
) -> list[Match]:
    groups: dict[object, list[Cell]] = defaultdict(list)
    for match in found:
        groups["source", block_of(source[match.source].parent)].append((match.source, match.target))
        groups["target", block_of(target[match.target].parent)].append((match.source, match.target))
    least: dict[Cell, float] = {}
    for group in groups.values():
        for (i, j), (x, y) in combinations(group if len(group) <= MAX_EXCHANGED else (), 2):
            if (i, y) in scores and (x, j) in scores:
                loss = scores[i, j] + scores[x, y] - scores[i, y] - scores[x, j]
                least |= {cell: min(loss, least.get(cell, loss)) for cell in ((i, j), (x, y))}
    return [
        replace(match, exchange=least.get((match.source, match.target), match.exchange))
        for match in found
    ]


class Matching:
    """The evidence for each pair of units. `hints` are pairs that a person gave, `fixed` those that
    names settled.
    """

    def __init__(
        self,
        source: Sequence[Unit],
        target: Sequence[Unit],
        is_ordered: bool,
        hints: Sequence[Cell] = (),
        fixed: Collection[Cell] = (),
        places: Places | None = None,
    ) -> None:
        in_file_order = target
        target, self.undirected = turned(source, target)
        backwards = {
            unit.place
            for unit, before in zip(target, in_file_order, strict=True)
            if unit.numbers != before.numbers
        }
        self.source, self.target = source, target
        self.fixed = set(fixed)
        self.forms = _forms(source, target, self.fixed, places)
        self.shared = Words(source, target)
        self.words = {(i, j): self.shared.of(source[i], target[j]) for i, j in self.forms}
        self.ordering = {cell: how * (0.5 + self.words[cell]) for cell, how in self.forms.items()}
        self.is_ordered = is_ordered
        self.order: dict[Cell, float] = {}
        if is_ordered:
            self.order = {
                cell: how
                for cell, how in on_common_path(source, target, self.ordering).items()
                if cell[1] not in backwards
            }
        self.global_order = dict(self.order)
        self.known = _best_words(self.words)
        self.structures = Structures(source, target)
        told = Hints(source, target, hints)
        self.unordered = {
            cell: self._unordered(cell, how) + told.of(source[cell[0]], target[cell[1]])
            for cell, how in self.forms.items()
        }
        self.hinted = {
            cell for cell in self.forms if hints and told.of(source[cell[0]], target[cell[1]]) > 0
        }
        self.rarity = rarity_of(self.forms, (len(source), len(target)))
        self.usual_words = 0.0
        self.advised: dict[Cell, float] = {}
        self.beside: set[Cell] = set()
        self.siblings: Counter[tuple[Names, Names]] = Counter()
        self._namesakes: dict[tuple[int, int], float] = {}

    def _unordered(self, cell: Cell, how: float) -> float:
        """What speaks for a pair besides the order and other pairs."""
        source, target = self.source[cell[0]], self.target[cell[1]]
        clash = CLASH if are_opposed(source.words, target.words) else 0.0
        alike = (
            WORDS * self.words[cell]
            + NUMBERS * numbers_alike(source, target)
            + STRUCTURE * self.structures.of(source, target)
        )
        return how + alike - clash

    @property
    def base(self) -> dict[Cell, float]:
        """What speaks for each pair besides other pairs. Where words tell, the order needn't."""
        found = dict(self.unordered)
        for cell, score in self.unordered.items():
            if (how := self.order.get(cell, 0.0)) or cell in self.advised:
                found[cell] = (
                    score
                    + self.advised.get(cell, 0.0)
                    + ORDER * how * (1.0 - max(self.known[0][cell[0]], self.known[1][cell[1]]))
                )
        return found

    def anchored(self) -> Votes:
        """What those pairs alone say that need no others: of shapes that no other unit has, or
        settled by names.
        """
        alone = [
            cell
            for cell in self.forms
            if cell in self.fixed or self.rarity[0][cell[0]] == self.rarity[1][cell[1]] == 1
        ]
        return Votes(self.source, self.target, alone, self.rarity)

    def _plain_scores(self) -> dict[Cell, float]:
        of, source, target = self.votes.of, self.source, self.target
        return {
            (i, j): base + VOTES * of(source[i].parent, target[j].parent)
            for (i, j), base in self.base.items()
        }

    def _with_kinds(self, plain: Mapping[Cell, float]) -> dict[Cell, float]:
        """The scores with what the other blocks say. How sure a pair is doesn't follow from that:
        it may be the same guess again.
        """
        return {(i, j): score + KINDS * self.kinds.of(i, j) for (i, j), score in plain.items()}

    def run(self) -> Matches:
        self.order, self.votes = (
            dict(self.global_order),
            Votes(self.source, self.target, (), self.rarity),
        )
        self.kinds = Kinds(self.source, self.target, ())
        pairs: list[Cell] = []
        for rare in RAREST_FIRST:
            plain = self._plain_scores()
            pairs = _greedy(self._with_kinds(plain))
            heard = [(i, j) for i, j in pairs if min(self.rarity[0][i], self.rarity[1][j]) >= rare]
            self.votes = Votes(self.source, self.target, heard, self.rarity)
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

    def _decided(self, scores: Mapping[Cell, float]) -> Matches:
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
            and len(self.source[i].form) > 2
        )

    def _match(self, cell: Cell, lead: float, is_last: bool) -> Match | None:
        votes = self.votes.of(self.source[cell[0]].parent, self.target[cell[1]].parent)
        words, order = self.words[cell], self.order.get(cell, 0.0)
        is_poor = (
            (max(words, votes, order) < LEAST and not self._is_only(cell))
            or cell in self.undirected
            or self._is_odd(cell, words, votes)
        )
        if is_poor and not is_last and cell not in self.hinted and cell not in self.fixed:
            return None
        return Match(*cell, lead, words, votes, order, self.forms[cell])

    def _is_only(self, cell: Cell) -> bool:
        """Whether no other unit has such shapes, on either side, and these are more than a length."""
        is_alone = self.rarity[0][cell[0]] == self.rarity[1][cell[1]] == 1
        return is_alone and any(len(shape) > 1 for _, shape in self.source[cell[0]].form)

    def _is_odd(self, cell: Cell, words: float, votes: float) -> bool:
        """Whether a pair has much less in common than the others of these files, and isn't the only
        one of its shapes.
        """
        if self._is_only(cell):
            return False
        source, target = self.source[cell[0]], self.target[cell[1]]
        if votes < 0.4 and words < 1 and self.structures.around(source, target) < 0.45:
            is_elsewhere = self.structures.nearest(source) >= 0.45
            if is_elsewhere or (
                source.ranks and target.ranks and numbers_alike(source, target) < 1.0
            ):
                return True
        better = self._names(source, target) + 0.25
        is_numbered = bool(source.ranks and target.ranks)
        if (
            is_numbered
            and max(words, votes) < 0.6
            and self._namesake(cell[0], 0) > better
            and self._namesake(cell[1], 1) > better
        ):
            return True
        if self.order.get(cell, 0.0) == 1.0 and (
            cell in self.beside or (len(source.ranks) > 1 and numbers_alike(source, target) == 1.0)
        ):
            return False
        return words < 0.5 * self.usual_words and votes < 0.6

    def _names(self, source: Unit, target: Unit) -> float:
        return WORDS * self.shared.of(source, target) + NUMBERS * numbers_alike(source, target)

    def _namesake(self, place: int, side: int) -> float:
        """How well the names of a unit agree with those of any unit of other shapes that has the
        same roles.
        """
        if (place, side) not in self._namesakes:
            sides = (self.source, self.target)
            unit = sides[side][place]
            kind = [(role, len(shape)) for role, shape in unit.form]
            others = [
                each
                for each in sides[1 - side]
                if [(role, len(shape)) for role, shape in each.form] == kind
                and each.form != unit.form
            ]
            rated = (
                self._names(unit, each) if side == 0 else self._names(each, unit) for each in others
            )
            self._namesakes[place, side] = max(rated, default=0.0)
        return self._namesakes[place, side]


def _forms(
    source: Sequence[Unit], target: Sequence[Unit], fixed: Collection[Cell], places: Places | None
) -> dict[Cell, float]:
    """How well the tensors of units go together, for those that names settled, and for each two
    that are free and not apart.
    """
    taken: tuple[set[int], set[int]] = ({i for i, _ in fixed}, {j for _, j in fixed})
    free = [
        [unit for unit in side if unit.place not in places]
        for side, places in zip((source, target), taken, strict=True)
    ]
    found = candidates(free[0], free[1])
    if places is not None:
        found = {
            (i, j): how
            for (i, j), how in found.items()
            if not places.are_apart(source[i], target[j])
        }
    return dict.fromkeys(sorted(fixed), 1.0) | found


def _best_words(words: Mapping[Cell, float]) -> tuple[dict[int, float], dict[int, float]]:
    """How well the words of each unit agree with those of its best partner."""
    best: tuple[dict[int, float], dict[int, float]] = ({}, {})
    for cell, score in words.items():
        for side, place in zip(best, cell, strict=True):
            side[place] = max(side.get(place, 0.0), score)
    return best


def _greedy(scores: Mapping[Cell, float]) -> list[Cell]:
    """One partner for each, the best first."""
    pairs: list[Cell] = []
    source: set[int] = set()
    target: set[int] = set()
    for i, j in sorted(scores, key=lambda cell: -scores[cell]):
        if i not in source and j not in target:
            pairs.append((i, j))
            source.add(i)
            target.add(j)
    return pairs


def _leading(pairs: Sequence[Cell], scores: Mapping[Cell, float]) -> list[Cell]:
    """The pairs that are clearly better than any other of one of their two."""
    best: tuple[dict[int, list[float]], dict[int, list[float]]] = ({}, {})
    for cell, score in scores.items():
        for side, place in zip(best, cell, strict=True):
            side[place] = sorted([*side.get(place, ()), score])[-2:]
    return [
        cell
        for cell in pairs
        if all(_leads(scores[cell], side[place]) for side, place in zip(best, cell, strict=True))
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
