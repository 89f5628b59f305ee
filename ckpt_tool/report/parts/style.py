"""The look of our text: colours, sizes, safe names, the terminal's width and characters."""

from ckpt_tool.frozen import frozen
from ckpt_tool.wording import plural, size_text

__all__ = ["PLAIN", "Style", "in_encoding", "plural", "safe", "size_text"]

_CODES = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "blue": 34, "cyan": 36}

_UNSAFE = {
    **{code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))},
    # Marks that turn the direction of text, and separators of lines: a name must not rearrange what
    # stands around it.
    **{
        code: f"\\u{code:04x}"
        for code in (0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF)
    },
    **{code: f"\\u{code:04x}" for code in range(0xD800, 0xE000)},
}


def safe(text: str) -> str:
    """The text with control characters, terminal escapes and marks of direction written out."""
    return text if text.isascii() and text.isprintable() else text.translate(_UNSAFE)


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
