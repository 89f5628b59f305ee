"""Rules as lines of YAML: what the reader of rule files reads back as the same rule."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import ckpt_tool.ops

if TYPE_CHECKING:
    from ckpt_tool.ops import Op


def rule_line(sources: Sequence[str], targets: Sequence[str], ops: Sequence[Op] = ()) -> str:
    """One rule from the texts of its patterns: the short form for one pattern on each side, else
    the long one, on three lines.
    """
    argument = ckpt_tool.ops.ops_argument(ops)
    # In the short form, what follows a colon and a space would be read as ops.
    if len(sources) != 1 or len(targets) != 1 or ": " in f"{sources[0]} {targets[0]}":
        parts = {"from": sources, "to": targets, "ops": argument}
        return "\n    ".join(
            f"{name}: {flow(part[0] if len(part) == 1 else part)}" for name, part in parts.items()
        )
    head = f"{sources[0]} -> {targets[0]}"
    return (
        scalar(head)
        if not ops
        else f"{scalar(head)}: {flow(argument[0] if len(argument) == 1 else argument)}"
    )


def scalar(text: str) -> str:
    """A plain YAML scalar where that is safe, else a quoted one."""
    is_plain = (
        text[:1].isalnum()
        and not any(mark in text for mark in (": ", " #", "\\", '"', "\n"))
        and not text.endswith(":")
    )
    return text if is_plain and text.isprintable() and text == text.strip() else _quoted(text)


def _quoted(text: str) -> str:
    return escaped(json.dumps(text, ensure_ascii=False))


def escaped(text: str) -> str:
    """The text with what can't be printed written as YAML has it between quotes: fit for a
    terminal, and for a comment.
    """
    return (
        text
        if text.isprintable()
        else "".join([mark if mark.isprintable() else _escape(ord(mark)) for mark in text])
    )


def _escape(code: int) -> str:
    return (
        f"\\x{code:02x}"
        if code < 1 << 8
        else f"\\u{code:04x}"
        if code < 1 << 16
        else f"\\U{code:08x}"
    )


def flow(value: object) -> str:
    """A value in YAML's flow style; a bare name stays bare."""
    if value is None:
        return "~"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{flow(key)}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    if isinstance(value, str) and not value.replace("_", "").isalnum():
        return _quoted(value)
    return str(value).lower() if isinstance(value, bool) else str(value)
