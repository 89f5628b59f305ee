"""Tensors that share rows: one cut into several, several joined to one, rows in another order; as
pairs with ops.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ckpt_tool.align.by_values.fingerprints import plain_shape
from ckpt_tool.align.by_values.reshaping import (
    Plain,
    closed,
    is_stack,
    opened,
    reshaped,
    simplified,
    turn_of,
)
from ckpt_tool.align.by_values.row_ops import row_ops, runs_of
from ckpt_tool.align.pairs import Pair, Slot
from ckpt_tool.ops import parse_ops
from ckpt_tool.tensors import Catalog, Shape

RowMap = Mapping[str, Sequence[tuple[str, int]]]
"""For each target key, for each of its rows: which source key has it, and where."""


@dataclass(frozen=True, slots=True)
class Turns:
    """Whether rows are columns of the source's tensors, and of the target's."""

    source: bool
    target: bool


def pairs_of_rows(rows: RowMap, source: Catalog, target: Catalog, turns: Turns) -> Iterator[Pair]:
    """A pair for each group of tensors that share rows, where ops can say how; nothing is verified."""
    for keys in _groups(rows):
        group = {key: rows[key] for key in keys}
        found = _RowGroup(group, source, target, turns).pair()
        if found is not None:
            yield found


def _groups(rows: RowMap) -> list[list[str]]:
    """Target keys that have rows of the same source key."""
    owner: dict[str, list[str]] = {}
    for key, places in rows.items():
        group = [key]
        for other in dict.fromkeys(name for name, _ in places):
            if other in owner and owner[other] is not group:
                group = [*owner[other], *(each for each in group if each not in owner[other])]
            owner[other] = group
        for member in group:
            owner.update({name: group for name, _ in rows[member]})
    return list({id(group): group for group in owner.values()}.values())


class _RowGroup:
    """Some target tensors and all source tensors that they have rows of."""

    def __init__(self, rows: RowMap, source: Catalog, target: Catalog, turns: Turns) -> None:
        self.rows, self.turns = rows, turns
        self.sources = list(dict.fromkeys(name for places in rows.values() for name, _ in places))
        self.shapes = {key: source[key].shape for key in self.sources}
        self.wanted = {key: target[key].shape for key in rows}

    def pair(self) -> Pair | None:
        if len(self.sources) == len(self.rows) == 1:
            return self._one()
        if len(self.sources) == 1:
            return self._split()
        return self._joined() if len(self.rows) == 1 else None

    def _opened(self, key: str) -> tuple[Plain, Shape]:
        return (
            opened(self.shapes[key], self.turns.source)
            if len(plain_shape(self.shapes[key])) > 1
            else ([], self.shapes[key])
        )

    def _closed(self, rows: int, rest: Shape, key: str) -> Plain:
        shape = self.wanted[key]
        if len(plain_shape(shape)) < 2:
            return reshaped((rows, *rest), shape)
        if not self.turns.target and not is_stack(plain_shape(shape)):
            return reshaped((rows, *rest), shape)
        return [
            *reshaped((rows, *rest), (rows, *plain_shape(rest))),
            *closed(shape, self.turns.target),
        ]

    def _one(self) -> Pair | None:
        (origin,), (key,) = self.sources, self.rows
        head, shape = self._opened(origin)
        places = [row for _, row in self.rows[key]]
        middle = row_ops(places, shape[0])
        if middle is None:
            return None
        ops = simplified([*head, *middle, *self._closed(len(places), shape[1:], key)])
        return Pair(((origin,),), ((key,),), parse_ops(ops))

    def _split(self) -> Pair | None:
        (origin,) = self.sources
        head, shape = self._opened(origin)
        spans = {key: [row for _, row in places] for key, places in self.rows.items()}
        keys = sorted(spans, key=lambda key: min(spans[key]))
        if (stacked := self._unstacked(origin, keys, spans)) is not None:
            return stacked
        middle = self._cut(keys, spans, shape[0])
        if middle is None:
            return None
        tails = {key: self._closed(len(spans[key]), shape[1:], key) for key in keys}
        ops = simplified([*head, *middle, *_for_each(tails)])
        return Pair(((origin,),), tuple((key,) for key in keys), parse_ops(ops))

    def _cut(
        self, keys: Sequence[str], spans: Mapping[str, Sequence[int]], rows: int
    ) -> Plain | None:
        """Ops that take the targets' rows from the source's: consecutive parts, or a part of each
        of several groups.
        """
        sizes = [len(spans[key]) for key in keys]
        own = {
            key: row_ops([row - min(spans[key]) for row in spans[key]], len(spans[key]))
            for key in keys
            if _is_whole(spans[key])
        }
        starts = [min(spans[key]) for key in keys]
        if len(own) == len(keys) and all(
            a + size <= b for a, size, b in zip(starts, sizes, starts[1:], strict=False)
        ):
            taken = [row for key in keys for row in sorted(spans[key])]
            chosen = row_ops(taken, rows)
            ops = {key: each for key, each in own.items() if each}
            if chosen is None or any(each is None for each in own.values()):
                return None
            return [
                *chosen,
                _split_op(sizes),
                *_for_each({key: ops.get(key) or [] for key in keys}),
            ]
        return self._cut_by_group(keys, spans, rows)

    def _cut_by_group(
        self, keys: Sequence[str], spans: Mapping[str, Sequence[int]], rows: int
    ) -> Plain | None:
        """The same runs of rows again and again, one for each target: heads of queries, keys and
        values side by side.
        """
        runs = {key: runs_of([("", row) for row in spans[key]]) for key in keys}
        count = max(len(each) for each in runs.values())
        order = sorted((start, key) for key in keys for _, start, _ in runs[key])
        sizes = [runs[key][0][2] for _, key in order[: len(keys)]]
        names = [key for _, key in order[: len(keys)]]
        if (
            any(len(each) != count for each in runs.values())
            or sum(sizes) * count != rows
            or sorted(names) != sorted(keys)
        ):
            return None
        if names != list(keys):
            return None
        return [
            {"rearrange": "(g n) ... -> g n ...", "g": count},
            _split_op(sizes, 1),
            {"rearrange": "g n ... -> (g n) ..."},
        ]

    def _unstacked(
        self, origin: str, keys: Sequence[str], spans: Mapping[str, Sequence[int]]
    ) -> Pair | None:
        """Matrices stacked as one tensor, or several kinds of them with their rows joined: gate and
        up of all experts.
        """
        plain = plain_shape(self.shapes[origin])
        if not is_stack(plain) or any(not _is_in_order(spans[key]) for key in keys):
            return None
        slots = _slots(keys)
        sizes = [len(spans[slot[0]]) for slot in slots or ()]
        if (
            slots is None
            or any(len(slot) != plain[0] for slot in slots)
            or sum(map(len, spans.values())) != _rows(plain, self.turns.source)
        ):
            return None
        ops = reshaped(self.shapes[origin], plain) + (turn_of(plain) if self.turns.source else [])
        ops += [_split_op(sizes, 1)] if len(slots) > 1 else []
        tails = {
            slot[0]: self._closed(len(spans[slot[0]]), (), slot[0]) if self.turns.target else []
            for slot in slots
        }
        return Pair(((origin,),), slots, parse_ops([*ops, {"unstack": 0}, *_for_each(tails)]))

    def _joined(self) -> Pair | None:
        (key,) = self.rows
        places = self.rows[key]
        runs = runs_of(places)
        rest = self._opened(self.sources[0])[1][1:]
        head = self._heads()
        if (stacked := self._stacked(key, runs)) is not None:
            return stacked
        middle = self._glued(places, runs)
        if middle is None or head is None:
            return None
        ops = simplified([*head, *middle, *self._closed(len(places), rest, key)])
        return Pair(tuple((origin,) for origin in self.sources), ((key,),), parse_ops(ops))

    def _heads(self) -> Plain | None:
        return _for_each({origin: self._opened(origin)[0] for origin in self.sources})

    def _height(self, origin: str) -> int:
        return self._opened(origin)[1][0]

    def _glued(
        self, places: Sequence[tuple[str, int]], runs: Sequence[tuple[str, int, int]]
    ) -> Plain | None:
        """Ops that join the sources' rows: one after the other, each in an order of its own, or a
        run of each again and again.
        """
        parts: dict[str, list[int]] = defaultdict(list)
        for origin, row in places:
            parts[origin].append(row)
        in_a_row = [origin for origin in self.sources for _ in parts[origin]] == [
            origin for origin, _ in places
        ]
        if in_a_row:
            own = {origin: row_ops(parts[origin], self._height(origin)) for origin in self.sources}
            if any(each is None for each in own.values()):
                return None
            return [*_for_each({origin: each or [] for origin, each in own.items()}), {"concat": 0}]
        count = len(runs) // len(self.sources)
        names = [origin for origin, _, _ in runs]
        if names != self.sources * count or any(
            not _is_in_order(parts[origin]) for origin in self.sources
        ):
            return None
        if any(len(parts[origin]) != self._height(origin) for origin in self.sources):
            return None
        return [
            {"rearrange": "(g n) ... -> g n ...", "g": count},
            {"concat": 1},
            {"rearrange": "g n ... -> (g n) ..."},
        ]

    def _stacked(self, key: str, runs: Sequence[tuple[str, int, int]]) -> Pair | None:
        plain = plain_shape(self.wanted[key])
        if not is_stack(plain) or any(
            start or count != self._height(origin) for origin, start, count in runs
        ):
            return None
        slots = _slots([origin for origin, _, _ in runs])
        if (
            slots is None
            or len(runs) != len(self.sources)
            or any(len(slot) != plain[0] for slot in slots)
        ):
            return None
        turn = turn_of(plain) if self.turns.target else []
        shapes = {slot[0]: self._opened(slot[0])[0] for slot in slots}
        join: Plain = [{"stack": 0}, *([{"concat": 1}] if len(slots) > 1 else [])]
        return Pair(
            slots,
            ((key,),),
            parse_ops([*_for_each(shapes), *join, *turn, *reshaped(plain, self.wanted[key])]),
        )


def _is_whole(rows: Sequence[int]) -> bool:
    """Whether rows, in some order, are consecutive."""
    return len(set(rows)) == len(rows) == max(rows) - min(rows) + 1


def _is_in_order(rows: Sequence[int]) -> bool:
    return all(a < b for a, b in pairwise(rows))


def _rows(plain: Shape, is_turned: bool) -> int:
    return plain[0] * (plain[2] if is_turned else plain[1])


def _split_op(sizes: Sequence[int], dim: int = 0) -> object:
    return {"split": dim if len(set(sizes)) == 1 else {"dim": dim, "sizes": list(sizes)}}


def _for_each(chains: Mapping[str, Plain]) -> Plain:
    """Ops for each of several tensors: once, where they are the same for all."""
    every = list(chains.values())
    if all(each == every[0] for each in every):
        return every[0]
    return [{"each": {key: ops for key, ops in chains.items() if ops}}]


_NUMBER = re.compile(r"(?<![0-9])[0-9]{1,18}(?![0-9])")


def _slots(keys: Sequence[str]) -> tuple[Slot, ...] | None:
    """Keys by kind, if the kinds take turns: gate 0, up 0, gate 1, up 1. A kind's keys differ in
    one number, which counts up.
    """
    for place in range(len(_NUMBER.findall(keys[0]))):
        kinds: dict[str, list[str]] = defaultdict(list)
        for key in keys:
            kinds[_without_number(key, place)].append(key)
        order = [_without_number(key, place) for key in keys]
        if len(kinds) < len(keys) and order == list(kinds) * (len(keys) // len(kinds)):
            slots = tuple(tuple(slot) for slot in kinds.values())
            if all(
                _is_in_order([int(_NUMBER.findall(key)[place]) for key in slot]) for slot in slots
            ):
                return slots
    return None


def _without_number(key: str, place: int) -> str:
    found = list(_NUMBER.finditer(key))
    return (
        f"{key[: found[place].start()]}#{key[found[place].end() :]}" if place < len(found) else key
    )
