"""A table as text in one of many formats: CSV and TSV by Python's csv, all others by tabulate."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from ckpt_tool.errors import InputError
from ckpt_tool.report.parts.style import safe
from ckpt_tool.wording import EMPTY

TABLE = "table"
"""The report as it is without a format."""
COMMON = (TABLE, "csv", "tsv", "markdown", "html", "latex", "rst", "grid")
"""Formats that are named to people; tabulate has more."""
_ALIASES = {"markdown": "github", "md": "github"}
_MARKDOWN = ("github", "pipe")
_BARS = {
    "github": "\\|",
    "pipe": "\\|",
    "jira": "\\|",
    "asciidoc": "\\|",
    "mediawiki": "&#124;",
    "textile": "&#124;",
    "orgtbl": "\\vert{}",
}
"""What stands for a bar in a cell, where it would end one."""
_NO_BARS = ("moinmoin", "youtrack")
"""Formats that have nothing for a bar."""
_UNESCAPED = ("unsafehtml", "latex_raw", "latex_booktabs", "latex_longtable")
"""Formats that write names as they are into a language that may read them otherwise."""

_DELIMITERS = {"csv": ",", "tsv": "\t"}
_FORMULA = ("=", "+", "-", "@")
"""How a text begins that spreadsheets take for a formula."""
Cell = str | int | float | None


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under their titles; numbers are numbers, and an empty cell is None. Columns of
    `names` hold keys or patterns; `formats` say how people read the numbers of some columns, which
    CSV and TSV have in full.
    """

    titles: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    names: tuple[str, ...] = ()
    formats: Mapping[str, str] = field(default_factory=dict)


def check_format(name: str) -> None:
    """Raises InputError for a format that there is not."""
    if name == TABLE or name in _DELIMITERS:
        return
    known = [each for each in _formats() if each not in _UNESCAPED]
    if _ALIASES.get(name, name) not in known:
        hint = "--json prints JSON" if name == "json" else f"one of {', '.join(COMMON)}"
        raise InputError("--format", f"`{name}` is not a format of tables", hint)


def _formats() -> list[str]:
    from tabulate import tabulate_formats

    return list(tabulate_formats)


def table_text(table: Table, name: str) -> str:
    """The table in a format that `check_format` knows. Raises InputError where it can't hold a
    cell.
    """
    if name in _DELIMITERS:
        return _csv(table, _DELIMITERS[name])
    from tabulate import tabulate

    format_ = _ALIASES.get(name, name)
    rows = [
        [_cell(cell, title, table, format_) for title, cell in zip(table.titles, row, strict=True)]
        for row in table.rows
    ]
    sides = ["right" if _is_numeric(table, i) else "left" for i in range(len(table.titles))]
    return tabulate(
        rows,
        headers=[*table.titles],
        tablefmt=format_,
        disable_numparse=True,
        colalign=sides if rows else None,
        preserve_whitespace=True,
    )


def _csv(table: Table, delimiter: str) -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow(table.titles)
    writer.writerows([["" if cell is None else _safe(cell) for cell in row] for row in table.rows])
    return text.getvalue().rstrip("\n")


def _safe(cell: Cell) -> Cell:
    """A cell that a spreadsheet shows and doesn't run: names of a file may be formulas."""
    if not isinstance(cell, str):
        return cell
    text = safe(cell)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _cell(cell: Cell, title: str, table: Table, format_: str) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float):
        return f"{cell:{table.formats.get(title, '')}}"
    text = safe(str(cell)) or (EMPTY if title in table.names else "")
    if "|" in text and format_ in _NO_BARS:
        raise InputError("--format", f"{format_} can't hold a `|`, as in `{text}`")
    # Stars and lines of names are Markdown's own; in code, a bar still ends a cell.
    is_code = format_ in _MARKDOWN and title in table.names and text
    return (_as_code(text) if is_code else text).replace("|", _BARS.get(format_, "|"))


def _as_code(text: str) -> str:
    """The text as code of Markdown, between more backticks than it has in a row; of spaces at both
    ends one each is none of the text.
    """
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    ends = {text[0], text[-1]}
    space = " " if "`" in ends or (ends == {" "} and text.strip()) else ""
    return f"{ticks}{space}{text}{space}{ticks}"


def _is_numeric(table: Table, column: int) -> bool:
    cells = [row[column] for row in table.rows if row[column] is not None]
    return bool(cells) and all(isinstance(cell, int | float) for cell in cells)
