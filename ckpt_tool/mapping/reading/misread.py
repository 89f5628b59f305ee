"""What people write where a rule should stand, and what to write instead."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ckpt_tool.mapping.reading.yaml_nodes import Node

_OTHER_ARROWS = re.compile(r"(\S+?)(?:\s*(?:=+>|:=|:\s)\s*|\s+[=:,>]?\s*)(\S+)")
_AND_OPS = re.compile(r"(\S+?(?:\s*(?:=+>|:=)\s*|\s+[=,>]?\s*)\S+?)\s*:\s+(.+)", re.DOTALL)
_SUBSTITUTION = re.compile(r"s([/|#,!]).*\1.*\1[a-z]*")
_EXPRESSION = re.compile(r"\\[dwsDWSAZb.]|[(][^)]*[)]|\[[^\]]*[-^][^\]]*\]|^\^|\$$|\.[+?]")
NO_EXPRESSIONS = (
    "patterns are of whole keys, and no regular expressions: "
    "`*` is one name, `**` several, `{i}` a number, `{q,k}` a choice"
)

_RULE_FILE = re.compile(r"\S+\.ya?ml")


def instead_of_text(text: str, ops: str = "") -> str | None:
    """What to write instead of a text without an arrow, or with several; `ops` stand behind it."""
    if not ops and (found := _AND_OPS.fullmatch(text.strip())):
        return instead_of_text(found[1], found[2])
    if _RULE_FILE.fullmatch(text.strip()):
        return f"a rule file is given with `--rules {text.strip()}`"
    if _SUBSTITUTION.fullmatch(text):
        instead = "a rule is not a substitution but has both names, as in `model.** -> **`"
        return f"{instead}; {NO_EXPRESSIONS}"
    if (found := _OTHER_ARROWS.fullmatch(text.strip())) and "->" not in text:
        return f"write `{found[1]} -> {found[2]}{f': {ops}' if ops else ''}`"
    return NO_EXPRESSIONS if looks_like_an_expression(text) else None


def instead_of_node(node: Node) -> str | None:
    """What to write instead of `{a: b}`, one name to another, or of `{a => b: OPS}`."""
    from ckpt_tool.mapping.reading.writing import flow
    from ckpt_tool.mapping.reading.yaml_nodes import MappingNode, Scalar, plain_data

    if not isinstance(node, MappingNode) or len(node.entries) != 1:
        return None
    ((name, value),) = node.entries
    text = value.text if isinstance(value, Scalar) else flow(plain_data(value))
    if instead := instead_of_text(name.text, text):
        return instead
    return f"write `{name.text} -> {text}`" if isinstance(value, Scalar) and text else None


def looks_like_an_expression(text: str) -> bool:
    """Whether a pattern has marks of a regular expression, which mean nothing here."""
    return _EXPRESSION.search(text) is not None
