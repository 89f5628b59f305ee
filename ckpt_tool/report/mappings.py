"""The shipped mappings as people and machines read them."""

from collections.abc import Sequence

from ckpt_tool.api import ShippedMapping
from ckpt_tool.report.parts.style import PLAIN, Style, plural, safe
from ckpt_tool.report.parts.table import Row, table

NONE_FITS = "no shipped mapping accounts for these two"


def mappings_text(
    found: Sequence[ShippedMapping], style: Style = PLAIN, nothing: str = NONE_FITS
) -> str:
    """A line for each mapping: its name, what it is about, and for a pair how many tensors it maps,
    keeps and drops; `nothing` is what is said where there is none.
    """
    if not found:
        return nothing
    rows = [_row(each) for each in found]
    return "\n".join([*table(rows, "ll", style), style.paint(plural(len(found), "mapping"), "dim")])


def _row(each: ShippedMapping) -> Row:
    return Row(
        (safe(each.name),),
        (_counts(each),) if each.counts is not None else (),
        safe(each.about),
        margin="",
    )


def _counts(each: ShippedMapping) -> str:
    counts = ", ".join(f"{count:,} {word}" for word, count in (each.counts or {}).items())
    needs = " and ".join(
        f"`--set {name}=…`" + (f" ({', '.join(keys)})" if keys else "")
        for name, keys in each.needs.items()
    )
    return f"{counts}; needs {needs}" if needs else counts


def mappings_json(found: Sequence[ShippedMapping]) -> dict[str, object]:
    """Shipped mappings as JSON values."""
    return {"schema": 1, "mappings": [_mapping_json(each) for each in found]}


def _mapping_json(each: ShippedMapping) -> dict[str, object]:
    return {
        "name": each.name,
        "path": each.path,
        "about": each.about,
        "counts": each.counts,
        "needs": dict(each.needs),
    }
