"""What is left when nearly all is paired: modules whose tensors only one module of the other side
can take.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import product

from ckpt_tool.align.matching.similarity import Candidate
from ckpt_tool.align.naming.modules import ModuleTensors
from ckpt_tool.align.naming.vocabulary import WEIGHT
from ckpt_tool.tensors import Shape

Sides = tuple[Sequence[ModuleTensors], Sequence[ModuleTensors]]

MAX_LEFT = 0.25
"""The share of modules that may be left for what remains to say anything."""
MIN_SIMILARITY = 0.8
_COMMON = frozenset(
    {"fc", "conv", "project", "norm", "block", "stage", "weight", "embed", "in", "out"}
)
"""Words that say what kind of module it is, not which."""


def remaining(
    modules: Sides,
    left: tuple[Collection[str], Collection[str]],
    similarities: Mapping[Candidate, float],
    paired: Collection[Candidate],
) -> list[Candidate]:
    """Pairs of modules that are left, fit each other alone, and share a word, stand at one place, or
    have a vocabulary's shape.
    """
    free = [
        {module.place for module in side if all(key in keys for key in module.keys.values())}
        for side, keys in zip(modules, left, strict=True)
    ]
    if (
        min(len(places) / max(1, len(side)) for places, side in zip(free, modules, strict=True))
        > MAX_LEFT
    ):
        return []
    source, target = defaultdict(list), defaultdict(list)
    for i, j in similarities:
        if i in free[0] and j in free[1]:
            source[i].append(j)
            target[j].append(i)
    found = [
        (i, others[0])
        for i, others in source.items()
        if len(others) == 1 and len(target[others[0]]) == 1
    ]
    known, tables = set(paired), _tables(modules, paired)
    return [
        candidate
        for candidate in found
        if similarities[candidate] >= MIN_SIMILARITY and _belong(modules, candidate, known, tables)
    ]


def _tables(modules: Sides, paired: Collection[Candidate]) -> set[Shape]:
    """The shapes of paired embeddings of words, which a head over the vocabulary has too."""
    return {
        shape
        for i, _ in paired
        if {"embed", "token"} <= (module := modules[0][i]).words
        for role, shape in module.shapes
        if role == WEIGHT
    }


def _belong(
    modules: Sides, candidate: Candidate, paired: Collection[Candidate], tables: Collection[Shape]
) -> bool:
    a, b = modules[0][candidate[0]], modules[1][candidate[1]]
    shared = {word for word in a.near & b.near if word[0] != "="}
    beside = {
        (x, y)
        for x, y in product((-1, 1), repeat=2)
        if (candidate[0] + x, candidate[1] + y) in paired
    }
    if _is_norm(a):
        return "norm" in shared or bool(beside)
    is_head = any(shape in tables for role, shape in a.shapes if role == WEIGHT)
    return bool(shared - _COMMON) or is_head or len(beside) > 1


def _is_norm(module: ModuleTensors) -> bool:
    return all(len(shape) < 2 for _, shape in module.shapes)
