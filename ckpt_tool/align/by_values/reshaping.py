"""Ops that only change a tensor's shape: ones added and taken away, rows laid open along dimension
0 and put back.
"""

from __future__ import annotations

from ckpt_tool.align.by_values.fingerprints import has_blocks, plain_shape
from ckpt_tool.tensors import Shape

Plain = list[object]
"""Ops as plain data, as a rule has them."""


def reshaped(source: Shape, target: Shape) -> Plain:
    """The ops from a shape to another of as many elements, in the same order.

    >>> reshaped((8, 4), (8, 4, 1, 1))
    [{'rearrange': 'a b -> a b 1 1'}]
    >>> reshaped((8, 4), (4, 8))
    [{'reshape': [4, 8]}]
    >>> reshaped((1,), ())
    [{'reshape': []}]
    """
    if source == target:
        return []
    if source and target and plain_shape(source) == plain_shape(target):
        return [{"rearrange": f"{_axes(source)} -> {_axes(target)}"}]
    return [{"reshape": list(target)}]


def _axes(shape: Shape) -> str:
    names = iter("abcdefghijklmnop")
    return " ".join("1" if size == 1 else next(names) for size in shape)


def opened(shape: Shape, is_turned: bool) -> tuple[Plain, Shape]:
    """The ops after which a tensor's rows lie along dimension 0 (turned: its columns), and the
    shape then: `(rows, …)`, of stacked matrices `(e r, c)`.

    >>> opened((8, 4), is_turned=True)
    (['transpose'], (4, 8))
    >>> opened((2, 8, 64), is_turned=False)
    ([{'rearrange': 'e r c -> (e r) c'}], (16, 64))
    """
    plain = plain_shape(shape)
    if not is_turned and not is_stack(plain) and shape[0] == plain[0]:
        return [], shape
    ops, turned = reshaped(shape, plain), plain
    if is_turned:
        ops, turned = [*ops, *_turn(plain)], _turned(plain)
    if is_stack(plain):
        ops, turned = [*ops, {"rearrange": "e r c -> (e r) c"}], (turned[0] * turned[1], turned[2])
    return ops, turned


def closed(shape: Shape, is_turned: bool) -> Plain:
    """The ops that undo `opened` for a tensor of this shape.

    >>> closed((2, 8, 64), is_turned=False)
    [{'rearrange': '(e r) c -> e r c', 'e': 2}]
    """
    ops: Plain = []
    plain = plain_shape(shape)
    if not is_turned and not is_stack(plain):
        return []
    if is_stack(plain):
        ops.append({"rearrange": "(e r) c -> e r c", "e": plain[0]})
    if is_turned:
        ops += _turn(plain)
    return [*ops, *reshaped(plain, shape)]


def turn_of(shape: Shape) -> Plain:
    """The ops that make a tensor's rows its columns: `(r, c) -> (c, r)`, of stacked matrices
    `(e, r, c) -> (e, c, r)`, of a kernel `(o, i, …) -> (i, o, …)`.

    >>> turn_of((8, 4)), turn_of((8, 4, 3, 3))
    (['transpose'], [{'transpose': [0, 1]}])
    """
    return _turn(plain_shape(shape))


def is_stack(plain: Shape) -> bool:
    """Whether it is matrices, stacked."""
    return len(plain) == 3 and has_blocks(plain)


def _turn(plain: Shape) -> Plain:
    return ["transpose"] if len(plain) == 2 or is_stack(plain) else [{"transpose": [0, 1]}]


def _turned(plain: Shape) -> Shape:
    return (plain[0], plain[2], plain[1]) if is_stack(plain) else (plain[1], plain[0], *plain[2:])


def simplified(ops: Plain) -> Plain:
    """Ops without what undoes itself: turned, cut along dimension 0 and turned back is cut along
    dimension 1.

    >>> simplified(["transpose", {"split": 0}, "transpose"])
    [{'split': 1}]
    """
    if (
        len(ops) == 3
        and ops[0] == ops[2] in ("transpose", {"transpose": [0, 1]})
        and isinstance(ops[1], dict)
    ):
        ((name, argument),) = list(ops[1].items()) if len(ops[1]) == 1 else [("", None)]
        if name in ("split", "concat") and argument == 0:
            return [{name: 1}]
        if name in ("split", "slice") and isinstance(argument, dict):
            return [{name: {**argument, "dim": 1}}]
    return ops
