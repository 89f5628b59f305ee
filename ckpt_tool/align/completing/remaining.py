"""What is left when nearly all is paired: modules whose tensors only one module of the other side
can take.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import product

from ckpt_tool.align.matching.similarity import Cell
from ckpt_tool.align.naming.modules import Unit
from ckpt_tool.align.naming.vocabulary import WEIGHT
from ckpt_tool.tensors import Shape

Sides = tuple[Sequence[Unit], Sequence[Unit]]

MAX_LEFT = 0.25
"""The share of units that may be left for what remains to say anything."""
MIN_SIMILARITY = 0.8
_COMMON = frozenset(
    {"fc", "conv", "project", "norm", "block", "stage", "weight", "embed", "in", "out"}
)
"""Words that say what kind of module it is, not which."""


def remaining(
    units: Sides,
    left: tuple[Collection[str], Collection[str]],
    forms: Mapping[Cell, float],
    paired: Collection[Cell],
) -> list[Cell]:
    """Pairs of units that are left, fit each other alone, and share a word, stand at one place, or
    have a vocabulary's shape.
    """
    free = [
        {unit.place for unit in side if all(key in keys for key in unit.keys.values())}
        for side, keys in zip(units, left, strict=True)
    ]
    if (
        min(len(places) / max(1, len(side)) for places, side in zip(free, units, strict=True))
        > MAX_LEFT
    ):
        return []
    source, target = defaultdict(list), defaultdict(list)
    for i, j in forms:
        if i in free[0] and j in free[1]:
            source[i].append(j)
            target[j].append(i)
    found = [
        (i, others[0])
        for i, others in source.items()
        if len(others) == 1 and len(target[others[0]]) == 1
    ]
    known, tables = set(paired), _tables(units, paired)
    return [
        cell
        for cell in found
        if forms[cell] >= MIN_SIMILARITY and _belong(units, cell, known, tables)
    ]


def _tables(units: Sides, paired: Collection[Cell]) -> set[Shape]:
    """The shapes of paired embeddings of words, which a head over the vocabulary has too."""
    return {
        shape
        for i, _ in paired
        if {"embed", "token"} <= (unit := units[0][i]).words
        for role, shape in unit.form
        if role == WEIGHT
    }


def _belong(units: Sides, cell: Cell, paired: Collection[Cell], tables: Collection[Shape]) -> bool:
    a, b = units[0][cell[0]], units[1][cell[1]]
    shared = {word for word in a.near & b.near if word[0] != "="}
    beside = {(x, y) for x, y in product((-1, 1), repeat=2) if (cell[0] + x, cell[1] + y) in paired}
    if _is_norm(a):
        return "norm" in shared or bool(beside)
    is_head = any(shape in tables for role, shape in a.form if role == WEIGHT)
    return bool(shared - _COMMON) or is_head or len(beside) > 1


def _is_norm(unit: Unit) -> bool:
    return all(len(shape) < 2 for _, shape in unit.form)
