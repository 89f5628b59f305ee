"""How well the tensors of two modules go together, by their roles and shapes."""

from collections.abc import Mapping, Set

from ckpt_tool.align.naming.spellings import BIAS, WEIGHT
from ckpt_tool.align.weights import WEIGHTS
from ckpt_tool.tensors import Shape

ModuleShape = tuple[tuple[str, Shape], ...]
"""The shape of each of a module's tensors by role, sorted by role."""


def plain(shape: Shape) -> Shape:
    """A shape without its ones, in order of size: what reshaping and transposing keep."""
    return tuple(sorted(size for size in shape if size != 1))


def similarity(source: ModuleShape, target: ModuleShape) -> float:
    """How well two modules' tensors go together: 1 where they are the same, 0 where they can't be
    one module.
    """
    a, b = dict(source), dict(target)
    shared, lone = a.keys() & b.keys(), a.keys() ^ b.keys()
    if not shared:
        is_single = len(a) == len(b) == 1 and set(a.values()) == set(b.values())
        return WEIGHTS.single_tensor if is_single else 0.0
    if any(plain(a[role]) != plain(b[role]) for role in shared):
        return 0.0
    if "mean" in lone or _is_norm_and_token(a, b):
        return 0.0
    is_exact = all(a[role] == b[role] for role in shared)
    best = 1.0 if is_exact else WEIGHTS.reshaped
    return max(WEIGHTS.least_similarity, best - _lack(lone))


def _lack(lone: Set[str]) -> float:
    """What is taken off for roles that only one of two modules has; counters are everywhere."""
    roles = WEIGHTS.missing_role * len(lone - {BIAS, "count"})
    return roles + WEIGHTS.missing_bias * (BIAS in lone)


def _is_norm_and_token(a: Mapping[str, Shape], b: Mapping[str, Shape]) -> bool:
    """Whether one of two modules has a bias and only one of the two weights is a vector.

    A norm has a bias or not; a token that is a parameter of its own is no norm.
    """
    if WEIGHT not in a or WEIGHT not in b or (BIAS in a) == (BIAS in b):
        return False
    ranks = {len(a[WEIGHT]), len(b[WEIGHT])}
    return 1 in ranks and len(ranks) > 1
