"""A page as HTML: a template of Jinja2, with styles and program inside, and one block of data."""

from __future__ import annotations

import json
from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING

from ckpt_tool.report.page.document import Page, PageSide, Table, counts_of, page_data, problems_of
from ckpt_tool.report.page.names import said
from ckpt_tool.report.page.ordering import in_network_order
from ckpt_tool.report.page.seal import sealed
from ckpt_tool.wording import plural, size_text

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

SCRIPTS = ("data.js", "tree.js", "list.js", "pairs.js", "treemap.js", "charts.js", "page.js")
"""One program, in the order in which its parts use each other."""
MAX_ROWS = 500
"""Rows of a table below the keys."""
_IN_SCRIPT = {code: f"\\u{code:04x}" for code in (*map(ord, "<>&"), 0x2028, 0x2029)}
TITLES = {
    "show": "What is in it",
    "diff": "What differs",
    "plan": "What becomes of every key",
    "suggest": "What belongs together",
    "trace": "Where they diverge",
}


def page_html(page: Page) -> str:
    """One file that needs nothing else. Its content policy lets nothing be fetched, and no program
    run but its own. It has a digest of itself, by which another page knows what it may replace.
    """
    from markupsafe import Markup

    if page.command != "trace":
        page = in_network_order(page)
    style, script = _asset("page.css"), _script()
    data = json.dumps(page_data(page), separators=(",", ":"), allow_nan=False)
    text = _template().render(
        page=page,
        command=page.command,
        heading=TITLES[page.command],
        keys="Calls" if page.command == "trace" else "Keys",
        title=" → ".join(said(side.name) for side in page.sides),
        answer=said(page.answer),
        sides=[_side(side) for side in page.sides],
        cards=counts_of(page),
        highlights=[said(line) for line in page.highlights],
        notes=[said(note) for note in page.notes],
        problems=list(problems_of(page)),
        tables=[_table(table) for table in page.tables],
        text=_multiline(page.text),
        next=said(page.next) if page.next else "",
        style=Markup(style),
        script=Markup(script),
        style_hash=_digest(style),
        script_hash=_digest(script),
        data=Markup(data.translate(_IN_SCRIPT)),
        version=_version(),
    )
    return sealed(text)


def _side(side: PageSide) -> dict[str, str]:
    size = "" if side.nbytes is None else size_text(side.nbytes)
    tensors = plural(side.tensors, side.noun)
    return {"role": side.role, "name": said(side.name), "tensors": tensors, "size": size}


def _table(table: Table) -> dict[str, object]:
    rows = [[said(cell) for cell in row] for row in table.rows[:MAX_ROWS]]
    more = len(table.rows) - len(rows)
    return {"title": said(table.title), "heads": table.heads, "rows": rows, "more": more}


def _multiline(text: str) -> str:
    """A text with its lines, each made safe."""
    return "\n".join(said(line) for line in text.splitlines())


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    made = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters["coded"] = coded
    return made.from_string(_asset("page.html.j2"))


def coded(text: str) -> Markup:
    """A text as HTML, with what stands between backticks as code.

    >>> coded("`0.weight` is < 1")
    Markup('<code>0.weight</code> is &lt; 1')
    """
    from markupsafe import Markup, escape

    parts = text.split("`")
    if not len(parts) % 2:  # one of them has no other
        return escape(text)
    wrapped = (Markup("<code>{}</code>").format(each) for each in parts[1::2])
    pieces = [escape(each) for each in parts]
    pieces[1::2] = wrapped
    return Markup("").join(pieces)


@cache
def _script() -> str:
    parts = "\n".join(_asset(name) for name in SCRIPTS)
    return f'"use strict";\n(() => {{\n{parts}}})();\n'


@cache
def _asset(name: str) -> str:
    return (files(__package__) / "assets" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """What a content policy names an inline block by."""
    return b64encode(sha256(text.encode()).digest()).decode()


def _version() -> str:
    from ckpt_tool import __version__

    return __version__
