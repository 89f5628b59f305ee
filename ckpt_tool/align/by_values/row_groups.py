"""Tensors that share rows: one cut into several, several joined to one, rows in another order; as
pairs with ops.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TypeGuard

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
from ckpt_tool.align.by_values.row_ops import (
    by_group,
    cut_rows,
    for_each,
    row_ops,
    runs_of,
    split_op,
)
from ckpt_tool.align.pairs import Pair, Slot
from ckpt_tool.align.sides import Sides
from ckpt_tool.ops import parse_ops
from ckpt_tool.tensors import Catalog, Shape

RowMap = Mapping[str, Sequence[tuple[str, int]]]
"""For each target key, for each of its rows: which source key has it, and where."""


def pairs_of_rows(rows: RowMap, catalogs: Sides[Catalog], turns: Sides[bool]) -> Iterator[Pair]:
    """A pair for each group of tensors that share rows, where ops can say how; nothing is verified.

    `turns` says whether rows are columns, of the source's tensors and of the target's.
    `[q; k; v] (3n, m) -> q, k, v (n, m)`, `gate, up (n, m) -> [gate; up] (2n, m)`,
    `w.0, w.1 (n, m) -> w (2, n, m)`.
    """
    for keys in _groups(rows):
        group = {key: rows[key] for key in keys}
        found = _RowGroup(group, catalogs, turns).pair()
        if found is not None:
            yield found


def _groups(rows: RowMap) -> list[list[str]]:
    """Target keys that have rows of the same source key: `q, k, v` of one `qkv`."""
    owner: dict[str, list[str]] = {}
    for key, places in rows.items():
        group = [key]
        for other in _names(places):
            if other in owner and owner[other] is not group:
                group = [*owner[other], *(each for each in group if each not in owner[other])]
            owner[other] = group
        for member in group:
            owner.update(dict.fromkeys(_names(rows[member]), group))
    return list({id(group): group for group in owner.values()}.values())


def _names(places: Sequence[tuple[str, int]]) -> list[str]:
    """The source keys of some rows, each once."""
    return list(dict.fromkeys(name for name, _ in places))


class _RowGroup:
    """Some target tensors and all source tensors that they have rows of."""

    def __init__(self, rows: RowMap, catalogs: Sides[Catalog], turns: Sides[bool]) -> None:
        self.rows, self.turns = rows, turns
        self.sources = list(dict.fromkeys(name for places in rows.values() for name, _ in places))
        self.shapes = {key: catalogs.source[key].shape for key in self.sources}
        self.wanted = {key: catalogs.target[key].shape for key in rows}

    def pair(self) -> Pair | None:
        """One from one, several from one, or one from several; None for what no ops say."""
        if len(self.sources) == len(self.rows) == 1:
            return self._one()
        if len(self.sources) == 1:
            return self._split()
        return self._joined() if len(self.rows) == 1 else None

    def _opened(self, key: str) -> tuple[Plain, Shape]:
        """The ops that lay a source tensor's rows along dimension 0, and the shape then."""
        shape = self.shapes[key]
        return opened(shape, self.turns.source) if len(plain_shape(shape)) > 1 else ([], shape)

    def _closed(self, rows: int, rest: Shape, key: str) -> Plain:
        """The ops from so many rows, each of the shape `rest`, to a target's shape."""
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
        """Rows of one tensor in another order, or some of them: `a (n, m) -> b (k, m)`."""
        (origin,), (key,) = self.sources, self.rows
        head, shape = self._opened(origin)
        places = [row for _, row in self.rows[key]]
        middle = row_ops(places, shape[0])
        if middle is None:
            return None
        ops = simplified([*head, *middle, *self._closed(len(places), shape[1:], key)])
        return Pair(((origin,),), ((key,),), parse_ops(ops))

    def _split(self) -> Pair | None:
        """One tensor in several: `[q; k; v] (3n, m) -> q, k, v (n, m)`."""
        (origin,) = self.sources
        head, shape = self._opened(origin)
        spans = {key: [row for _, row in places] for key, places in self.rows.items()}
        keys = sorted(spans, key=lambda key: min(spans[key]))
        if (stacked := self._unstacked(origin, keys, spans)) is not None:
            return stacked
        middle = cut_rows({key: spans[key] for key in keys}, shape[0])
        if middle is None:
            return None
        tails = {key: self._closed(len(spans[key]), shape[1:], key) for key in keys}
        ops = simplified([*head, *middle, *for_each(tails)])
        return Pair(((origin,),), tuple((key,) for key in keys), parse_ops(ops))

    def _unstacked(
        self, origin: str, keys: Sequence[str], spans: Mapping[str, Sequence[int]]
    ) -> Pair | None:
        """Matrices stacked as one tensor, or several kinds of them with their rows joined: gate and
        up of all experts, `[gate; up] (e, 2n, m) -> gate.0 … gate.e, up.0 … up.e (n, m)`.
        """
        plain = plain_shape(self.shapes[origin])
        if not is_stack(plain) or not all(_is_in_order(spans[key]) for key in keys):
            return None
        slots = _slots(keys)
        count = sum(map(len, spans.values()))
        if not _are_of_length(slots, plain[0]) or count != _rows(plain, self.turns.source):
            return None
        sizes = [len(spans[slot[0]]) for slot in slots]
        ops = [*reshaped(self.shapes[origin], plain), *_turn_of(plain, self.turns.source)]
        ops += [split_op(sizes, 1)] if len(slots) > 1 else []
        tails = {
            slot[0]: self._closed(size, (), slot[0]) if self.turns.target else []
            for slot, size in zip(slots, sizes, strict=True)
        }
        return Pair(((origin,),), slots, parse_ops([*ops, {"unstack": 0}, *for_each(tails)]))

    def _joined(self) -> Pair | None:
        """Several tensors in one: `q, k, v (n, m) -> [q; k; v] (3n, m)`."""
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
        return for_each({origin: self._opened(origin)[0] for origin in self.sources})

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
        in_a_row = [origin for origin in self.sources for _ in parts[origin]]
        if in_a_row == [origin for origin, _ in places]:
            return self._joined_in_a_row(parts)
        names = [origin for origin, _, _ in runs]
        count = len(runs) // len(self.sources)
        if names != self.sources * count or not self._are_whole(parts):
            return None
        return by_group(count, {"concat": 1})

    def _joined_in_a_row(self, parts: Mapping[str, Sequence[int]]) -> Plain | None:
        """All rows of the first source, in an order of its own, then those of the next."""
        chains: dict[str, Plain] = {}
        for origin in self.sources:
            ops = row_ops(parts[origin], self._height(origin))
            if ops is None:
                return None
            chains[origin] = ops
        return [*for_each(chains), {"concat": 0}]

    def _are_whole(self, parts: Mapping[str, Sequence[int]]) -> bool:
        """Whether all rows of each source are there, in order."""
        return all(
            _is_in_order(parts[origin]) and len(parts[origin]) == self._height(origin)
            for origin in self.sources
        )

    def _are_of_whole_tensors(self, runs: Sequence[tuple[str, int, int]]) -> bool:
        """Whether each run is all rows of a source, and each source is there once."""
        return len(runs) == len(self.sources) and all(
            not start and count == self._height(origin) for origin, start, count in runs
        )

    def _stacked(self, key: str, runs: Sequence[tuple[str, int, int]]) -> Pair | None:
        """Matrices of one kind stacked, or of several kinds with their rows joined:
        `gate.0 … gate.e, up.0 … up.e (n, m) -> [gate; up] (e, 2n, m)`.
        """
        plain = plain_shape(self.wanted[key])
        if not is_stack(plain) or not self._are_of_whole_tensors(runs):
            return None
        slots = _slots([origin for origin, _, _ in runs])
        if not _are_of_length(slots, plain[0]):
            return None
        heads = for_each({slot[0]: self._opened(slot[0])[0] for slot in slots})
        join: Plain = [{"stack": 0}, *([{"concat": 1}] if len(slots) > 1 else [])]
        turn = _turn_of(plain, self.turns.target)
        ops = [*heads, *join, *turn, *reshaped(plain, self.wanted[key])]
        return Pair(slots, ((key,),), parse_ops(ops))


def _are_of_length(slots: tuple[Slot, ...] | None, count: int) -> TypeGuard[tuple[Slot, ...]]:
    return slots is not None and all(len(slot) == count for slot in slots)


def _is_in_order(rows: Sequence[int]) -> bool:
    return all(a < b for a, b in pairwise(rows))


def _rows(plain: Shape, is_turned: bool) -> int:
    """The rows, or columns, of all matrices of a stack."""
    return plain[0] * (plain[2] if is_turned else plain[1])


def _turn_of(plain: Shape, is_turned: bool) -> Plain:
    """The ops that turn matrices, where their rows are columns."""
    return turn_of(plain) if is_turned else []


_NUMBER = re.compile(r"(?<![0-9])[0-9]{1,18}(?![0-9])")


def _slots(keys: Sequence[str]) -> tuple[Slot, ...] | None:
    """Keys by kind, if the kinds take turns: gate 0, up 0, gate 1, up 1. A kind's keys differ in
    one number, which counts up.

    >>> _slots(["0.gate", "0.up", "1.gate", "1.up"])
    (('0.gate', '1.gate'), ('0.up', '1.up'))
    """
    for place in range(len(_NUMBER.findall(keys[0]))):
        kinds: dict[str, list[str]] = defaultdict(list)
        for key in keys:
            kinds[_without_number(key, place)].append(key)
        order = [_without_number(key, place) for key in keys]
        if len(kinds) < len(keys) and order == list(kinds) * (len(keys) // len(kinds)):
            slots = tuple(tuple(slot) for slot in kinds.values())
            if all(_counts_up(slot, place) for slot in slots):
                return slots
    return None


def _counts_up(keys: Sequence[str], place: int) -> bool:
    """Whether a number of the keys, by its place, grows from each to the next."""
    return _is_in_order([int(_NUMBER.findall(key)[place]) for key in keys])


def _without_number(key: str, place: int) -> str:
    found = list(_NUMBER.finditer(key))
    return (
        f"{key[: found[place].start()]}#{key[found[place].end() :]}" if place < len(found) else key
    )
