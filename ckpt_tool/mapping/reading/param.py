"""One parameter from its YAML: a number, nothing (then only `--set` gives it), or where it comes
from.
"""

import re

from ckpt_tool.keys import Matcher
from ckpt_tool.mapping.formulas import Formula, FormulaError, parse_formula
from ckpt_tool.mapping.reading.patterns import Reading, read_selector
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
    param = None
    if isinstance(node, MappingNode) and node.entries:
        param = _from_fields(reading, name, node)
    if param is None and len(reading.problems) == before:
        ways = (
            "`from:` (a key of config.json), `dim: [KEY, 0]`, `count: PATTERN`, "
            "`value: FORMULA` or `default:`"
        )
        reading.add("bad-param", f"`{name.text}` is a number, or has {ways}", name.where)
    return param


def _from_fields(reading: Reading, name: Scalar, node: MappingNode) -> Param | None:
    """The parameter that the fields make; None where one of them is unknown or makes no sense."""
    of_target = _is_of_target(node.get("of"))
    dimension = _dimension(node.get("dim"))
    count = _counted(reading, node.get("count"), is_source=not of_target)
    default = integer(node.get("default"))
    formula = _formula(reading, name, node.get("value"))
    given = {key.text for key, _ in node.entries}
    read = {"dim": dimension, "count": count, "default": default, "value": formula}
    are_read = all(value is not None for field, value in read.items() if field in given)
    if given - set(FIELDS) or not are_read or of_target is None:
        return None
    return Param(
        name.text,
        name.where,
        config_keys=_texts(node.get("from")),
        dimension=dimension,
        default=default,
        count=count,
        of_target=of_target,
        formula=formula,
    )


def _is_of_target(node: Node | None) -> bool | None:
    """Whether `of:` names the target; None where it names neither side."""
    if node is None:
        return False
    sides = {"source": False, "target": True}
    return sides.get(node.text) if isinstance(node, Scalar) else None


def _counted(reading: Reading, node: Node | None, is_source: bool) -> Matcher | None:
    """What counts the keys of a pattern."""
    selector = read_selector(reading, node, is_source) if isinstance(node, Scalar) else None
    return selector.matcher if selector else None


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
