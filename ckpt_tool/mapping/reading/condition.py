"""One condition of a `when:` block from its YAML, as `has: KEY`, `ndim: [KEY, 2]`,
`shape: [KEY, [1, ~]]`, `dtype: [KEY, BF16]`.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from ckpt_tool.mapping.reading.patterns import Reading, read_selector
from ckpt_tool.mapping.reading.yaml_nodes import Node, Scalar, SequenceNode
from ckpt_tool.mapping.rules import Condition
from ckpt_tool.tensors import DType

_SIZE = re.compile("[0-9]{1,18}")
_ANY_SIZE = ("~", "null")


def read_condition(reading: Reading, name: Scalar, node: Node) -> Condition | None:
    """The condition, or None after adding what is wrong with it."""
    kind = name.text
    if kind not in KINDS:
        reading.add("bad-when", f"`{kind}` is not a condition; there are {_KINDS_TEXT}", name.where)
        return None
    key, *wanted = node.items if isinstance(node, SequenceNode) and node.items else (node,)
    if not isinstance(key, Scalar) or len(wanted) != (kind in _WANTED):
        takes = "a key and what it must be" if kind in _WANTED else "a key"
        reading.add("bad-when", f"`{kind}:` takes {takes}", node.where)
        return None
    selector = read_selector(reading, key, is_source=True)
    value = _read_wanted(reading, kind, wanted[0]) if wanted else True
    if selector is None or value is None:
        return None
    return Condition(kind, selector.matcher, value, name.where)


def _read_wanted(reading: Reading, kind: str, node: Node) -> object:
    """What a key must be, as plain data; None after adding a problem."""
    wanted = _WANTED[kind]
    value = wanted.read(node)
    if value is None:
        reading.add("bad-when", f"`{kind}:` of a key is {wanted.words}", node.where)
    return value


def _read_ndim(node: Node) -> int | None:
    if not isinstance(node, Scalar) or not _SIZE.fullmatch(node.text):
        return None
    return int(node.text)


def _read_shape(node: Node) -> tuple[int | None, ...] | None:
    """The sizes, None for any."""
    if not isinstance(node, SequenceNode):
        return None
    sizes = [item.text if isinstance(item, Scalar) else "" for item in node.items]
    if not all(size in _ANY_SIZE or _SIZE.fullmatch(size) for size in sizes):
        return None
    return tuple(None if size in _ANY_SIZE else int(size) for size in sizes)


def _read_dtype(node: Node) -> DType | None:
    if not isinstance(node, Scalar):
        return None
    return next((dtype for dtype in DType if dtype.value == node.text.upper()), None)


class _Wanted(NamedTuple):
    """What a key must be: how it is read, None for what makes no sense, and what it is in words."""

    read: Callable[[Node], object]
    words: str


_WANTED = {
    "ndim": _Wanted(_read_ndim, "a number"),
    "shape": _Wanted(_read_shape, "a list of sizes, `~` for any"),
    "dtype": _Wanted(_read_dtype, "a dtype such as BF16"),
}
KINDS = ("has", "lacks", *_WANTED)
_KINDS_TEXT = ", ".join(f"`{kind}:`" for kind in KINDS)
