"""A trace of two networks, as people and machines read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ckpt_tool.report.parts.style import PLAIN, Style, pattern_shown, plural, safe
from ckpt_tool.report.parts.table import columns, hanging

if TYPE_CHECKING:
    from ckpt_tool.tracing import Place, Trace
    from ckpt_tool.tracing.comparing import Row
    from ckpt_tool.tracing.exact import Distance
    from ckpt_tool.tracing.weights import Concerned

VERIFIED = "verified: "
COUNTERPART = ", its counterpart `"
"""In what was found to be another one than in the first network."""
AROUND = 4
"""Rows that are shown before the place where networks diverge."""
MAX_TENSORS = 8
MAX_SOURCES = 4
"""Sources of a tensor that are named, in their order: a wrong order is a fault that this shows."""


def trace_text(trace: Trace, style: Style = PLAIN) -> str:
    """The calls around the place where the networks diverge, what it concerns, and the answer in
    the last line; all calls where `style` doesn't fold.
    """
    blocks = []
    if rows := _shown(trace, style):
        heads = ["module", "counterpart", "inputs", "outputs"]
        table = [heads, *([*_cells(row, trace, style)] for row in rows)]
        blocks.append("\n".join(columns(table, "llrr", style)))
    if trace.place is not None:
        blocks.append("\n".join(_place_lines(trace.place, style)))
    if trace.notes:
        blocks.append("\n".join(f"note: {safe(note)}" for note in trace.notes))
    blocks.append(answer_line(trace, style))
    return "\n\n".join(blocks)


def _shown(trace: Trace, style: Style) -> list[Row]:
    rows = list(trace.rows)
    if not style.is_folded:
        return rows
    if trace.place is None:
        return []
    place = trace.place
    at = next(i for i, row in enumerate(rows) if _is_place(row, place))
    # The code around a module makes the difference: what runs after that module says nothing.
    calls = [i for i, row in enumerate(rows[:at]) if _is_entered(row, place)]
    first = calls[0] if calls else at
    return rows[max(0, first - AROUND) : first] + [rows[i] for i in dict.fromkeys((first, at))]


def _is_entered(row: Row, place: Place) -> bool:
    """Whether it is the module in the place that gets other inputs first."""
    is_near = row.inputs is not None and row.inputs <= row.floors[0]
    return place.at == (row.one, row.other) and not is_near


def _is_place(row: Row, place: Place) -> bool:
    return (row.other, row.call) == (place.other, place.call)


def _cells(row: Row, trace: Trace, style: Style) -> Iterator[str]:
    is_place = trace.place is not None and _is_place(row, trace.place)
    call = f" (call {row.call + 1})" if row.call else ""
    for name in (row.one, row.other):
        text = (safe(name) or "(the network)") + call
        yield style.paint(text, "red") if is_place and style.is_coloured else text
    yield _number(row.inputs)
    yield _number(row.outputs)


def _number(apart: float | None) -> str:
    return "-" if apart is None else "0" if apart == 0 else f"{apart:.1e}"


def _place_lines(place: Place, style: Style) -> Iterator[str]:
    name = safe(place.other) or "the network"
    if place.kind == "module":
        yield f"`{name}` gives other outputs for the same inputs"
    elif place.kind == "code":
        at = f": `{safe(place.at[1])}` in it gets other inputs" if place.at else ""
        yield f"the code inside `{name}`, between its submodules, causes the difference{at}"
    else:
        yield f"no module diverges from its counterpart; `{name}` adds most to the difference"
    yield f"  inputs   {distance_text(place.inputs)}"
    if place.entering is not None and place.at is not None:
        yield f"  what `{safe(place.at[1])}` gets  {distance_text(place.entering)}"
    yield f"  outputs  {distance_text(place.outputs)}"
    some = place.tensors if not style.is_folded else place.tensors[:MAX_TENSORS]
    for each in some:
        yield from hanging("  tensor   ", _tensor(each), style)
    if len(some) < len(place.tensors):
        yield f"  and {plural(len(place.tensors) - len(some), 'more tensor')} (-v lists them)"
    yield from (f"  {style.paint(safe(each), 'bold')}" for each in place.findings)


def distance_text(apart: Distance | None) -> str:
    """How far two values differ, and where most."""
    if apart is None:
        return "can't be compared"
    if not apart.largest:
        return "equal"
    index = ", ".join(map(str, apart.index))
    where = f"[{index}] of `{safe(name)}`" if (name := ".".join(apart.path)) else f"[{index}]"
    largest = f"largest difference {apart.largest:.3g} at {where}"
    return f"relative difference {apart.relative:.2e}, {largest}"


def _tensor(each: Concerned) -> str:
    if not each.sources:
        return f"{pattern_shown(each.key)} is mapped by no rule"
    ops = f" through {', '.join(each.ops)}" if each.ops else ""
    shown = each.sources[:MAX_SOURCES]
    more = f" and {len(each.sources) - len(shown)} more" if len(shown) < len(each.sources) else ""
    sources = ", ".join(map(pattern_shown, shown))
    rule = safe(each.rule).removeprefix("by ")
    return f"{pattern_shown(each.key)} from {sources}{more}{ops}, by {rule}"


def answer_line(trace: Trace, style: Style = PLAIN) -> str:
    """The answer in one line."""
    count = plural(len(trace.rows), "call")
    if trace.place is None and not trace.is_same:
        word = style.paint("no answer", "yellow")
        return f"{word}: {count} of paired modules agree, the outputs can't be compared"
    if trace.place is None:
        apart = "" if trace.output is None else f", outputs differ by {_number(trace.output)}"
        word = style.paint("the same", "green")
        return f"{word}: {count} of paired modules compared{apart}"
    name = safe(trace.place.other) or "the network"
    where = {"module": "in", "code": "in the code of", "drift": "gradually, most in"}
    word = style.paint("different", "red")
    found = next((one for one in trace.place.findings if one.startswith(VERIFIED)), None)
    if found is None:
        cause = next((one for one in trace.place.findings if COUNTERPART in one), "")
        place = f"{word}: they diverge {where[trace.place.kind]} `{name}`"
        return f"{place}; {safe(cause)}" if cause else place
    return f"{word}: they diverge in `{name}`; {safe(found.removeprefix(VERIFIED))}"


def trace_json(trace: Trace) -> dict[str, object]:
    """The whole trace but for the outputs that were kept."""
    place = trace.place
    return {
        "schema": 1,
        "same": trace.is_same,
        "models": list(trace.names),
        "output_distance": trace.output,
        "rounding": trace.floor,
        "place": None if place is None else _place_json(place),
        "calls": [
            {
                "module": row.one,
                "module_b": row.other,
                "call": row.call,
                "inputs": row.inputs,
                "outputs": row.outputs,
            }
            for row in trace.rows
        ],
        "notes": list(trace.notes),
    }


def _place_json(place: Place) -> dict[str, object]:
    return {
        "kind": place.kind,
        "module": place.one,
        "module_b": place.other,
        "call": place.call,
        "at": None if place.at is None else list(place.at),
        "entering": _distance_json(place.entering),
        "inputs": _distance_json(place.inputs),
        "outputs": _distance_json(place.outputs),
        "tensors": [
            {
                "key": each.key,
                "from": list(each.sources),
                "ops": list(each.ops),
                "rule": each.rule or None,
            }
            for each in place.tensors
        ],
        "findings": list(place.findings),
    }


def _distance_json(apart: Distance | None) -> dict[str, object] | None:
    if apart is None:
        return None
    return {
        "relative": apart.relative,
        "largest": apart.largest,
        "index": list(apart.index),
        "name": ".".join(apart.path) or None,
    }
