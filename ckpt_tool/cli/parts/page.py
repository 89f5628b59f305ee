"""`--html FILE`: the report page, written beside what is printed."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Annotated

import typer

from ckpt_tool.cli.parts.helping import PRINTING
from ckpt_tool.errors import InputError, OutputError

if TYPE_CHECKING:
    from ckpt_tool.report.page.document import Page


def _checked(path: str | None) -> str | None:
    """The page's name, refused before any work is done."""
    if path is not None:
        check_page(path)
    return path


Html = Annotated[
    str | None,
    typer.Option(
        "--html",
        metavar="FILE",
        rich_help_panel=PRINTING,
        callback=_checked,
        help="Also write a report page: one self-contained HTML file. It replaces only "
        "an older page.",
    ),
]
MAX_PAGE = 1 << 26
"""Bytes of a file that may be an older page; ours have a sixth of them at most."""
_COLOUR = re.compile("\x1b\\[[0-9;]*m")


def answer_of(text: str) -> str:
    """The last line of what a command prints, without colours."""
    return _COLOUR.sub("", text.rstrip().rpartition("\n")[2])


def write_page(path: str, page: Page, quiet: bool = False) -> None:
    """Writes the page, complete or not at all, and says where on stderr. Raises what `check_page`
    does.
    """
    from ckpt_tool import api
    from ckpt_tool.cli.output import print_note
    from ckpt_tool.report.page.rendering import page_html
    from ckpt_tool.report.parts.style import safe, size_text

    check_page(path)
    text = page_html(page)
    api.write_text(path, text, force=True)
    if not quiet:
        print_note(f"wrote {safe(path)}: the report page, {size_text(len(text.encode()))}")


def check_page(path: str) -> None:
    """Raises InputError for an empty name, and OutputError where the name is no page's, or where
    something lies that is no page as one of ours was written.
    """
    if not path:
        raise InputError("--html", "is empty", "give the page a name, as in --html report.html")
    if path.endswith("/") or os.path.isdir(path):
        name = os.path.join(path, "report.html")
        raise OutputError(path, "is a folder, and a report page is a file", f"--html {name}")
    if not path.lower().endswith((".html", ".htm")):
        raise OutputError(path, "a report page ends in .html", f"--html {path}.html")
    if os.path.lexists(path) and not _is_page(path):
        fact = "exists, and is not a report page as ckpt wrote it"
        raise OutputError(path, fact, "give another name")


def _is_page(path: str) -> bool:
    """Whether a page of ours lies there, as it was written: it may be replaced."""
    from ckpt_tool.report.page.seal import is_sealed

    if not os.path.isfile(path) or os.path.getsize(path) > MAX_PAGE:
        return False
    with open(path, "rb") as file:
        return is_sealed(file.read(MAX_PAGE))
