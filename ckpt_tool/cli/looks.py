"""Options that say how a result looks: which keys, in which order, as which kind of table."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from ckpt_tool.cli.output import print_note, show_result
from ckpt_tool.cli.parts.helping import PRINTING
from ckpt_tool.errors import InputError

if TYPE_CHECKING:
    from ckpt_tool.report.tables.formats import Table


class Sort(str, Enum):
    """Orders of the lines of `show`."""

    order = "order"
    size = "size"
    name = "name"


FORMATS = ("table", "csv", "tsv", "markdown", "html", "latex", "rst", "grid")


def _formats(incomplete: str) -> list[str]:
    return [name for name in FORMATS if name.startswith(incomplete)]


TableFormat = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="NAME",
        rich_help_panel=PRINTING,
        help="Print in another format: csv, tsv, markdown, html, latex, rst, grid …",
        autocompletion=_formats,
    ),
]
SortOption = Annotated[
    Sort,
    typer.Option(
        "--sort", rich_help_panel=PRINTING, help="By the file's own order, by size, or by name."
    ),
]
Filter = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        "--include",
        metavar="PATTERN",
        rich_help_panel=PRINTING,
        help="Show only these keys. Repeatable.",
    ),
]


def check_table_format(name: str, json: bool = False) -> None:
    """Raises InputError for a format that there is not, and for a table that is to be JSON."""
    if name != "table":
        from ckpt_tool.report.tables.formats import check_format

        check_format(name)
        if json:
            raise InputError("--format", "can't be asked together with --json", "leave out one")


def show_table(table: Table, name: str, conclusion: str) -> None:
    """Prints a table in a format to stdout, and the conclusion to stderr."""
    from ckpt_tool.report.tables.formats import table_text

    show_result(table_text(table, name))
    print_note(conclusion)
