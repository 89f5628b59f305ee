"""The look of our text: colours, sizes, safe names, aligned columns."""

from collections.abc import Sequence
from dataclasses import dataclass

from ckpt_tool.wording import plural, size_text

__all__ = ["PLAIN", "Style", "columns", "plural", "safe", "size_text"]

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


@dataclass(frozen=True, slots=True)
class Style:
    """Whether text is coloured, and whether groups of keys are folded."""

    is_coloured: bool = False
    is_folded: bool = True

    def paint(self, text: str, colour: str) -> str:
        """The text in a colour, where colours are wanted."""
        return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if self.is_coloured and text else text


PLAIN = Style()
WIDEST = 200
"""Characters of a cell for which others make room."""


def columns(rows: Sequence[Sequence[str]], align: str) -> list[str]:
    """Rows as lines of aligned columns; `align` has `l` or `r` for each column. Very long cells
    stand out of line.
    """
    widths = [
        max((len(cell) for cell in column if len(cell) <= WIDEST), default=0)
        for column in zip(*rows, strict=True)
    ]
    pads = [str.rjust if side == "r" else str.ljust for side in align]
    return [
        "  ".join(
            [pad(cell, width) for pad, cell, width in zip(pads, row, widths, strict=True)]
        ).rstrip()
        for row in rows
    ]
