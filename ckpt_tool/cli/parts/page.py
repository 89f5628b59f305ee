"""`--html FILE`: the report page, written beside what is printed."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Annotated

import typer

from ckpt_tool.cli.parts.helping import PRINTING
from ckpt_tool.errors import OutputError

if TYPE_CHECKING:
    from ckpt_tool.report.page.document import Page

Html = Annotated[
    str | None,
    typer.Option(
        "--html",
        metavar="FILE",
        rich_help_panel=PRINTING,
        help="Also write a report page: one self-contained HTML file. It replaces only "
        "an older page.",
    ),
]
MARK = b'<meta name="generator" content="ckpt_tool'
"""What a page of ours begins with, within its first kilobyte."""
_COLOUR = re.compile("\x1b\\[[0-9;]*m")


def answer_of(text: str) -> str:
    """The last line of what a command prints, without colours."""
    return _COLOUR.sub("", text.rstrip().rpartition("\n")[2])


def write_page(path: str, page: Page, quiet: bool = False) -> None:
    """Writes the page, complete or not at all, and says where on stderr. Raises OutputError where
    the name is no page's, or something else lies there.
    """
    from ckpt_tool import api
    from ckpt_tool.cli.output import print_note
    from ckpt_tool.report.page.rendering import page_html
    from ckpt_tool.report.parts.style import safe, size_text

    if not path.lower().endswith((".html", ".htm")):
        raise OutputError(path, "a report page ends in .html", f"--html {path}.html")
    if os.path.lexists(path) and not _is_page(path):
        raise OutputError(path, "exists, and is no report page of ckpt", "give another name")
    text = page_html(page)
    api.write_text(path, text, force=True)
    if not quiet:
        print_note(f"wrote {safe(path)}: the report page, {size_text(len(text.encode()))}")


def _is_page(path: str) -> bool:
    """Whether a page of ours lies there, which may be replaced."""
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return MARK in file.read(1 << 10)
