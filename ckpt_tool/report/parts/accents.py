"""Colours that all reports share: the answer in the last line, and the words before what is said
about it.
"""

import re

from ckpt_tool.report.parts.style import Style

COLOURS = {"note": "yellow", "hint": "cyan", "next": "blue"}
_WORDS = re.compile(rf"^({'|'.join(COLOURS)})(?=: )", re.MULTILINE)
_COLOURED = Style(is_coloured=True)


def with_answer(text: str) -> str:
    """A report with its last line bold, where that has no colours of its own."""
    before, newline, answer = text.rpartition("\n")
    return text if "\x1b" in answer else f"{before}{newline}{_COLOURED.paint(answer, 'bold')}"


def with_words(text: str) -> str:
    """The text with `note:`, `hint:` and `next:` at the beginnings of its lines in their colours.

    >>> with_words("next: ckpt show a.pth")
    '\\x1b[34mnext\\x1b[0m: ckpt show a.pth'
    """
    return _WORDS.sub(lambda found: _COLOURED.paint(found[1], COLOURS[found[1]]), text)
