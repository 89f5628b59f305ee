"""What was loaded into a model, as people, notebooks and machines read it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ckpt_tool.keys import Fold, fold, outline
from ckpt_tool.report.parts.style import PLAIN, Style, pattern_shown, plural, safe
from ckpt_tool.report.parts.table import Row, table
from ckpt_tool.report.plan import step_json
from ckpt_tool.tensors import Catalog

if TYPE_CHECKING:
    from ckpt_tool.training import LoadReport

MAX_FOLDS = 12
"""Patterns of a kind that are printed."""

Part = tuple[str, Sequence[str], Catalog | None]


def load_text(report: LoadReport, style: Style = PLAIN) -> str:
    """The keys of each kind folded into patterns, the notes, and the counts in the last line; every
    key where `style` doesn't fold.
    """
    rows = [row for part in _parts(report) for row in _rows(part, style)]
    notes = "\n".join(f"note: {safe(note)}" for note in _notes(report))
    blocks = ["\n".join(table(rows, "r", style)) if rows else "", notes]
    return "\n\n".join([*(block for block in blocks if block), counts_line(report)])


def counts_line(report: LoadReport) -> str:
    """How many keys were loaded, stayed fresh, and were dropped."""
    counts = len(report.loaded), len(report.fresh), len(report.dropped)
    return "{:,} loaded, {:,} kept fresh, {:,} dropped".format(*counts)


def _parts(report: LoadReport) -> tuple[Part, ...]:
    return (
        ("loaded", report.loaded, report.plan.target),
        ("fresh", report.fresh, report.plan.target),
        ("dropped", report.dropped, report.plan.source),
    )


def _notes(report: LoadReport) -> tuple[str, ...]:
    return (*report.plan.notes, *report.notes)


def _rows(part: Part, style: Style) -> Iterator[Row]:
    word, keys, _ = part
    if not style.is_folded:
        yield from (
            _row(word if i == 0 else "", pattern_shown(key), "") for i, key in enumerate(keys)
        )
        return
    folds = _folds(part)
    for i, one in enumerate(folds[:MAX_FOLDS]):
        yield _row(word if i == 0 else "", pattern_shown(one.pattern), f"{len(one.keys):,}")
    if more := folds[MAX_FOLDS:]:
        count = sum(len(one.keys) for one in more)
        yield _row("", f"and {plural(len(more), 'more pattern')}", f"{count:,}")


def _row(word: str, name: str, count: str) -> Row:
    return Row((name,), (count,), margin=f"{word:<7}  ")


def _folds(part: Part) -> list[Fold]:
    """What was loaded as one would describe it; what was not in the fewest patterns."""
    word, keys, catalog = part
    return (outline if word == "loaded" else fold)(dict.fromkeys(keys), catalog or ())


def load_json(report: LoadReport) -> dict[str, object]:
    """The whole report as JSON values; steps are those of `ckpt plan --json`."""
    return {
        "schema": 1,
        "counts": {
            "loaded": len(report.loaded),
            "fresh": len(report.fresh),
            "dropped": len(report.dropped),
        },
        "loaded": list(report.loaded),
        "fresh": list(report.fresh),
        "dropped": list(report.dropped),
        "changed": list(report.changed),
        "notes": list(_notes(report)),
        "steps": [step_json(step) for step in report.plan.steps],
    }
