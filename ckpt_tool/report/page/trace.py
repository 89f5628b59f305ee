"""The page of `ckpt trace`: every call that was compared, and where the networks diverge."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckpt_tool.report.page.document import Item, Measure, Page, PageSide, Status, Table
from ckpt_tool.report.trace import MAX_SOURCES, distance_text
from ckpt_tool.wording import plural

if TYPE_CHECKING:
    from ckpt_tool.tracing import Place, Trace
    from ckpt_tool.tracing.comparing import Row

MAX_DETAILS = 12
"""Tensors of a call that stand beside it; all are in the table below."""
STATUSES = (
    Status("agree", "good", "give equal outputs, but for rounding", is_calm=True),
    Status("diverge here", "bad", "where the networks diverge"),
    Status("differ", "warn", "give other outputs"),
    Status("not compared", "calm", "give outputs that can't be compared"),
)


def trace_page(trace: Trace, answer: str, names: tuple[str, str]) -> Page:
    """The page; a call of a pair of modules is an item, `names` are what the sides are called."""
    items = tuple(
        Item((number,), (number,), _status(row, trace.place), note=_call(row))
        for number, row in enumerate(trace.rows)
    )
    inputs = {number: row.inputs for number, row in enumerate(trace.rows) if row.inputs is not None}
    outputs = {
        number: row.outputs for number, row in enumerate(trace.rows) if row.outputs is not None
    }
    sides = (
        _side("a", names[0], [row.one for row in trace.rows]),
        _side("b", names[1], [row.other for row in trace.rows]),
    )
    return Page(
        "trace",
        answer,
        "good" if trace.is_same else "bad" if trace.place else "warn",
        sides,
        STATUSES,
        items,
        (
            Measure("inputs", "relative difference", inputs, is_log=True),
            Measure("outputs", "relative difference", outputs, is_log=True),
        ),
        highlights=trace.place.findings if trace.place else (),
        notes=trace.notes,
        tables=_place_tables(trace.place) if trace.place else (),
        details={
            number: _place_details(trace.place)
            for number, item in enumerate(items)
            if item.status == "diverge here" and trace.place
        },
    )


def _side(role: str, name: str, modules: list[str]) -> PageSide:
    keys = tuple(module or "(the network)" for module in modules)
    return PageSide(role, name, keys, (None,) * len(keys), len(keys), None, "call")


def _status(row: Row, place: Place | None) -> str:
    if place is not None and (row.other, row.call) == (place.other, place.call):
        return "diverge here"
    if row.outputs is None:
        return "not compared"
    return "agree" if row.outputs <= row.floors[1] else "differ"


def _call(row: Row) -> str:
    return f"call {row.call + 1}" if row.call else ""


def _distances(place: Place) -> tuple[tuple[str, str], ...]:
    rows = [("inputs", distance_text(place.inputs)), ("outputs", distance_text(place.outputs))]
    if place.entering is not None and place.at is not None:
        rows.insert(1, (f"what {place.at[1]} gets", distance_text(place.entering)))
    return tuple(rows)


def _place_details(place: Place) -> tuple[Table, ...]:
    """What is known of the call where the networks diverge: how far, and what its tensors are made
    of, by which rules.
    """
    tables = [Table("where they diverge", ("what", "how"), _distances(place))]
    for each in place.tensors[:MAX_DETAILS]:
        facts = [("" if i else "from", one) for i, one in enumerate(each.sources[:MAX_SOURCES])]
        if more := each.sources[MAX_SOURCES:]:
            facts.append(("", f"and {plural(len(more), 'more tensor')}"))
        facts += [("op", op) for op in each.ops]
        facts.append(("rule", _plain(each.rule) or "none"))
        tables.append(Table(f"tensor {each.key}", ("what", "how"), tuple(facts)))
    return tuple(tables)


def _plain(text: str) -> str:
    """A rule as cells show it."""
    return text.replace("`", "")


def _place_tables(place: Place) -> tuple[Table, ...]:
    tensors = tuple(
        (each.key, " + ".join(each.sources) or "-", ", ".join(each.ops), _plain(each.rule))
        for each in place.tensors
    )
    name = place.other or "the network"
    tables = (
        Table(f"Where they diverge: {name}", ("what", "how"), _distances(place)),
        Table("Its tensors", ("key", "from", "ops", "rule"), tensors),
    )
    return tuple(table for table in tables if table.rows)
