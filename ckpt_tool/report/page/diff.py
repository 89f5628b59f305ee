"""The page of `ckpt diff`: what differs between two checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isnan, nan

from ckpt_tool.comparing import Diff, Entry, Uncompared, Values
from ckpt_tool.report.page.document import (
    NONE,
    UNDEFINED,
    Item,
    Keys,
    Measure,
    Page,
    Status,
    Table,
    Why,
    keys_of,
)
from ckpt_tool.report.parts.value_differences import oddities
from ckpt_tool.report.tables.diff import diff_table

_RENAMED_OTHER = "renamed, with other values"
STATUSES = (
    Status("same", "muted", "are equal in what was compared", is_calm=True),
    Status("values differ", "warn", "have the same name, shape and dtype, and other values"),
    Status("dtypes differ", "plain", "have another dtype on the other side"),
    Status("shapes differ", "special", "have another shape on the other side"),
    Status("renamed", "teal", "have another name on the other side"),
    Status(_RENAMED_OTHER, "warn", "have another name and other values on the other side"),
    Status("removed", "bad", "only the first side has"),
    Status("added", "good", "only the second side has"),
    Status("not compared", "calm", "can't be read on a side"),
)
_NAMES = {
    "same": "same",
    "value": "values differ",
    "dtype": "dtypes differ",
    "shape": "shapes differ",
    "renamed": "renamed",
    "only_a": "removed",
    "only_b": "added",
}
_NORMS = "norms, where values differ"


def diff_page(
    diff: Diff,
    names: tuple[str, str],
    answer: str,
    hints: Sequence[str] = (),
    onwards: str | None = None,
) -> Page:
    """The page; `names` are what the sides are called, `answer` is the command's last line."""
    sides = keys_of(diff.a), keys_of(diff.b)
    entries = diff.entries
    equal = set(diff.equal)
    items = [_item(entry, sides, diff.compared_values, equal) for entry in entries]
    items += [_uncompared(one, sides) for one in diff.uncompared if _is_missing(one, diff)]
    odd = oddities(entries, names, (*diff.a, *diff.b)) if diff.compared_values else ()
    beside = (
        [f"outside the state dicts, {len(diff.beside.changes):,} differ"] if diff.beside else []
    )
    return Page(
        "diff",
        answer,
        "warn" if diff.differs else "good" if diff.is_whole else "calm",
        (sides[0].side("a", names[0], diff.a), sides[1].side("b", names[1], diff.b)),
        STATUSES,
        tuple(items),
        _measures(entries, items) if diff.compared_values else (),
        highlights=tuple(odd),
        notes=(*diff.layouts, *diff.notes, *beside, *(f"hint: {hint}" for hint in hints)),
        tables=_beside(diff),
        next=onwards,
    )


def _beside(diff: Diff) -> tuple[Table, ...]:
    """What differs outside of the state dicts, as the command's own table has it."""
    if diff.beside is None:
        return ()
    found = diff_table(diff.beside)
    rows = tuple(tuple("" if cell is None else str(cell) for cell in row) for row in found.rows)
    return (Table("outside the state dicts", found.titles, rows),)


def _item(entry: Entry, sides: tuple[Keys, Keys], has_values: bool, equal: set[str]) -> Item:
    a = (sides[0].numbers[entry.a.key],) if entry.a else NONE
    b = (sides[1].numbers[entry.b.key],) if entry.b else NONE
    why = None
    if entry.confidence is not None or entry.how:
        why = Why(ops=entry.how, confidence=entry.confidence, evidence=entry.evidence)
    note = "equal, but not bit for bit" if entry.key in equal else ""
    if entry.values:
        note = _values_note(entry.values)
    elif has_values and _is_uncompared(entry):
        note = "values were not compared"
    status = _NAMES[entry.kind]
    if entry.kind == "renamed" and entry.values and entry.values.changed and not entry.is_cast:
        status = _RENAMED_OTHER
    return Item(a, b, status, why, note)


def _values_note(values: Values) -> str:
    """How many numbers differ, and what is not finite."""
    if not values.elements:
        return "values differ; how far was not measured"
    parts = [f"{values.changed:,} of {values.elements:,} numbers differ"]
    for side, nans, infs in zip("ab", values.nans, values.infs, strict=True):
        parts += [
            f"{count:,} {word} in {side}" for count, word in ((nans, "NaN"), (infs, "Inf")) if count
        ]
    return ", ".join(parts + ["equal after a cast"] * values.is_cast)


def _is_missing(one: Uncompared, diff: Diff) -> bool:
    """Whether no entry has this key."""
    return one.key not in diff.a or one.key not in diff.b


def _uncompared(one: Uncompared, sides: tuple[Keys, Keys]) -> Item:
    a, b = ((side.numbers[one.key],) if one.key in side.numbers else NONE for side in sides)
    text = " and ".join(
        f"{kind} in {side}" for side, kind in (("a", one.a), ("b", one.b)) if kind is not None
    )
    return Item(a, b, "not compared", note=text)


def _is_uncompared(entry: Entry) -> bool:
    """Whether both sides have it, and nothing is known of how far their values are apart."""
    if entry.values is not None:
        return not entry.values.elements and isnan(entry.values.max_abs)
    return not (entry.is_equal or entry.kind == "same" or None in (entry.a, entry.b))


def _measures(entries: Sequence[Entry], items: Sequence[Item]) -> tuple[Measure, ...]:
    """What was measured; None for what is on both sides and was not compared."""
    measured = dict(_measured(entries))
    unknown: dict[int, float | str | None] = {
        at: None for at, entry in enumerate(entries) if _is_uncompared(entry)
    }
    unknown |= {at: None for at in range(len(entries), len(items)) if items[at].a and items[at].b}
    cosines = {at: _cosine(each) for at, each in measured.items()}
    largest = {at: each.max_abs for at, each in measured.items()}
    norms_a, norms_b = ({at: each.norms[side] for at, each in measured.items()} for side in (0, 1))
    return (
        Measure("cosine", "cosine", unknown | cosines, is_least_worst=True, same=1.0),
        Measure("max |Δ|", "largest difference", unknown | largest, is_log=True, same=0.0),
        Measure("norm of a", _NORMS, norms_a, is_log=True),
        Measure("norm of b", _NORMS, norms_b, is_log=True),
    )


def _cosine(values: Values) -> float | str:
    """NaN where a difference isn't finite, UNDEFINED where one side is all zeros: it has no
    angle.
    """
    if not values.is_finite:
        return nan
    return UNDEFINED if isnan(values.cosine) else values.cosine


def _measured(entries: Sequence[Entry]) -> Iterator[tuple[int, Values]]:
    for number, entry in enumerate(entries):
        if entry.values is not None and entry.values.elements:
            yield number, entry.values
