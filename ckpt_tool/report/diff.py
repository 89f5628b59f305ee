"""A diff as people and machines read it."""

from collections.abc import Sequence

from ckpt_tool.comparing import READABLE, Diff, Entry, Uncompared
from ckpt_tool.keys import fold, outline, quote
from ckpt_tool.keys.folding.pairs import spelt
from ckpt_tool.report.parts.amounts import amount_of
from ckpt_tool.report.parts.sizes import sizes_of
from ckpt_tool.report.parts.style import PLAIN, Style, pattern_shown, plural, safe, size_text
from ckpt_tool.report.parts.table import Row, columns, table
from ckpt_tool.report.parts.value_differences import (
    TITLES,
    oddities,
    remark_on,
    value_cells,
    worst_first,
)
from ckpt_tool.report.renames import renamed_section
from ckpt_tool.tensors import Catalog, TensorInfo, shape_text

TITLES_OF = {"value": "values", "within": "values within the tolerance"}
MEASURED = ("value", "within", "dtype")
"""Kinds of entries whose values are compared."""
SIGNS = {"only_a": ("-", "red"), "only_b": ("+", "green"), "same": (" ", "dim")}


def diff_text(
    diff: Diff, names: tuple[str, str], style: Style = PLAIN, hints: Sequence[str] = ()
) -> str:
    """Header, one section a kind, what was not compared, the closing count; `names` are what the
    two sides are called.
    """
    sections = [
        header_text(diff, names, style),
        *_sections(diff, names, style),
        _uncompared(diff, names, style),
    ]
    sections += beside_sections(diff, names, style)
    sections += [
        "\n".join(
            [
                *(f"note: {safe(note)}" for note in (*diff.layouts, *diff.notes)),
                *(f"hint: {safe(hint)}" for hint in hints),
            ]
        )
    ]
    return "\n\n".join([section for section in sections if section] + [closing_text(diff)])


def header_text(diff: Diff, names: tuple[str, str], style: Style) -> str:
    """The two sides, with how many tensors and bytes each has."""
    sides = zip(("---", "+++"), names, (diff.a, diff.b), diff.whole_sides, strict=True)
    rows = [
        [f"{sign} {safe(name)}", _tensors_text(catalog, whole), *_bytes(catalog)]
        for sign, name, catalog, whole in sides
    ]
    lines = columns(rows, "lrrl", style)
    return "\n".join(
        style.paint(line, colour) for line, colour in zip(lines, ("red", "green"), strict=True)
    )


def _bytes(catalog: Catalog) -> tuple[str, str]:
    """The size of a side, and whether something in it counts once."""
    amount = amount_of(catalog.values())
    return size_text(amount.nbytes), f"({amount.remark})" if amount.remark else ""


def _tensors_text(catalog: Catalog, whole: Catalog) -> str:
    """How many tensors a side has, of how many where some were chosen."""
    some = "" if len(catalog) == len(whole) else f"{len(catalog):,} of "
    return f"{some}{plural(len(whole), 'tensor')}"


def beside_sections(diff: Diff, names: tuple[str, str], style: Style) -> list[str]:
    """A section for each kind of difference outside of the state dicts."""
    if diff.beside is None:
        return []
    odd = _uncompared(diff.beside, names, style)
    return [
        *_sections(diff.beside, names, style, "outside the state dict, "),
        *([f"outside the state dict, {odd}"] if odd else []),
    ]


def _sections(diff: Diff, names: tuple[str, str], style: Style, before: str = "") -> list[str]:
    sections = [
        _section(diff, kind, names, style)
        for kind in ("shape", "dtype", "value", "within", "only_a", "only_b")
    ]
    sections.insert(4, renamed_section(diff, style))
    if not style.is_folded:
        sections.insert(0, _section(diff, "same", names, style))
    return [_within(before, section) for section in sections if section]


def _within(before: str, section: str) -> str:
    """A section with what it is a part of: above a row of heads, that has no room for it."""
    if before and section.startswith("values "):
        return f"{before.rstrip(', ')}\n{section}"
    return before + section


def shown_kind(entry: Entry) -> str:
    """The kind under which it is shown: values that differ as little as is tolerated are apart."""
    return "within" if entry.is_within else entry.kind


def _section(diff: Diff, kind: str, names: tuple[str, str], style: Style) -> str:
    listed = diff.entries if kind == "same" else diff.changes
    entries = {entry.key: entry for entry in listed if shown_kind(entry) == kind}
    if not entries:
        return ""
    sign, colour = SIGNS.get(kind, ("~", "yellow"))
    titles = {
        **TITLES_OF,
        "only_a": f"only in {safe(names[0])}",
        "only_b": f"only in {safe(names[1])}",
    }
    groups = [
        (pattern, [entries[key] for key in keys]) for pattern, keys in folded(entries, diff, style)
    ]
    if kind in MEASURED and diff.compared_values:
        keys = _all_keys(diff) if style.is_folded else None
        return _value_section(
            titles.get(kind, kind), (sign, colour), worst_first(groups), names, style, keys
        )
    rows = [_row(sign, _shown(pattern, style), group) for pattern, group in groups]
    return "\n".join(
        [titles.get(kind, kind), *(style.paint(line, colour) for line in table(rows, "rl", style))]
    )


def _value_section(
    title: str,
    sign_and_colour: tuple[str, str],
    groups: Sequence[tuple[str, list[Entry]]],
    names: tuple[str, str],
    style: Style,
    keys: Sequence[str] | None,
) -> str:
    """Groups whose values were measured: of each the worst tensor, with its name. `keys` are all at
    hand, where they are to be folded.
    """
    sign, colour = sign_and_colour
    rows = [Row((title,), ("", *TITLES), margin="")]
    rows += [
        Row(
            (f"{sign} {_shown(pattern, style)}",),
            (_count(group), *value_cells(group)),
            safe(remark_on(group)),
        )
        for pattern, group in groups
    ]
    lines = table(rows, "rrrr", style)
    odd = oddities([entry for _, group in groups for entry in group], names, keys)
    return "\n".join(
        [
            lines[0],
            *(style.paint(line, colour) for line in lines[1:]),
            *(f"  {safe(line)}" for line in odd),
        ]
    )


def folded(
    entries: dict[str, Entry], diff: Diff, style: Style
) -> list[tuple[str, tuple[str, ...]]]:
    """Patterns with their keys; without folding, the keys as they are."""
    if not style.is_folded:
        return [(key, (key,)) for key in entries]
    sizes = sizes_of(entry for entry in entries.values() if entry.kind == "value")
    labels = {key: (_label(entry), sizes.get(key)) for key, entry in entries.items()}
    # A shape or a dtype that changed everywhere is one fact; what is new, gone or other has parts.
    is_one_fact = next(iter(entries.values())).kind in ("shape", "dtype") and not any(
        entry.values for entry in entries.values()
    )
    folds = (fold if is_one_fact else outline)(labels, _all_keys(diff))
    return [(spelt(one.pattern, one.keys), one.keys) for one in folds]


def _shown(pattern: str, style: Style) -> str:
    return pattern_shown(pattern if style.is_folded else quote(pattern))


def _all_keys(diff: Diff) -> list[str]:
    return [key for catalog in (diff.a, diff.b) for key in (*catalog, *catalog.unreadable)]


def _label(entry: Entry) -> object:
    """What keys must have in common to stand on one line."""
    if entry.kind == "shape":
        return (entry.a and entry.a.shape, entry.b and entry.b.shape)
    if entry.kind == "dtype":
        return (
            entry.a and entry.a.dtype,
            entry.b and entry.b.dtype,
            entry.values.casts if entry.values else None,
        )
    return None


def _count(entries: Sequence[Entry]) -> str:
    return f"{len(entries):,}" if len(entries) > 1 else ""


def _row(sign: str, pattern: str, entries: list[Entry]) -> Row:
    return Row((f"{sign} {pattern}",), (_count(entries), _what(entries)))


def _what(entries: list[Entry]) -> str:
    first = entries[0]
    if first.a and first.b:
        if first.kind == "shape":
            return f"{shape_text(first.a.shape)} → {shape_text(first.b.shape)}"
        if first.kind == "dtype":
            return f"{first.a.dtype.value} → {first.b.dtype.value}"
    return _what_of([info for entry in entries if (info := entry.a or entry.b)])


def _what_of(infos: Sequence[TensorInfo]) -> str:
    """The one form of tensors, or else their bytes."""
    if len({(info.dtype, info.shape) for info in infos}) == 1:
        return f"{infos[0].dtype.value} {shape_text(infos[0].shape)}"
    return size_text(sum(info.nbytes for info in infos))


def _uncompared(diff: Diff, names: tuple[str, str], style: Style) -> str:
    """Keys that can't be read on a side, folded where they are the same on both."""
    if not diff.uncompared:
        return ""
    known = {one.key: one for one in diff.uncompared}
    folds = fold({key: (one.a, one.b) for key, one in known.items()}, _all_keys(diff))
    rows = []
    for one in folds:
        rows.append(
            [
                f"  ? {pattern_shown(one.pattern)}",
                f"{len(one.keys):,}" if len(one.keys) > 1 else "",
                _kinds(known[one.keys[0]], names),
            ]
        )
    return "\n".join(
        ["not compared", *(style.paint(line, "yellow") for line in columns(rows, "lrl", style))]
    )


def _kinds(one: Uncompared, names: tuple[str, str]) -> str:
    if one.a == one.b:
        return f"{one.a} on both sides"
    sides = ((safe(name), kind) for name, kind in zip(names, (one.a, one.b), strict=True))
    words = {None: "missing in", READABLE: "readable in"}
    return ", ".join(
        f"{words[kind]} {name}" if kind in words else f"{kind} in {name}" for name, kind in sides
    )


def closing_text(diff: Diff) -> str:
    """The answer in one line: how many keys are the same, and how many differ in which way."""
    counts = diff.counts
    within = sum(entry.is_within for entry in diff.changes)
    differ = counts["value"] + counts["shape"] + counts["dtype"] - within
    shown = {
        "same": counts["same"],
        "renamed": counts["renamed"],
        "within the tolerance": within,
        _differ(differ): differ,
        "removed": counts["only_a"],
        "added": counts["only_b"],
    }
    shown["not compared"] = len(diff.uncompared)
    text = ", ".join(
        f"{count:,} {word}" for word, count in shown.items() if count or word == "same"
    )
    renamed = [entry for entry in diff.changes if entry.kind == "renamed" and entry.values]
    other = sum(entry.values.changed > 0 and not entry.is_cast for entry in renamed if entry.values)
    if other:
        text = text.replace(" renamed", f" renamed ({other:,} with other values)")
    if diff.beside is not None:
        text += f"; {_counts_beside(diff.beside)} outside the state dict"
    if (diff.changes or (diff.beside and diff.beside.changes)) and not diff.differs:
        return text
    text = text if diff.differs or not diff.is_whole else f"{text}: {_verdict(diff)}"
    is_silent = diff.compared_values or not counts["same"]
    return text if is_silent else f"{text}; values were not compared"


def _counts_beside(beside: Diff) -> str:
    within = sum(entry.is_within for entry in beside.changes)
    odd, same = len(beside.uncompared), beside.counts["same"]
    renamed = beside.counts["renamed"]
    apart = len(beside.changes) - within - renamed
    counted = {_differ(apart): apart, "renamed": renamed, "within the tolerance": within}
    texts = [f"{count:,} {word}" for word, count in counted.items() if count]
    texts = texts or ([f"{same:,} the same"] if same or not odd else [])
    return ", ".join([*texts, *([f"{odd:,} not compared"] if odd else [])])


def _differ(count: int) -> str:
    return "differs" if count == 1 else "differ"


def _verdict(diff: Diff) -> str:
    if not diff.compared_values:
        return "the same keys, shapes and dtypes" + (
            "" if diff.a else "; there is no state dict, and values were not compared"
        )
    equal = (*diff.equal, *(diff.beside.equal if diff.beside else ()))
    if not equal:
        if (len(diff.a), len(diff.b)) != tuple(map(len, diff.whole_sides)):
            return "what was compared is the same, bit for bit"
        return "the same weights, bit for bit" if diff.notes else "identical"
    some = ", ".join(map(pattern_shown, equal[:3])) + (" …" if len(equal) > 3 else "")
    return (
        f"equal, but not bit for bit: {plural(len(equal), 'tensor')} with 0 for -0 "
        f"or NaNs of other bits ({some})"
    )
