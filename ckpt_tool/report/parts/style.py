"""The look of our text: colours, sizes, safe names, the terminal's width and characters."""

import re

from ckpt_tool.frozen import frozen
from ckpt_tool.wording import EMPTY, plural, size_text, visible

__all__ = ["PLAIN", "Style", "in_encoding", "pattern_shown", "plural", "safe", "size_text"]

_CODES = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "blue": 34, "cyan": 36}


def safe(text: str) -> str:
    """The text with control characters, terminal escapes, marks of direction and what can't be
    seen written out, as patterns read it back.
    """
    return visible(text)


_NUMBERS = re.compile(r"\{([0-9]+(?:\.\.[0-9]+)?(?:,[0-9]+(?:\.\.[0-9]+)?){24,})\}")
"""Numbers of which a pattern has so many that a line would be nothing else."""


def pattern_shown(pattern: str) -> str:
    """A pattern or a key as a line has it, so that it can be pasted: an empty one as `EMPTY`. Of
    very many numbers the first and the last ones, which is no pattern any more.

    >>> pattern_shown("layers.{" + ",".join(map(str, range(0, 999, 3))) + "}.w")
    'layers.{0,3,6,…,990,993,996}.w'
    """
    return _NUMBERS.sub(_some_numbers, safe(pattern)) or EMPTY


def _some_numbers(found: re.Match[str]) -> str:
    numbers = found[1].split(",")
    return f"{{{','.join([*numbers[:3], '…', *numbers[-3:]])}}}"


IN_ASCII = {
    "×": "x", "→": "->", "…": "...", "·": "*", "─": "-", "│": "|", "├": "|", "└": "`", "²": "^2",
    "Δ": "delta",
}  # fmt: skip
"""What stands for our signs on a terminal that has plain characters alone."""


def in_encoding(text: str, encoding: str) -> str:
    """The text in the characters of an encoding: for our own signs the nearest that it has, for
    others Python's escapes.
    """
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return "".join([_written(one, encoding) for one in text])
    return text


def _written(character: str, encoding: str) -> str:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        plain = IN_ASCII.get(character)
        return plain or character.encode("ascii", "backslashreplace").decode()
    return character


@frozen
class Style:
    """Whether text is coloured, whether groups of keys are folded, how wide the terminal is (None:
    as wide as the text), and what its characters are encoded in.
    """

    is_coloured: bool = False
    is_folded: bool = True
    width: int | None = None
    encoding: str = "utf-8"

    def text(self, text: str) -> str:
        """The text in the characters that there are."""
        return text if text.isascii() else in_encoding(text, self.encoding)

    def paint(self, text: str, colour: str) -> str:
        """The text in a colour, where colours are wanted."""
        return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if self.is_coloured and text else text


PLAIN = Style()
