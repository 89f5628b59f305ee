"""One condition of a `when:` block from its YAML, as `has: KEY`, `ndim: [KEY, 2]`,
`shape: [KEY, [1, ~]]`, `dtype: [KEY, BF16]`.
"""

import re

from ckpt_tool.mapping.reading.rule import Reading, read_selector
from ckpt_tool.mapping.reading.yaml_nodes import Node, Scalar, SequenceNode
from ckpt_tool.mapping.rules import Condition
from ckpt_tool.tensors import DType

_SIZE = re.compile("[0-9]{1,18}")
KINDS = ("has", "lacks", "ndim", "shape", "dtype")


def read_condition(reading: Reading, name: Scalar, node: Node) -> Condition | None:
    """The condition, or None after adding what is wrong with it."""
    if name.text not in KINDS:
        reading.add(
            "bad-when",
            f"`{name.text}` is no condition; there are {', '.join(f'`{kind}:`' for kind in KINDS)}",
            name.where,
        )
        return None
    parts = node.items if isinstance(node, SequenceNode) else (node,)
    if len(parts) != (1 if name.text in ("has", "lacks") else 2) or not isinstance(
        parts[0], Scalar
    ):
        reading.add(
            "bad-when",
            f"`{name.text}:` takes a key{'' if name.text in ('has', 'lacks') else ' and what it must be'}",
            node.where,
        )
        return None
    selector = read_selector(reading, parts[0], is_source=True)
    wanted = _wanted(name.text, parts[-1])
    if wanted is None:
        reading.add("bad-when", f"`{name.text}:` of a key is {WANTED[name.text]}", parts[-1].where)
    return (
        Condition(name.text, selector.matcher, wanted, name.where)
        if selector and wanted is not None
        else None
    )


WANTED = {
    "ndim": "a number",
    "shape": "a list of sizes, `~` for any",
    "dtype": "a dtype such as BF16",
}


def _wanted(kind: str, node: Node) -> object:
    """The value of a condition as plain data; None for one that makes no sense."""
    if kind in ("has", "lacks"):
        return True
    if kind == "shape" and isinstance(node, SequenceNode):
        sizes = [item.text if isinstance(item, Scalar) else "" for item in node.items]
        is_shape = all(size in ("~", "null") or _SIZE.fullmatch(size) for size in sizes)
        return (
            tuple(None if size in ("~", "null") else int(size) for size in sizes)
            if is_shape
            else None
        )
    if kind == "ndim" and isinstance(node, Scalar) and _SIZE.fullmatch(node.text):
        return int(node.text)
    if kind == "dtype" and isinstance(node, Scalar):
        return next((dtype for dtype in DType if dtype.value == node.text.upper()), None)
    return None
