"""The look of our text: colours, sizes, safe names, the terminal's width and characters."""

from dataclasses import dataclass

from ckpt_tool.wording import plural, size_text

__all__ = ["PLAIN", "Style", "in_ascii", "plural", "safe", "size_text"]

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


def in_ascii(text: str) -> str:
    """The text in plain characters: the nearest for our own signs, Python's escapes for others."""
    return "".join(
        IN_ASCII.get(one) or one.encode("ascii", "backslashreplace").decode() for one in text
    )


@dataclass(frozen=True, slots=True)
class Style:
    """Whether text is coloured, whether groups of keys are folded, how wide the terminal is (None:
    as wide as the text), and whether it has plain characters alone.
    """

    is_coloured: bool = False
    is_folded: bool = True
    width: int | None = None
    is_ascii: bool = False

    def text(self, text: str) -> str:
        """The text in the characters that there are."""
        return in_ascii(text) if self.is_ascii and not text.isascii() else text

    def paint(self, text: str, colour: str) -> str:
        """The text in a colour, where colours are wanted."""
        return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if self.is_coloured and text else text


PLAIN = Style()
