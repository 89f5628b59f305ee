"""How the rows of one tensor became those of another: a slice, a permutation in whole digits,
blocks in another order.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd, prod

MAX_BLOCKS = 512
"""Places that an `index` lists at most."""


def row_ops(places: Sequence[int], rows: int) -> list[object] | None:
    """Ops along dimension 0, as plain data, that take these rows of so many, in this order; None
    where none is short.
    """
    count = len(places)
    start = places[0]
    if list(places) == list(range(start, start + count)):
        return (
            [] if count == rows else [{"slice": {"dim": 0, "start": start, "stop": start + count}}]
        )
    low = min(places)
    if sorted(places) == list(range(low, low + count)):
        head: list[object] = (
            [] if count == rows else [{"slice": {"dim": 0, "start": low, "stop": low + count}}]
        )
        if (digits := _digits([place - low for place in places])) is not None:
            return [*head, digits]
    return _blocks(places, rows)


def _digits(places: Sequence[int]) -> dict[str, object] | None:
    """A `rearrange` for places that are numbers whose digits, in some mixed base, stand in another
    order: `(h two d) -> (h d two)`.
    """
    sizes, strides, rest = [], [], list(places)
    while len(rest) > 1:
        step = rest[1] - rest[0]
        run = next((i for i in range(1, len(rest)) if rest[i] - rest[i - 1] != step), len(rest))
        if len(rest) % run or step <= 0:
            return None
        heads = rest[::run]
        if any(
            rest[i * run + j] != head + j * step for i, head in enumerate(heads) for j in range(run)
        ):
            return None
        sizes.append(run)
        strides.append(step)
        rest = heads
    sizes, strides = sizes[::-1], strides[::-1]
    order = sorted(range(len(sizes)), key=lambda axis: -strides[axis])
    if any(
        strides[axis] != prod(sizes[other] for other in order[rank + 1 :])
        for rank, axis in enumerate(order)
    ):
        return None
    names = dict(zip(order, "abcdefgh"[: len(order)], strict=True))
    source, target = (" ".join(names[axis] for axis in axes) for axes in (order, range(len(sizes))))
    lengths = {names[axis]: sizes[axis] for axis in order[1:]}
    return {"rearrange": f"({source}) ... -> ({target}) ...", **lengths}


def _blocks(places: Sequence[int], rows: int) -> list[object] | None:
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
    """Rows of several tensors as runs: whose, from which row on, how many."""
    runs: list[tuple[str, int, int]] = []
    for key, row in places:
        if runs and runs[-1][0] == key and runs[-1][1] + runs[-1][2] == row:
            runs[-1] = (key, runs[-1][1], runs[-1][2] + 1)
        else:
            runs.append((key, row, 1))
    return runs
