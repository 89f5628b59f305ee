"""The YAML shape of a rule: `SOURCE -> TARGET`, `SOURCE -> TARGET: OPS`, or
`{from: [...], to: [...], ops: ...}`; and what to write instead of anything else.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeGuard

from ckpt_tool.errors import Location
from ckpt_tool.frozen import frozen
from ckpt_tool.keys.quoting import arrows, trim
from ckpt_tool.mapping.reading.misread import instead_of_node, instead_of_text
from ckpt_tool.mapping.reading.patterns import PatternText, Reading
from ckpt_tool.mapping.reading.yaml_nodes import (
    QUOTES,
    MappingNode,
    Node,
    Scalar,
    SequenceNode,
    plain_data,
    read_yaml,
)
from ckpt_tool.ops import Op, OpError, parse_ops

LONG_FORM = ("from", "to", "ops")


@frozen
class RuleShape:
    """A rule as it is written: the texts of its patterns, not read yet, and its ops."""

    text: str
    sources: tuple[PatternText, ...]
    targets: tuple[PatternText, ...]
    ops: tuple[Op, ...]
    where: Location


def read_shape(reading: Reading, node: Node) -> RuleShape | None:
    """The shape of a rule, or None after adding what is wrong with it to `reading.problems`."""
    if isinstance(node, Scalar):
        node = _with_ops(node)
    if isinstance(node, Scalar):
        return _short(reading, node, ())
    if _is_long(node):
        return _long(reading, node)
    if _is_short_with_ops(node):
        head, argument = node.entries[0]
        ops = _ops(reading, argument)
        return None if ops is None else _short(reading, head, ops)
    message = "a rule reads `SOURCE -> TARGET` or `SOURCE -> TARGET: OPS`"
    reading.add("bad-rule", message, node.where, instead_of_node(node) or QUOTES)
    return None


def _is_long(node: Node) -> TypeGuard[MappingNode]:
    return isinstance(node, MappingNode) and any(
        key.text in ("from", "to") for key, _ in node.entries
    )


def _is_short_with_ops(node: Node) -> TypeGuard[MappingNode]:
    return (
        isinstance(node, MappingNode)
        and len(node.entries) == 1
        and bool(arrows(node.entries[0][0].text))
    )


def _with_ops(scalar: Scalar) -> Node:
    """`'SOURCE -> TARGET: OPS'` in quotes, or on the command line, as the mapping that it would be
    without them.
    """
    found = arrows(scalar.text)
    colon = scalar.text.find(": ", found[0][0]) if found else -1
    if colon < 0:
        return scalar
    ops = read_yaml(scalar.text[colon + 1 :], scalar.source.file, scalar.inside(colon + 1))
    entry = replace(scalar, text=scalar.text[:colon]), ops or replace(scalar, text="")
    return MappingNode((entry,), scalar.line, scalar.column, False, scalar.source)


def _short(reading: Reading, scalar: Scalar, ops: tuple[Op, ...]) -> RuleShape | None:
    sides = _split_at_arrow(scalar)
    if sides is None:
        message = "a rule reads `SOURCE -> TARGET`, with one arrow"
        reading.add("bad-rule", message, scalar.where, instead_of_text(scalar.text) or None)
        return None
    source, target = sides
    if not target.text:
        message = "nothing is right of the arrow; list keys to leave behind under `drop:`"
        reading.add("bad-rule", message, scalar.where)
        return None
    sources = (source,) if source.text else ()
    return RuleShape(scalar.text, sources, (target,), ops, scalar.where)


def _split_at_arrow(scalar: Scalar) -> tuple[PatternText, PatternText] | None:
    """The texts before and after the one arrow; None where there is no arrow, or several."""
    found = arrows(scalar.text)
    if len(found) != 1:
        return None
    ((start, end),) = found
    return _trimmed(scalar, 0, start), _trimmed(scalar, end, len(scalar.text))


def _trimmed(scalar: Scalar, start: int, end: int) -> PatternText:
    """Characters `start` to `end` without the spaces around them."""
    text = scalar.text[start:end]
    return PatternText(scalar, start + len(text) - len(text.lstrip()), trim(text))


def _long(reading: Reading, node: MappingNode) -> RuleShape | None:
    if not _has_fields(reading, node):
        return None
    ops = _ops(reading, node.get("ops"))
    sources, targets = (_texts_of(reading, node.get(name)) for name in ("from", "to"))
    if targets == ():
        message = "`to:` names no target; what is to be left behind is listed under `drop:`"
        reading.add("bad-rule", message, node.where)
    if ops is None or sources is None or not targets:
        return None
    text = f"{_joined(sources)} -> {_joined(targets)}".lstrip()
    return RuleShape(text, sources, targets, ops, node.where)


def _has_fields(reading: Reading, node: MappingNode) -> bool:
    """Whether `from:` and `to:` are there, and nothing unknown; a problem where not."""
    unknown = [key for key, _ in node.entries if key.text not in LONG_FORM]
    is_sound = not unknown and all(node.get(name) is not None for name in ("from", "to"))
    if not is_sound:
        message = "the long form of a rule has `from:`, `to:` and `ops:`"
        reading.add("bad-rule", message, unknown[0].where if unknown else node.where)
    return is_sound


def _joined(side: Iterable[PatternText]) -> str:
    return " + ".join(each.text for each in side)


def _texts_of(reading: Reading, node: Node | None) -> tuple[PatternText, ...] | None:
    """The patterns of `from:` or `to:`, one or a list of them."""
    items = node.items if isinstance(node, SequenceNode) else (node,)
    texts = tuple(PatternText(item, 0, item.text) for item in items if isinstance(item, Scalar))
    if len(texts) < len(items):
        message = "`from:` and `to:` are patterns or lists of patterns"
        where = node.where if node else Location("", 1, 1)
        reading.add("bad-rule", message, where, QUOTES)
        return None
    return texts


def _ops(reading: Reading, node: Node | None) -> tuple[Op, ...] | None:
    """The ops behind the colon, none where nothing stands there; None after adding a problem."""
    if node is None or (isinstance(node, Scalar) and not node.text and not node.is_quoted):
        return ()
    try:
        return parse_ops(plain_data(node))
    except OpError as error:
        reading.add("bad-op", str(error), node.where)
        return None
