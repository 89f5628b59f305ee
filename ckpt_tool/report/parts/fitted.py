"""A finished text for a terminal: lines that are too long go on below, indented, and a command so
that a shell still reads it.
"""

from __future__ import annotations

import re

from ckpt_tool.report.parts.table import COLOUR, width_of, wrapped

_MARK = re.compile(r"\s*(?:#\s+)?(?:(?:note|hint|next|left to you|error)(?:\[[^\]]*\])?: |- |= )?")
_EXCERPT = re.compile(r"\s*\d*\s*\|( |$)")
"""A line of a rule file, or the carets below it: what stands where matters."""


def fitted(text: str, width: int) -> str:
    """The text with no line longer than so many columns, but for words that are."""
    lines = text.split("\n")
    return "\n".join([part for line in lines for part in _fitted(line, width)])


def _fitted(line: str, width: int) -> list[str]:
    if len(line) <= width and line.isascii():
        return [line]
    plain = COLOUR.sub("", line)
    if width_of(plain) <= width or _EXCERPT.match(plain):
        return [line]
    if plain != line:
        return _fitted_colours(line, width)
    if line.startswith("next: "):
        return _command(line, width)
    first = _MARK.match(line)
    mark = first[0] if first else ""
    then = _then(mark)
    return wrapped(line[len(mark) :], width, mark, then)


def _then(mark: str) -> str:
    """What stands before the lines below: a comment stays one."""
    at = mark.find("#")
    return " " * len(mark) if at < 0 else mark[: at + 1] + " " * (len(mark) - at - 1) + "  "


def _command(line: str, width: int) -> list[str]:
    lines = wrapped(line, width - 2, "", "      ")
    return [f"{part} \\" for part in lines[:-1]] + lines[-1:]


def _fitted_colours(line: str, width: int) -> list[str]:
    """A line with a coloured word at its beginning, or of one colour: words are counted without."""
    lines: list[str] = []
    current, length = "", 0
    indent = " " * (len(line) - len(line.lstrip(" ")) + 2)
    for word in line.split(" "):
        size = width_of(COLOUR.sub("", word))
        if current and length + 1 + size > width:
            lines.append(current)
            current, length = f"{indent}{word}", len(indent) + size
        else:
            current = f"{current} {word}" if length or current else word
            length += size + bool(length)
    return [*lines, current]
