"""How the rows of one tensor became those of another: a slice, a permutation in whole digits,
blocks in another order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import gcd, prod

from ckpt_tool.align.by_values.reshaping import Plain

MAX_BLOCKS = 512
"""Places that an `index` lists at most."""


def row_ops(places: Sequence[int], rows: int) -> Plain | None:
    """Ops along dimension 0, as plain data, that take these rows of so many, in this order; None
    where none is short: `(rows, …) -> (len(places), …)`.

    >>> row_ops([0, 1, 2], 3)
    []
    >>> row_ops([1, 2], 4)
    [{'slice': {'dim': 0, 'start': 1, 'stop': 3}}]
    >>> row_ops([0, 2, 4, 1, 3, 5], 6)
    [{'rearrange': '(a b) ... -> (b a) ...', 'b': 2}]
    >>> row_ops([2, 3, 0, 1, 8, 9], 10)[1]
    {'index': {'dim': 0, 'order': [1, 0, 4]}}
    """
    low, count = min(places), len(places)
    span = range(low, low + count)
    head: Plain = []
    if count != rows:
        head = [{"slice": {"dim": 0, "start": low, "stop": low + count}}]
    if list(places) == list(span):
        return head
    if sorted(places) == list(span):
        digits = _digits([place - low for place in places])
        if digits is not None:
            return [*head, digits]
    return _blocks(places, rows)


@dataclass(frozen=True, slots=True)
class _Digit:
    """One digit of the places: how many values it has, and by how much a place grows with it."""

    size: int
    stride: int


def _digits(places: Sequence[int]) -> dict[str, object] | None:
    """A `rearrange` for places that are numbers whose digits, in some mixed base, stand in another
    order: `(h two d) -> (h d two)`.
    """
    digits = _counted_digits(places)
    if digits is None:
        return None
    order = sorted(range(len(digits)), key=lambda axis: -digits[axis].stride)
    ranked = [digits[axis] for axis in order]
    if any(
        digit.stride != prod(lower.size for lower in ranked[rank + 1 :])
        for rank, digit in enumerate(ranked)
    ):
        return None
    names = dict(zip(order, "abcdefgh"[: len(order)], strict=True))
    source = " ".join(names[axis] for axis in order)
    target = " ".join(names[axis] for axis in range(len(digits)))
    lengths = {names[axis]: digits[axis].size for axis in order[1:]}
    return {"rearrange": f"({source}) ... -> ({target}) ...", **lengths}


def _counted_digits(places: Sequence[int]) -> list[_Digit] | None:
    """The digits by which places count up, the slowest first; None where they count otherwise."""
    digits: list[_Digit] = []
    rest = list(places)
    while len(rest) > 1:
        step = rest[1] - rest[0]
        run = next((i for i in range(1, len(rest)) if rest[i] - rest[i - 1] != step), len(rest))
        if len(rest) % run or step <= 0:
            return None
        heads = rest[::run]
        if rest != [head + i * step for head in heads for i in range(run)]:
            return None
        digits.insert(0, _Digit(run, step))
        rest = heads
    return digits


def _blocks(places: Sequence[int], rows: int) -> Plain | None:
    """Blocks of rows in another order, or some of them."""
    starts = [i for i in range(len(places)) if i == 0 or places[i] != places[i - 1] + 1]
    size = gcd(*starts, *(places[i] for i in starts), len(places), rows)
    order = [places[i] // size for i in range(0, len(places), size)]
    if len(order) > MAX_BLOCKS:
        return None
    if size == 1:
        return [{"index": {"dim": 0, "order": order}}]
    return [
        {"rearrange": "(n d) ... -> n d ...", "d": size},
        {"index": {"dim": 0, "order": order}},
        {"rearrange": "n d ... -> (n d) ..."},
    ]


def runs_of(places: Sequence[tuple[str, int]]) -> list[tuple[str, int, int]]:
    """Rows of several tensors as runs: whose, from which row on, how many.

    >>> runs_of([("a", 0), ("a", 1), ("b", 4), ("a", 2)])
    [('a', 0, 2), ('b', 4, 1), ('a', 2, 1)]
    """
    runs: list[tuple[str, int, int]] = []
    for key, row in places:
        if runs and runs[-1][0] == key and runs[-1][1] + runs[-1][2] == row:
            runs[-1] = (key, runs[-1][1], runs[-1][2] + 1)
        else:
            runs.append((key, row, 1))
    return runs


def cut_rows(spans: Mapping[str, Sequence[int]], rows: int) -> Plain | None:
    """Ops that cut one tensor into several, each of which takes some of so many rows: consecutive
    parts, or a part of each of several groups; None where none is short.

    >>> cut_rows({"q": [0, 1], "k": [2, 3]}, 4)
    [{'split': 0}]
    >>> cut_rows({"q": [0, 2], "k": [1, 3]}, 4)[1]
    {'split': 1}
    """
    if _are_consecutive(list(spans.values())):
        return _cut_in_a_row(spans, rows)
    return _cut_by_group(spans, rows)


def _are_consecutive(spans: Sequence[Sequence[int]]) -> bool:
    """Whether each takes consecutive rows, in some order, behind those of the one before."""
    return all(_is_whole(rows) for rows in spans) and all(
        max(rows) < min(following) for rows, following in pairwise(spans)
    )


def _cut_in_a_row(spans: Mapping[str, Sequence[int]], rows: int) -> Plain | None:
    """One part after the other, each with its rows in an order of its own."""
    chosen = row_ops([row for places in spans.values() for row in sorted(places)], rows)
    if chosen is None:
        return None
    chains: dict[str, Plain] = {}
    for key, places in spans.items():
        start = min(places)
        ops = row_ops([row - start for row in places], len(places))
        if ops is None:
            return None
        chains[key] = ops
    return [*chosen, split_op([len(places) for places in spans.values()]), *for_each(chains)]


def _cut_by_group(spans: Mapping[str, Sequence[int]], rows: int) -> Plain | None:
    """The same runs of rows again and again, one for each target: heads of queries, keys and values
    side by side, `[q1; k1; v1; q2; k2; v2] (6n, m) -> q, k, v (2n, m)`.
    """
    runs = {key: runs_of([("", row) for row in places]) for key, places in spans.items()}
    count = max(len(each) for each in runs.values())
    if any(len(each) != count for each in runs.values()) or _first_round(runs) != list(spans):
        return None
    sizes = [each[0][2] for each in runs.values()]
    return by_group(count, split_op(sizes, 1)) if sum(sizes) * count == rows else None


def _first_round(runs: Mapping[str, Sequence[tuple[str, int, int]]]) -> list[str]:
    """The keys of the first runs, as many as there are keys."""
    order = sorted((start, key) for key, each in runs.items() for _, start, _ in each)
    return [key for _, key in order[: len(runs)]]


def by_group(count: int, op: object) -> Plain:
    """An op along the rows of each of so many groups of them: `(g n, m) -> (g, n, m)` and back."""
    return [
        {"rearrange": "(g n) ... -> g n ...", "g": count},
        op,
        {"rearrange": "g n ... -> (g n) ..."},
    ]


def split_op(sizes: Sequence[int], dim: int = 0) -> object:
    """A `split` into parts of these sizes, which are written out where they differ."""
    return {"split": dim if len(set(sizes)) == 1 else {"dim": dim, "sizes": list(sizes)}}


def for_each(chains: Mapping[str, Plain]) -> Plain:
    """Ops for each of several tensors: once, where they are the same for all.

    >>> for_each({"q": [], "k": ["transpose"]})
    [{'each': {'k': ['transpose']}}]
    """
    every = list(chains.values())
    if all(each == every[0] for each in every):
        return every[0]
    return [{"each": {key: ops for key, ops in chains.items() if ops}}]


def _is_whole(rows: Sequence[int]) -> bool:
    """Whether rows, in some order, are consecutive."""
    return len(set(rows)) == len(rows) == max(rows) - min(rows) + 1
