"""Rows of text as lines that fit a terminal: names in the first column, counts and sizes aligned
behind them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ckpt_tool.frozen import frozen
from ckpt_tool.report.parts.style import PLAIN, Style

WIDEST = 200
"""Characters of a cell for which others make room."""
MIN_NAME = 16
"""Characters of names that are shown before cells go to a line of their own."""
SHORT = 12
"""Characters of remarks that are a column of their own; longer ones go below where they must."""
MAX_LINES = 5
"""Lines of a name, were they full; of longer ones the middle is left out."""
GAP = "  "
_KEPT = "\0"
"""Stands for a space at which no line ends."""
_ENDS = re.compile(r"(?<!\.)\.(?!\.)|,")
_ARROW = re.compile("^(→|->) ")
COLOUR = re.compile("\x1b\\[[0-9;]*m")


@frozen
class Row:
    """A line of a report: a name, cells, and a remark behind them. A name may have several parts
    (`a` and `→ b`), which stand below each other where they don't fit; `margin` is before it.
    """

    name: tuple[str, ...]
    cells: tuple[str, ...] = ()
    remark: str = ""
    margin: str = GAP


def table(rows: Sequence[Row], align: str, style: Style = PLAIN) -> list[str]:
    """The text of each row, of one line or more; `align` has `l` or `r` for each cell.

    In a terminal no line is longer than it is wide: a name that is too long stands on a line of its
    own, and one that is longer than the terminal on several.
    """
    if not rows:
        return []
    shown = [_in_characters(row, style) for row in rows]
    if style.width is not None and 0 < max(width_of(row.remark) for row in shown) <= SHORT:
        shown = [Row(row.name, (*row.cells, row.remark), "", row.margin) for row in shown]
        align += "l"
    widths = [_widest(cells) for cells in zip(*(row.cells for row in shown), strict=True)]
    names = [width_of(_joined(row)) for row in shown]
    remarks = max(width_of(row.remark) for row in shown)
    gap = GAP
    if style.width is None:
        name = max((width for width in names if width <= WIDEST), default=0)
    else:
        room = style.width - sum(widths)
        if room - len(GAP) * len(widths) < max(names) <= room - len(widths):
            gap = " "
        room = max(room - len(gap) * len(widths), MIN_NAME)
        names += [width_of(row.margin + row.name[0]) for row in shown]
        name = max((width for width in names if width <= room), default=MIN_NAME)
        if not widths and name + len(GAP) + remarks > style.width:
            name = 0  # remarks stand behind their names, one after the other
    texts = [_cells(row, align, widths, gap) for row in shown]
    return [
        "\n".join(_lines(row, text, name, style)) for row, text in zip(shown, texts, strict=True)
    ]


def columns(rows: Sequence[Sequence[str]], align: str, style: Style = PLAIN) -> list[str]:
    """Rows of cells, the first of which is the name, as aligned lines."""
    return table(
        [Row((first,), tuple(cells), margin="") for first, *cells in rows], align[1:], style
    )


def _in_characters(row: Row, style: Style) -> Row:
    """The row in the characters that the terminal has."""
    name, cells = tuple(map(style.text, row.name)), tuple(map(style.text, row.cells))
    return Row(name, cells, style.text(row.remark), row.margin)


def _widest(cells: Sequence[str]) -> int:
    return max((width for cell in cells if (width := width_of(cell)) <= WIDEST), default=0)


def _joined(row: Row) -> str:
    first, *others = row.name
    return row.margin + first + "".join([part if part[0] == ":" else f" {part}" for part in others])


def _cells(row: Row, align: str, widths: Sequence[int], gap: str) -> str:
    pads = {"l": _left, "r": _right}
    columns = zip(align, row.cells, widths, strict=False)
    return "".join([gap + pads[side](cell, width) for side, cell, width in columns])


def _left(text: str, width: int) -> str:
    return text + " " * (width - width_of(text))


def _right(text: str, width: int) -> str:
    return " " * (width - width_of(text)) + text


def _lines(row: Row, cells: str, name: int, style: Style) -> list[str]:
    width = style.width
    joined = _joined(row)
    if width is None or width_of(joined) <= (name or width):
        lines = [_left(joined, name) + cells]
    elif len(row.name) > 1 and width_of(row.margin + row.name[0]) <= name:
        lines = [_left(row.margin + row.name[0], name) + cells, *_below(row, width, style)]
    else:
        then = " " * width_of(row.margin) + GAP + GAP
        first = broken(row.name[0], width, row.margin, then, style)
        lines = [*first, *_below(row, width, style)]
        if cells.strip():
            lines.append(" " * name + cells)
    lines = [line.rstrip() for line in lines]
    if row.remark:
        lines = _with_remark(lines, row, _left(joined, name) + cells, width)
    return lines


def _below(row: Row, width: int, style: Style) -> list[str]:
    """The other parts of a name, under the first and a bit to the right."""
    margin = " " * width_of(row.margin) + GAP
    return [line for part in row.name[1:] for line in _folded(part, margin, width, style)]


def _folded(part: str, margin: str, width: int, style: Style) -> list[str]:
    """A part of a name on lines of its own: words, and what a long one has, go on below."""
    text = part.removeprefix(": ")
    if width_of(margin + text) <= width:
        return [margin + text]
    held = _ARROW.sub(lambda arrow: arrow[1] + _KEPT, text)
    lines = []
    for line in wrapped(held, width, margin, margin + GAP):
        word = line.lstrip(" ")
        indent = line[: len(line) - len(word)]
        lines += broken(word, width, indent, margin + GAP, style)
    return [line.replace(_KEPT, " ") for line in lines]


def _with_remark(lines: list[str], row: Row, whole: str, width: int | None) -> list[str]:
    """The remark at the end of the line with the cells, or below where that has no room."""
    if width is None:
        return [f"{whole}{GAP}{row.remark}".rstrip()]
    is_single = len(lines) == 1
    if is_single and width_of(whole) + len(GAP) + width_of(row.remark) <= width:
        return [f"{whole}{GAP}{row.remark}".rstrip()]
    last = f"{lines[-1]}{GAP}{row.remark}"
    if width_of(last) <= width:
        return [*lines[:-1], last]
    margin = " " * width_of(row.margin) + GAP + GAP
    return [*lines, *wrapped(row.remark, width, margin, margin)]


def broken(text: str, width: int, first: str, then: str, style: Style = PLAIN) -> list[str]:
    """A name on lines of at most so many columns, behind `first` and `then`, that end at dots where
    such are near: what tells two long names apart may stand anywhere in them. One of many lines
    loses its middle.
    """
    text = cut(text, MAX_LINES * max(width - width_of(then), 1), style)
    lines, lead = [], first
    while text and width_of(lead) + width_of(text) > width:
        end = _end_of_line(text, max(width - width_of(lead), 1))
        lines.append(lead + text[:end])
        text, lead = text[end:], then
    return [*lines, lead + text] if text or not lines else lines


def _end_of_line(text: str, room: int) -> int:
    """How many characters of a name stand on a line of so many columns: to a dot or a comma, where
    that is not far.
    """
    end = min(len(text), room)
    while end > 1 and width_of(text[:end]) > room:
        end -= 1
    places = [found.end() for found in _ENDS.finditer(text[: end + 1])]
    last = max((place for place in places if place <= end), default=0)
    return last if last > end // 2 else end


def cut(text: str, width: int, style: Style = PLAIN) -> str:
    """A text of at most so many columns, without its middle where it is longer."""
    if width_of(text) <= width:
        return text
    dots = style.text("…")
    head = (width - len(dots)) // 2
    tail = width - len(dots) - head
    before, after = text, text
    while width_of(before) > head:
        before = before[: min(len(before) - 1, head)]
    while width_of(after) > tail:
        after = after[max(1, len(after) - tail) :]
    return f"{before}{dots}{after}"


def shortened(text: str, style: Style) -> str:
    """A text without its end where the terminal is not as wide."""
    if style.width is None or width_of(text) <= style.width:
        return text
    dots = style.text("…")
    room = style.width - len(dots)
    while width_of(text) > room:
        text = text[: min(len(text) - 1, room)]
    return f"{text}{dots}"


def hanging(label: str, text: str, style: Style) -> list[str]:
    """A label and what it says, on lines of the terminal's width: below its own text it goes on."""
    if style.width is None:
        return [label + text]
    return wrapped(text, style.width, label, " " * width_of(label))


def wrapped(text: str, width: int, first: str = "", then: str = "") -> list[str]:
    """Words on lines of at most so many columns, behind `first` and `then`; a word that is longer
    stays whole.
    """
    lines, line = [], first
    is_empty = True
    for word in text.split(" "):
        if not is_empty and width_of(line) + 1 + width_of(word) > width:
            lines.append(line)
            line, is_empty = then, True
        line += word if is_empty else f" {word}"
        is_empty = False
    return [*lines, line]


def width_of(text: str) -> int:
    """The columns of a terminal that a text takes: signs of East Asia take two, accents none."""
    if "\x1b" in text:
        text = COLOUR.sub("", text)
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(character: str) -> int:
    if character < "\u0300":
        return 1
    import unicodedata

    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
