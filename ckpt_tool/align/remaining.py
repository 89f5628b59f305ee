"""What is left when nearly all is paired: modules whose tensors only one module of the other side can take."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from ckpt_tool.align.likeness import Cell
from ckpt_tool.align.units import Unit

MOST_LEFT = 0.25
"""The share of units that may be left for what remains to say anything."""
LEAST_LIKE = 0.8


def remaining(
    units: tuple[Sequence[Unit], Sequence[Unit]],
    left: tuple[Collection[str], Collection[str]],
    forms: Mapping[Cell, float],
    heads: Collection[object],
) -> list[Cell]:
    """Pairs of units that are left, fit each other alone, and share a word or have the shape of a vocabulary."""
    free = tuple({unit.place for unit in side if all(key in keys for key in unit.keys.values())} for side, keys in zip(units, left, strict=True))
    if min(len(places) / max(1, len(side)) for places, side in zip(free, units, strict=True)) > MOST_LEFT:
        return []
    ours, theirs = defaultdict(list), defaultdict(list)
    for i, j in forms:
        if i in free[0] and j in free[1]:
            ours[i].append(j)
            theirs[j].append(i)
    found = [(i, others[0]) for i, others in ours.items() if len(others) == 1 and len(theirs[others[0]]) == 1]
    return [(i, j) for i, j in found if forms[i, j] >= LEAST_LIKE and _belong(units[0][i], units[1][j], heads)]


def _belong(a: Unit, b: Unit, heads: Collection[object]) -> bool:
    shared = {word for word in a.near & b.near if word[0] != "="}
    return bool(shared) or (a.form in heads and b.form in heads)
