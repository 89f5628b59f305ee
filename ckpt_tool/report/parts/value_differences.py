"""How far values differ, as people read it: of each group the worst tensor, the worst group first,
and what is not finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, isnan, nan
from typing import TYPE_CHECKING

from ckpt_tool.comparing import Entry
from ckpt_tool.keys import fold, quote
from ckpt_tool.keys.folding.fold import Fold
from ckpt_tool.report.parts.style import plural
from ckpt_tool.tensors import DType
from ckpt_tool.wording import EMPTY

if TYPE_CHECKING:
    from ckpt_tool.comparing import Values

TITLES = ("max |Δ|", "cosine", "changed")
"""Of the columns that `value_cells` fills."""
FORMATS = (".1e", ".4f", ".1%")
"""How people read the numbers of these columns."""
MAX_NON_FINITE = 8

Group = tuple[str, list[Entry]]


def worst_first(groups: Sequence[Group]) -> list[Group]:
    """The groups, those with the least cosine first."""
    return sorted(groups, key=lambda group: _badness(_worst(group[1])))


def _worst(entries: Sequence[Entry]) -> Entry:
    return min(entries, key=_badness)


def _badness(entry: Entry) -> tuple[float, float]:
    """Smaller is worse: a difference that isn't finite, then the cosine, then how far the largest
    difference is. What was not measured comes last.
    """
    values = entry.values
    if values is None or not values.elements:
        return 2.0, 0.0
    if not values.is_finite:
        return -2.0, -values.largest
    # All zeros on a side have no direction: they are as unlike as what is at right angles.
    return 0.0 if isnan(values.cosine) else values.cosine, -values.largest


def value_cells(entries: Sequence[Entry]) -> list[str]:
    """The largest difference, the least cosine, and the share of numbers that changed, over a
    group.
    """
    most, cosine, changed = value_numbers(entries)
    if changed is None:
        return [str(most), "", ""]
    assert isinstance(most, float)
    largest = "NaN" if isnan(most) else f"{most:{FORMATS[0]}}" if isfinite(most) else "Inf"
    return [
        largest,
        "-" if cosine is None else f"{cosine:{FORMATS[1]}}",
        f"{changed:{FORMATS[2]}}",
    ]


def value_numbers(entries: Sequence[Entry]) -> tuple[float | str, float | None, float | None]:
    """The same as numbers: NaN as torch has it, for which NaN minus anything is NaN; a word where
    there is no number.
    """
    measured = [entry.values for entry in entries if entry.values and entry.values.elements]
    if not measured:
        compared = any(entry.values is not None for entry in entries)
        return "not measured" if compared else "not compared", None, None
    elements = sum(values.elements for values in measured)
    changed = sum(values.changed for values in measured) / elements
    worst = _worst(entries).values
    cosine = worst.cosine if worst and worst.is_finite else nan
    is_nan = any(isnan(values.max_abs) for values in measured)
    most = nan if is_nan else max(values.max_abs for values in measured)
    return float(most), None if isnan(cosine) else cosine, changed


def remark_on(entries: Sequence[Entry]) -> str:
    """The two types, whether one is the other's cast, and of several tensors which is the worst."""
    first = entries[0]
    parts = []
    if first.kind == "dtype" and first.a and first.b:
        parts.append(f"{first.a.dtype.value} → {first.b.dtype.value}")
    # Of renamed tensors the line has the types already.
    if cast := _cast_of(entries):
        return ", ".join([*parts, f"equal after a cast to {cast.value}"])
    if worst := worst_of(entries):
        parts.append(f"worst: {worst}")
    return ", ".join(parts)


def _cast_of(entries: Sequence[Entry]) -> DType | None:
    """The type that a cast to makes both sides of all of these equal."""
    first = entries[0]
    if not all(entry.is_cast for entry in entries) or not (first.a and first.b and first.values):
        return None
    return _smaller((first.a.dtype, first.b.dtype), first.values.casts)


def worst_of(entries: Sequence[Entry]) -> str | None:
    """Of several tensors the one that differs most; None for one, and where none was measured."""
    is_measured = any(entry.values and entry.values.elements for entry in entries)
    return _worst(entries).key or EMPTY if len(entries) > 1 and is_measured else None


def _smaller(both: tuple[DType, DType], casts: Sequence[bool]) -> DType:
    """The type that a cast to makes both sides equal. Of two, for numbers that both types hold, the
    one that has less room, in whatever order the sides stand.
    """
    found = [dtype for dtype, is_cast in zip(both, casts, strict=True) if is_cast]
    return min(found, key=lambda dtype: (dtype.bits, dtype.value))


def oddities(
    entries: Sequence[Entry], names: tuple[str, str], others: Sequence[str] | None
) -> list[str]:
    """What is not finite: a line for each pattern of tensors that have as much of it, or of each
    tensor. `others` are all keys at hand.
    """
    texts = {
        entry.key: text
        for entry in entries
        if entry.values and (text := _odd_text(entry.values, names))
    }
    is_folded = others is not None and texts
    folds = fold(texts, others or ()) if is_folded else [Fold(quote(key), (key,)) for key in texts]
    lines = [_odd_line(one, texts[one.keys[0]]) for one in folds]
    more = sum(len(one.keys) for one in folds[MAX_NON_FINITE:])
    return (
        [*lines[:MAX_NON_FINITE], f"and {plural(more, 'more tensor')} with NaN or Inf"]
        if more
        else lines
    )


def _odd_line(one: Fold, text: str) -> str:
    """What is said of a pattern's tensors, or of one."""
    if len(one.keys) == 1:
        return f"{one.pattern or EMPTY}: {text}"
    return f"{one.pattern} ({len(one.keys):,}): {text} each"


def _odd_text(values: Values, names: tuple[str, str]) -> str:
    sides = []
    for name, nans, infs in zip(names, values.nans, values.infs, strict=True):
        if nans or infs:
            counts = [
                f"{count:,} {word}" for count, word in ((nans, "NaN"), (infs, "Inf")) if count
            ]
            sides.append(f"{' and '.join(counts)} in {name}")
    return f"{', '.join(sides)} of {plural(values.elements, 'number')}" if sides else ""
