"""What is left when nearly all is paired: modules whose tensors only one module of the other side
can take.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from itertools import product

from ckpt_tool.align.completing.unpaired import Unpaired
from ckpt_tool.align.naming.modules import Candidate, Modules, ModuleTensors
from ckpt_tool.align.naming.spellings import WEIGHT
from ckpt_tool.align.sides import Sides
from ckpt_tool.align.weights import WEIGHTS
from ckpt_tool.tensors import Shape

_COMMON = frozenset(
    {"fc", "conv", "project", "norm", "block", "stage", "weight", "embed", "in", "out"}
)
"""Words that say what kind of module it is, not which."""


def remaining(
    modules: Modules,
    unpaired: Sides[Unpaired],
    similarities: Mapping[Candidate, float],
    paired: Collection[Candidate],
) -> list[Candidate]:
    """Pairs of modules that are left, fit each other alone, and share a word, stand at one place,
    or have a vocabulary's shape.
    """
    free = unpaired.map(lambda side: side.whole())
    shares = [len(places) / max(1, len(side)) for places, side in zip(free, modules, strict=True)]
    if min(shares) > WEIGHTS.most_left:
        return []
    known, tables = set(paired), _tables(modules, paired)
    return [
        candidate
        for candidate in _alone(similarities, free)
        if similarities[candidate] >= WEIGHTS.last_similarity
        and _belong(modules, candidate, known, tables)
    ]


def _alone(candidates: Collection[Candidate], free: Sides[set[int]]) -> Iterator[Candidate]:
    """The free pairs that are the only ones of both their modules."""
    partners: dict[int, list[int]] = defaultdict(list)
    counts: dict[int, int] = defaultdict(int)
    for i, j in candidates:
        if i in free.source and j in free.target:
            partners[i].append(j)
            counts[j] += 1
    for i, others in partners.items():
        if len(others) == 1 and counts[others[0]] == 1:
            yield i, others[0]


def _tables(modules: Modules, paired: Collection[Candidate]) -> set[Shape]:
    """The shapes of paired embeddings of words, which a head over the vocabulary has too."""
    paired_modules = (modules.source[i] for i, _ in paired)
    tables = (module for module in paired_modules if {"embed", "token"} <= module.words)
    return {shape for module in tables for role, shape in module.shapes if role == WEIGHT}


def _belong(
    modules: Modules,
    candidate: Candidate,
    paired: Collection[Candidate],
    tables: Collection[Shape],
) -> bool:
    """Whether something besides their shapes speaks for the last two."""
    (i, j), (a, b) = candidate, (modules.source[candidate[0]], modules.target[candidate[1]])
    shared = {word for word in a.near & b.near if word[0] != "="}
    beside = sum((i + x, j + y) in paired for x, y in product((-1, 1), repeat=2))
    if _is_norm(a):
        return "norm" in shared or beside > 0
    is_head = any(shape in tables for role, shape in a.shapes if role == WEIGHT)
    return bool(shared - _COMMON) or is_head or beside > 1


def _is_norm(module: ModuleTensors) -> bool:
    return all(len(shape) < 2 for _, shape in module.shapes)
