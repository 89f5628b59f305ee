"""What was loaded into a model, as people, notebooks and machines read it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING

from ckpt_tool.keys import Fold, fold, outline
from ckpt_tool.report.parts.style import PLAIN, Style, plural, safe
from ckpt_tool.report.parts.table import Row, table
from ckpt_tool.report.plan import step_json
from ckpt_tool.tensors import Catalog, TensorInfo, shape_text

if TYPE_CHECKING:
    from ckpt_tool.training import LoadReport

MAX_FOLDS = 12
"""Patterns of a kind that are printed."""
MAX_KEYS = 500
"""Keys of a pattern that a notebook gets."""

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
        yield from (_row(word if i == 0 else "", safe(key), "") for i, key in enumerate(keys))
        return
    folds = _folds(part)
    for i, one in enumerate(folds[:MAX_FOLDS]):
        yield _row(word if i == 0 else "", safe(one.pattern), f"{len(one.keys):,}")
    if more := folds[MAX_FOLDS:]:
        count = sum(len(one.keys) for one in more)
        yield _row("", f"and {plural(len(more), 'more pattern')}", f"{count:,}")


def _row(word: str, name: str, count: str) -> Row:
    return Row((name,), (count,), margin=f"{word:<7}  ")


def _folds(part: Part) -> list[Fold]:
    """What was loaded as one would describe it; what was not in the fewest patterns."""
    word, keys, catalog = part
    return (outline if word == "loaded" else fold)(dict.fromkeys(keys), catalog or ())


def load_html(report: LoadReport) -> str:
    """The same for a notebook: each pattern opens to its keys, and each key to where it is from.
    Whatever the names are, they are text there.
    """
    sources = _sources(report)
    parts = "".join(_part_html(part, report, sources) for part in _parts(report))
    notes = "".join(f"<li>{_text(note)}</li>" for note in _notes(report))
    listed = f"<ul>{notes}</ul>" if notes else ""
    return f"<div><p><b>{counts_line(report)}</b></p>{parts}{listed}</div>"


def _sources(report: LoadReport) -> dict[str, str]:
    """What each loaded key was made of."""
    found = {}
    for key, (step, _) in report.plan.producers.items():
        ops = f" through {', '.join(op.name for op in step.ops)}" if step.ops else ""
        found[key] = f" ← {' + '.join(step.inputs)}{ops}"
    return found


def _part_html(part: Part, report: LoadReport, sources: dict[str, str]) -> str:
    word, keys, _ = part
    if not keys:
        return ""
    folds = "".join(_fold_html(one, part, sources) for one in _folds(part))
    # What was loaded may be long; the rest is what one looks for.
    is_open = "" if word == "loaded" else " open"
    title = f"{word}: {plural(len(keys), 'tensor')}"
    return f"<details{is_open}><summary>{title}</summary>{folds}</details>"


def _fold_html(one: Fold, part: Part, sources: dict[str, str]) -> str:
    word, _, catalog = part
    origins = sources if word == "loaded" else {}
    abouts = [(key, _described(key, catalog) + origins.get(key, "")) for key in one.keys[:MAX_KEYS]]
    items = "".join(f"<li><code>{_text(key)}</code>{_text(about)}</li>" for key, about in abouts)
    if more := one.keys[MAX_KEYS:]:
        items += f"<li>and {len(more):,} more</li>"
    title = f"<code>{_text(one.pattern)}</code> {len(one.keys):,}"
    margin = "margin-left: 1.5em"
    return f'<details style="{margin}"><summary>{title}</summary><ul>{items}</ul></details>'


def _described(key: str, catalog: Catalog | None) -> str:
    info: TensorInfo | None = catalog.get(key) if catalog is not None else None
    return f" {info.dtype.value} {shape_text(info.shape)}" if info is not None else ""


def _text(text: str) -> str:
    return escape(safe(text))


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
