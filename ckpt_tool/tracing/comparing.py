"""The first place, in order of execution, where two runs part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, sqrt
from typing import Literal

from ckpt_tool.tracing.pairs import Pair
from ckpt_tool.tracing.recording import Call, Recorded
from ckpt_tool.tracing.reordered import Reordered
from ckpt_tool.tracing.sketches import ROUNDING, Sketch, farthest

NOTHING = Reordered()
JUMP = 8.0
"""Rounding grows from module to module; what is so many times as far as anything before is none."""
MADE_UP = 1e3
"""How many times farther apart a module's outputs are than those around it, which agree by design:
as where a scale is folded into `q`. Faults reach the outputs around them with more.
"""
SAME_NORM = 1e-3
"""How far the norms of one value in two layouts are apart, relative to the larger, at most."""
Kind = Literal["module", "code", "drift"]
"""Where runs part: in a module, in a module's own code between two others, or by and by."""


@dataclass(frozen=True, slots=True)
class Row:
    """One call of a pair of modules: how far apart inputs and outputs are, relative to their size;
    None where nothing can be compared. `floors` are how far rounding alone may bring both. It
    `is_reshaped` where its outputs have other shapes and another norm: no other layout of the same.
    """

    one: str
    other: str
    call: int
    inputs: float | None
    outputs: float | None
    began: int
    ended: int
    is_weak: bool = False
    floors: tuple[float, float] = (0.0, 0.0)
    is_reshaped: bool = False


@dataclass(frozen=True, slots=True)
class Parting:
    """Where runs part. `at` is the module whose inputs differ first, for `code`."""

    kind: Kind
    row: Row
    at: Row | None = None


def rows_of(
    pairs: Sequence[Pair], ones: Mapping[Call, Recorded], others: Mapping[Call, Recorded]
) -> list[Row]:
    """The calls that both networks made, in the order in which the second ended them."""
    by_other = {pair.other: pair for pair in pairs}
    counts = Counter(path for path, _ in ones), Counter(path for path, _ in others)
    rows = []
    for (path, count), other in others.items():
        pair = by_other.get(path)
        one = ones.get((pair.one, count)) if pair else None
        if pair is None or one is None or one.ended < 0 or other.ended < 0:
            continue
        if pair.is_weak and counts[0][pair.one] != counts[1][path]:
            continue
        took, gave = farthest(one.inputs, other.inputs), farthest(one.outputs, other.outputs)
        rows.append(
            Row(
                pair.one,
                path,
                count,
                None if took is None else took.distance,
                None if gave is None else gave.distance,
                other.began,
                other.ended,
                pair.is_weak,
                (took.floor if took else 0.0, gave.floor if gave else 0.0),
                gave is None and _have_other_norms(one.outputs, other.outputs),
            )
        )
    return sorted(rows, key=lambda row: row.ended)


def _have_other_norms(ones: Sequence[Sketch], others: Sequence[Sketch]) -> bool:
    """Whether no order of the same numbers could be both."""
    one, other = (sqrt(sum(each.norm**2 for each in some)) for some in (ones, others))
    return abs(one - other) > SAME_NORM * max(one, other)


def limit_of(floor: float) -> float:
    """How far apart the results of whole networks may be that compute the same."""
    return sqrt(floor / ROUNDING) if floor else 0.0


def parting_of(
    rows: Sequence[Row], reordered: Reordered = NOTHING, is_beyond: bool = False
) -> Parting | None:
    """The first place where outputs diverge from inputs that agree; None where there is none.

    `reordered` are modules whose outputs have another order by design: where they don't agree in
    that order they aren't compared, but for those that must; nor is what gets other inputs after
    them inside of the module around them, nor one that may have another order, or has some of them
    inside, if the outputs of a module around it agree again. With `is_beyond` nor is any other
    module whose difference the one around it makes up for: the place is beyond it.
    """
    events = sorted(
        [(row.began, row, False) for row in rows] + [(row.ended, row, True) for row in rows],
        key=lambda event: event[0],
    )
    worst = 0.0
    hidden: set[int] = set()
    passed: list[Row] = []
    for _, row, is_end in events:
        apart = row.outputs if is_end else row.inputs
        if is_end and row.other in reordered.rows:
            passed.append(row)
            if _is_far(row, True, worst) and row.other not in reordered.known:
                continue
        if apart is None or id(row) in hidden:
            continue
        if row.is_weak and (not is_end or _is_far(row, False, worst)):
            continue
        if not _is_far(row, is_end, worst):
            worst = max(worst, apart)
        elif is_end and _is_undone(rows, row, reordered, worst, is_beyond):
            passed.append(row)
        elif is_end:
            return _reshaped_before(rows, Parting("module", row))
        elif any(_is_beside(rows, row, each) for each in passed):
            hidden.add(id(row))
        else:
            return _reshaped_before(rows, _by_code(rows, row))
    return None


def _reshaped_before(rows: Sequence[Row], parting: Parting) -> Parting:
    """The first module before a parting that gives another shape for the same inputs, where what
    comes after it can't be compared up to there: what differs there may come from it.
    """
    at = parting.at or parting.row
    if parting.kind == "module" and at.inputs is not None:
        return parting
    end = at.ended if parting.kind == "module" else at.began
    before = [row for row in rows if row is not at and row.ended < end and not row.is_weak]
    reshaped = (row for row in before if row.is_reshaped and not _is_far(row, False, 0.0))
    first = next(reshaped, None)
    if first is None:
        return parting
    after = [row for row in before if row.began > first.ended]
    if any(each is not None for row in after for each in (row.inputs, row.outputs)):
        return parting
    return Parting("module", first)


def _is_undone(
    rows: Sequence[Row], row: Row, reordered: Reordered, worst: float, is_beyond: bool
) -> bool:
    """Whether a module that may give another order lies in one whose outputs agree; or any, in one
    that makes up for it.
    """
    if is_beyond and _is_made_up_for(rows, row):
        return True
    if not reordered.may_hold(row.other):
        return False
    around = (one for one in rows if _is_inside(row, one) and not one.is_weak)
    return any(not (_is_far(one, False, worst) or _is_far(one, True, worst)) for one in around)


def _is_made_up_for(rows: Sequence[Row], row: Row) -> bool:
    """Whether a module around one agrees within the rounding of a single one, by far closer."""
    return any(
        one.outputs is not None
        and row.outputs is not None
        and MADE_UP * one.outputs <= row.outputs < inf
        and one.outputs <= one.floors[1]
        and not _is_far(one, False, 0.0)
        for one in rows
        if _is_inside(row, one) and not one.is_weak
    )


def _is_beside(rows: Sequence[Row], row: Row, reordered: Row) -> bool:
    """Whether a call is inside of the innermost one that is around another."""
    around = [one for one in rows if _is_inside(reordered, one) and not one.is_weak]
    inner = max(around, key=lambda one: one.began, default=None)
    return inner is None or _is_inside(row, inner)


def _is_inside(row: Row, other: Row) -> bool:
    return other.began < row.began and row.ended < other.ended


def _is_far(row: Row, is_output: bool, worst: float) -> bool:
    apart = row.outputs if is_output else row.inputs
    return apart is None or apart > max(row.floors[is_output], JUMP * worst)


def _by_code(rows: Sequence[Row], at: Row) -> Parting:
    """A module gets other inputs though all before agree: it is the code around it."""
    around = [row for row in rows if _is_inside(at, row)]
    inner = max(around, key=lambda row: row.began, default=None)
    return Parting("code", inner, at) if inner else Parting("code", at, at)


def drift_of(rows: Sequence[Row]) -> Parting | None:
    """Where outputs are too far apart though they diverge nowhere: the module that adds most."""
    last = rows[-1] if rows else None
    if last is None or last.outputs is None or last.outputs <= limit_of(last.floors[1]):
        return None
    grown = [row for row in rows if row.outputs and row.inputs and row is not last]
    row = max(grown, key=lambda row: (row.outputs or 0) / (row.inputs or 1), default=last)
    return Parting("drift", row)
