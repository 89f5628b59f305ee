"""How a tensor of one shape becomes one of another: not at all, with or without ones, transposed.
Decided for all leaves of a kind.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from math import prod

from ckpt_tool.ops import Op, parse_ops
from ckpt_tool.tensors import Catalog, Shape

_PERMUTED = {
    2: ("transpose",),
    3: ("a b c -> c b a",),
    4: ("o i h w -> h w i o", "h w i o -> o i h w"),
}
_ORDERS = {
    "transpose": (1, 0),
    "a b c -> c b a": (2, 1, 0),
    "o i h w -> h w i o": (2, 3, 1, 0),
    "h w i o -> o i h w": (3, 2, 0, 1),
}

Copies = Mapping[str, str]
"""Source keys by target key."""
Kind = tuple[str, str, int]
"""Keys of both sides without their numbers, and the source's rank."""


MOST, FEWER = 0.9, 0.67
"""The share of matrices that have an equal one on the other side, and what share of these may have
a transposed one, for `are_straight`.
"""


def are_straight(source: Catalog, target: Catalog) -> bool:
    """Whether both sides hold the same matrices as they are, and clearly fewer if one side's were
    transposed.
    """
    from_source, from_target = (
        Counter(
            each.shape
            for each in side.values()
            if len(each.shape) == 2 and each.shape[0] != each.shape[1]
        )
        for side in (source, target)
    )
    straight = (from_source & from_target).total()
    transposed = (
        from_source & Counter({shape[::-1]: count for shape, count in from_target.items()})
    ).total()
    is_likely = (
        straight >= max(1, MOST * min(from_source.total(), from_target.total()))
        and transposed <= FEWER * straight
    )
    return is_likely and _has_kernels(source) == _has_kernels(target)


def _has_kernels(catalog: Catalog) -> bool:
    return any(key.endswith(("/kernel", ".kernel")) for key in catalog)


def layout_changes(
    copies: Copies, source: Catalog, target: Catalog
) -> tuple[dict[str, tuple[Op, ...]], set[str]]:
    """The ops for each target key, those that no op leads to left out; and the keys of which it
    isn't sure.

    A square matrix says nothing of whether it is transposed: the others around it do, then all
    others of the file.
    """
    kinds: dict[Kind, list[str]] = defaultdict(list)
    for key, origin in copies.items():
        kinds[numberless(origin), numberless(key), len(source[origin].shape)].append(key)
    permutations = {
        kind: _permutations([(source[copies[key]].shape, target[key].shape) for key in keys])
        for kind, keys in kinds.items()
    }
    found: dict[str, tuple[Op, ...]] = {}
    unsure: set[str] = set()
    straight = are_straight(source, target)
    for kind, keys in kinds.items():
        permutation, is_sure = (
            (None, True)
            if straight and kind[2] == 2 and None in permutations[kind]
            else _chosen(kind, permutations)
        )
        for key in keys:
            ops = _ops(source[copies[key]].shape, target[key].shape, permutation)
            if ops is not None:
                found[key] = ops
            if not is_sure:
                unsure.add(key)
    return found, unsure


def numberless(key: str) -> str:
    return re.sub(r"\d+", "#", key.replace("/", "."))


def _chosen(
    kind: Kind, permutations: Mapping[Kind, Sequence[str | None]]
) -> tuple[str | None, bool]:
    """What a kind goes through: what its shapes say; else what all kinds around it do, or all of
    the file; and whether that is sure.
    """
    if len(permutations[kind]) == 1:
        return permutations[kind][0], True
    decided = {
        other: ways[0]
        for other, ways in permutations.items()
        if len(ways) == 1 and other[2] == kind[2] and not _is_table(other)
    }
    around = {
        permutation for other, permutation in decided.items() if _parents(other) == _parents(kind)
    }
    alike = {
        permutation for other, permutation in decided.items() if _leaves(other) == _leaves(kind)
    }
    for said in (around, alike):
        if len(said) == 1 and (permutation := next(iter(said))) in permutations[kind]:
            return permutation, True
    if _leaves(kind) == ("weight", "kernel") or _leaves(kind) == ("kernel", "weight"):
        return permutations[kind][-1], True
    return permutations[kind][0], kind[2] != 2 or _leaves(kind)[0] == _leaves(kind)[1] or _is_table(
        kind
    )


def _is_table(kind: Kind) -> bool:
    """Embeddings are never transposed."""
    return any(
        word in key
        for key in kind[:2]
        for word in ("embed", "token", "position", "pos_", "wte", "wpe", "table")
    )


def _parents(kind: Kind) -> tuple[str, str]:
    """The blocks that two modules stand in: what is before the last number."""
    return kind[0].rpartition("#")[0], kind[1].rpartition("#")[0]


def _leaves(kind: Kind) -> tuple[str, ...]:
    last = (key.rpartition(".")[2] for key in kind[:2])
    return tuple(
        leaf if leaf in ("weight", "kernel", "bias", "embedding", "scale") else "bare"
        for leaf in last
    )


def _permutations(shapes: Sequence[tuple[Shape, Shape]]) -> list[str | None]:
    """The permutations that all of a kind may go through; None: none is needed."""
    found: list[str | None] = []
    if all(_squeezed(source) == _squeezed(target) for source, target in shapes):
        found.append(None)
        if (
            len(shapes[0][0]) != 2
            or len(shapes[0][1]) != 2
            or any(1 in source for source, _ in shapes)
        ):
            return found
    for text in _PERMUTED.get(len(shapes[0][0]), ()):
        if all(
            _squeezed(_permuted(source, text)) == _squeezed(target) for source, target in shapes
        ):
            found.append(text)
            break
    return found or [None]


def _permuted(shape: Shape, text: str) -> Shape:
    return tuple(shape[axis] for axis in _ORDERS[text])


def _squeezed(shape: Shape) -> Shape:
    return tuple(size for size in shape if size != 1)


def _ones(source: Shape, target: Shape) -> str:
    """The pattern that adds and takes away ones: `a b -> a b 1 1`."""
    sides = []
    for shape in (source, target):
        names = iter("abcdefghijklmnop")
        sides.append(" ".join("1" if size == 1 else next(names) for size in shape))
    return " -> ".join(sides)


def _ops(source: Shape, target: Shape, permutation: str | None) -> tuple[Op, ...] | None:
    ops: list[object] = []
    shape = source
    if permutation is not None:
        ops.append(permutation if permutation == "transpose" else {"rearrange": permutation})
        shape = _permuted(source, permutation)
    if shape == target:
        return parse_ops(ops)
    if _squeezed(shape) == _squeezed(target) and prod(shape) == prod(target):
        return parse_ops([*ops, {"rearrange": _ones(shape, target)}])
    return None
