"""One parameter from its YAML: a number, nothing (then only `--set` gives it), or where it comes
from.
"""

import re

from ckpt_tool.mapping.formulas import Formula, FormulaError, parse_formula
from ckpt_tool.mapping.reading.rule import Reading, read_selector
from ckpt_tool.mapping.reading.yaml_nodes import MappingNode, Node, Scalar, SequenceNode
from ckpt_tool.mapping.rules import Param

FIELDS = ("from", "dim", "count", "of", "value", "default")
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")


def integer(node: Node | None) -> int | None:
    """A whole number that is written without quotes."""
    return (
        int(node.text)
        if isinstance(node, Scalar) and not node.is_quoted and _INTEGER.fullmatch(node.text)
        else None
    )


def read_param(reading: Reading, name: Scalar, node: Node) -> Param | None:
    """The parameter, or None after adding what is wrong with it."""
    if isinstance(node, Scalar) and node.text in ("", "~", "null"):
        return Param(name.text, name.where)
    if (number := integer(node)) is not None:
        return Param(name.text, name.where, default=number)
    before = len(reading.problems)
    param = (
        _from_fields(reading, name, node)
        if isinstance(node, MappingNode) and node.entries
        else None
    )
    if param is None and len(reading.problems) == before:
        ways = "`from:` (a key of config.json), `dim: [KEY, 0]`, `count: PATTERN`, `value: FORMULA` or `default:`"
        reading.add("bad-param", f"`{name.text}` is a number, or has {ways}", name.where)
    return param


def _from_fields(reading: Reading, name: Scalar, node: MappingNode) -> Param | None:
    side, dim, counted, default = (node.get(field) for field in ("of", "dim", "count", "default"))
    dimension, number = _dimension(dim), integer(default)
    is_target = isinstance(side, Scalar) and side.text == "target"
    selector = (
        read_selector(reading, counted, not is_target) if isinstance(counted, Scalar) else None
    )
    formula = _formula(reading, name, node.get("value"))
    parts = ((dim, dimension), (counted, selector), (default, number), (node.get("value"), formula))
    is_whole = all(value is not None for given, value in parts if given is not None)
    is_sided = side is None or (isinstance(side, Scalar) and side.text in ("source", "target"))
    if {key.text for key, _ in node.entries} - set(FIELDS) or not is_whole or not is_sided:
        return None
    keys = _texts(node.get("from"))
    return Param(
        name.text,
        name.where,
        keys,
        dimension,
        number,
        selector.matcher if selector else None,
        is_target,
        formula,
    )


def _texts(node: Node | None) -> tuple[str, ...]:
    items = node.items if isinstance(node, SequenceNode) else (node,)
    return tuple(item.text for item in items if isinstance(item, Scalar))


def _dimension(node: Node | None) -> tuple[str, int] | None:
    items = node.items if isinstance(node, SequenceNode) else ()
    axis = integer(items[1]) if len(items) == 2 else None
    return (items[0].text, axis) if axis is not None and isinstance(items[0], Scalar) else None


def _formula(reading: Reading, name: Scalar, node: Node | None) -> Formula | None:
    """The formula, of params that are declared above."""
    if not isinstance(node, Scalar):
        return None
    try:
        formula = parse_formula(node.text)
    except FormulaError as error:
        reading.add("bad-param", str(error), node.where)
        return None
    if unknown := [each for each in formula.names if each not in reading.params]:
        reading.add(
            "bad-param",
            f"`{name.text}` needs `{unknown[0]}`, which is not declared above it",
            node.where,
        )
        return None
    return formula
