"""A finished text for a terminal: lines that are too long go on below, indented, and a command so
that a shell still reads it.
"""

from __future__ import annotations

import re

from ckpt_tool.report.parts.table import COLOUR, GAP, width_of, wrapped

_MARK = re.compile(
    r"\s*(?:#\s+)?(?:(?:note|hint|next|undecided|error|warning|verified)(?:\[[^\]]*\])?: |- |= )?"
)
_QUOTED = re.compile(r"(?<!\w)(?:'[^']*'|\"[^\"]*\"|`[^`]*`)")
_WORD = re.compile(r"(?:[^\s'\"\\]|'[^']*'|\"(?:[^\"\\]|\\.)*\"|\\.)+")
"""A word of a command, as a shell reads it."""
NEXT = "next: "
_ASKED = re.compile(r"(hint: .*:) (ckpt [a-z].*)")
"""A hint that ends in a command, which gets lines of its own."""
_KEPT = "\0"
"""Stands for a space at which no line ends; a text for a terminal has none."""
MAX_INDENT = 8
"""Columns that the lines below one stand to the right at most."""

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
    if plain.startswith(NEXT):
        return _command(plain, width)
    if (asked := _ASKED.match(plain)) and plain == line:
        then = " " * len(NEXT)
        return [*_fitted(asked[1], width), *_command(then + asked[2], width, then + "  ")]
    first = _MARK.match(plain)
    mark = first[0] if first else ""
    painted = _painted(line, len(mark))
    then = _then(mark)
    room = width - max(len(mark), len(then))
    return [
        part.replace(_KEPT, " ")
        for part in wrapped(_held(line[len(painted) :], room), width, painted, then)
    ]


def _held(text: str, room: int) -> str:
    """The text with the spaces of what is to be pasted held: a rule or a pattern between quotes is
    one word, however long; what stands between backticks is where a line has room for it.
    """
    return _QUOTED.sub(
        lambda one: (
            one[0]
            if one[0].startswith("`") and width_of(one[0]) > room
            else one[0].replace(" ", _KEPT)
        ),
        text,
    )


def _painted(line: str, length: int) -> str:
    """The beginning of a line that shows so many characters, with its colours."""
    shown = end = 0
    while end < len(line) and (shown < length or line[end] == "\x1b"):
        colour = COLOUR.match(line, end)
        end = colour.end() if colour else end + 1
        shown += not colour
    return line[:end]


def _then(mark: str) -> str:
    """What stands before the lines below: a comment stays one, what follows a long word is not
    pushed to the right, and text without a mark goes on a bit to the right of where it begins.
    """
    at = mark.find("#")
    if not mark.strip() and len(mark) < MAX_INDENT:
        return mark + GAP
    if at < 0 and len(mark) > MAX_INDENT:
        return " " * (len(mark) - len(mark.lstrip()) + 2)
    return " " * len(mark) if at < 0 else mark[: at + 1] + " " * (len(mark) - at - 1) + "  "


def _command(line: str, width: int, then: str = " " * len(NEXT)) -> list[str]:
    """A command that a shell reads back: a backslash continues it, but never between quotes."""
    whole = _WORD.sub(lambda one: one[0].replace(" ", _KEPT), line)
    lines = [part.replace(_KEPT, " ") for part in wrapped(whole, width - 2, "", then)]
    return [f"{part} \\" for part in lines[:-1]] + lines[-1:]
