"""The renamed keys of a diff: what became of which names, folded where whole groups moved alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ckpt_tool.comparing import Diff, Entry
from ckpt_tool.keys import quote
from ckpt_tool.keys.folding.pairs import pair_groups
from ckpt_tool.report.parts.style import Style, pattern_shown
from ckpt_tool.report.parts.table import Row, table
from ckpt_tool.report.parts.value_differences import remark_on, value_cells


def renamed_section(diff: Diff, style: Style) -> str:
    """A line for each group of keys that moved alike: both patterns, how many, how sure, and what
    else differs.
    """
    entries = [entry for entry in diff.changes if entry.kind == "renamed"]
    if not entries:
        return ""
    groups = (
        renamed_groups(entries, diff)
        if style.is_folded
        else [(quote(key_a(entry)), quote(key_b(entry)), [entry]) for entry in entries]
    )
    rows = [
        Row(
            (f"> {pattern_shown(a)}", f"→ {pattern_shown(b)}"),
            (f"{len(group):,}" if len(group) > 1 else "",),
            _remark(group),
        )
        for a, b, group in groups
    ]
    return "\n".join(["renamed", *(style.paint(line, "cyan") for line in table(rows, "r", style))])


def key_a(entry: Entry) -> str:
    """The key of side a; there is one."""
    assert entry.a is not None
    return entry.a.key


def key_b(entry: Entry) -> str:
    """The key of side b; there is one."""
    assert entry.b is not None
    return entry.b.key


def renamed_groups(entries: Sequence[Entry], diff: Diff) -> Iterator[tuple[str, str, list[Entry]]]:
    """Patterns of both sides with what they stand for."""
    known = {key_a(entry): entry for entry in entries}
    pairs = {key: key_b(entry) for key, entry in known.items()}
    labels = {key: _label(entry) for key, entry in known.items()}
    for group in pair_groups(pairs, labels, *diff.whole_sides):
        yield group.a, group.b, [known[key] for key in group.keys]


def _label(entry: Entry) -> object:
    """What keys must have in common besides their names to stand on one line."""
    return entry.how, _dtypes(entry)


def _dtypes(entry: Entry) -> str:
    if entry.a is None or entry.b is None or entry.a.dtype is entry.b.dtype:
        return ""
    return f"{entry.a.dtype.value} → {entry.b.dtype.value}"


def _remark(group: Sequence[Entry]) -> str:
    """How sure the least sure one is, ops and dtypes between the two, and how far values differ."""
    least = min((entry.confidence for entry in group if entry.confidence is not None), default=1.0)
    parts = [f"{least:.2f}" if least < 1 else "", group[0].how, _dtypes(group[0])]
    if others := sum(entry.values is not None for entry in group):
        most, cosine, _ = value_cells(group)
        parts.append(f"{others:,} with other values" if others < len(group) else "")
        parts.append(f"max |Δ| {most}, cosine {cosine}")
        parts.append(remark_on(group) if len(group) > 1 else "")
    return ", ".join(part for part in parts if part)
