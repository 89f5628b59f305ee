"""How a tensor of one shape becomes one of another: not at all, with or without ones, transposed. Decided for all leaves of a kind."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import prod

from ckpt_tool.ops import Op, parse_ops
from ckpt_tool.tensors import Catalog, Shape

_PERMUTED = {2: ("transpose",), 3: ("a b c -> c b a",), 4: ("o i h w -> h w i o", "h w i o -> o i h w")}
_ORDERS = {"transpose": (1, 0), "a b c -> c b a": (2, 1, 0), "o i h w -> h w i o": (2, 3, 1, 0), "h w i o -> o i h w": (3, 2, 0, 1)}

Copies = Mapping[str, str]
"""Source keys by target key."""


def reforms(copies: Copies, source: Catalog, target: Catalog) -> dict[str, tuple[Op, ...]]:
    """The ops for each target key; those that no op leads to are left out.

    A square matrix says nothing of whether it is transposed: the others of its kind do. A kind is the last names of both keys.
    """
    kinds: dict[object, list[str]] = defaultdict(list)
    for key, origin in copies.items():
        kinds[_last(origin), _last(key), len(source[origin].shape)].append(key)
    found: dict[str, tuple[Op, ...]] = {}
    for keys in kinds.values():
        shapes = [(source[copies[key]].shape, target[key].shape) for key in keys]
        turn = _permutation(shapes)
        for key, (ours, theirs) in zip(keys, shapes, strict=True):
            ops = _ops(ours, theirs, turn)
            if ops is not None:
                found[key] = ops
    return found


def _last(key: str) -> str:
    return key.replace("/", ".").rpartition(".")[2]


def _permutation(shapes: Sequence[tuple[Shape, Shape]]) -> str | None:
    """The permutation that all of a kind go through, if some of them need one."""
    if all(_squeezed(ours) == _squeezed(theirs) for ours, theirs in shapes):
        return None
    for text in _PERMUTED.get(len(shapes[0][0]), ()):
        if all(_squeezed(_permuted(ours, text)) == _squeezed(theirs) for ours, theirs in shapes):
            return text
    return None


def _permuted(shape: Shape, text: str) -> Shape:
    return tuple(shape[axis] for axis in _ORDERS[text])


def _squeezed(shape: Shape) -> Shape:
    return tuple(size for size in shape if size != 1)


def _ones(ours: Shape, theirs: Shape) -> str:
    """The pattern that adds and takes away ones: `a b -> a b 1 1`."""
    sides = []
    for shape in (ours, theirs):
        names = iter("abcdefghijklmnop")
        sides.append(" ".join("1" if size == 1 else next(names) for size in shape))
    return " -> ".join(sides)


def _ops(ours: Shape, theirs: Shape, turn: str | None) -> tuple[Op, ...] | None:
    ops: list[object] = []
    shape = ours
    if turn is not None:
        ops.append(turn if turn == "transpose" else {"rearrange": turn})
        shape = _permuted(ours, turn)
    if shape == theirs:
        return parse_ops(ops)
    if _squeezed(shape) == _squeezed(theirs) and prod(shape) == prod(theirs):
        return parse_ops([*ops, {"rearrange": _ones(shape, theirs)}])
    return None
