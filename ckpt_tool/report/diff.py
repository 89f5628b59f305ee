"""A diff as people and machines read it."""

from collections.abc import Sequence
from functools import reduce
from operator import add

from ckpt_tool.diff import Diff, Entry, Values
from ckpt_tool.keys import fold
from ckpt_tool.report.renames import renamed_section
from ckpt_tool.report.style import PLAIN, Style, columns, plural, safe, size_text
from ckpt_tool.tensors import Catalog, TensorInfo, shape_text

SIGNS = {"only_a": ("-", "red"), "only_b": ("+", "green")}


def diff_text(diff: Diff, names: tuple[str, str], style: Style = PLAIN, hints: Sequence[str] = ()) -> str:
    """Header, one section a kind, the closing count; `names` are what the two sides are called."""
    sections = [_header(diff, names, style)]
    sections += [_section(diff, kind, names, style) for kind in ("shape", "dtype", "value", "only_a", "only_b")]
    sections.insert(4, renamed_section(diff, style))
    if not style.is_folded:
        sections.insert(1, _section(diff, "same", names, style))
    sections += ["\n".join(f"hint: {safe(hint)}" for hint in hints)]
    return "\n\n".join([section for section in sections if section] + [_closing(diff)])


def _header(diff: Diff, names: tuple[str, str], style: Style) -> str:
    sides = (("---", names[0], diff.a), ("+++", names[1], diff.b))
    rows = [[f"{sign} {safe(name)}", plural(len(catalog), "tensor"), size_text(catalog.nbytes)] for sign, name, catalog in sides]
    lines = columns(rows, "lrr")
    return "\n".join(style.paint(line, colour) for line, colour in zip(lines, ("red", "green"), strict=True))


def _section(diff: Diff, kind: str, names: tuple[str, str], style: Style) -> str:
    entries = {entry.key: entry for entry in (diff.entries if kind == "same" else diff.changes) if entry.kind == kind}
    if not entries:
        return ""
    sign, colour = SIGNS.get(kind, ("~", "yellow") if kind != "same" else (" ", "dim"))
    titles = {"value": "values", "only_a": f"only in {safe(names[0])}", "only_b": f"only in {safe(names[1])}"}
    rows = [_row(sign, pattern, [entries[key] for key in keys], kind) for pattern, keys in _folded(entries, diff, style)]
    if kind == "value":
        rows.insert(0, [titles[kind], "", "max |Δ|", "cosine", "changed"])
    lines = columns(rows, "lrrrr" if kind == "value" else "lrl")
    if kind == "value":
        return "\n".join([lines[0], *(style.paint(line, colour) for line in lines[1:])])
    return "\n".join([titles.get(kind, kind), *(style.paint(line, colour) for line in lines)])


def _folded(entries: dict[str, Entry], diff: Diff, style: Style) -> list[tuple[str, tuple[str, ...]]]:
    """Patterns with their keys; without folding, or for one key, the key as it is."""
    if not style.is_folded:
        return [(key, (key,)) for key in entries]
    others = [key for catalog in (diff.a, diff.b) for key in catalog]
    folds = fold({key: _label(entry) for key, entry in entries.items()}, others)
    return [(one.keys[0] if len(one.keys) == 1 else one.pattern, one.keys) for one in folds]


def _label(entry: Entry) -> object:
    """What keys must have in common to stand on one line."""
    if entry.kind == "shape":
        return (entry.a and entry.a.shape, entry.b and entry.b.shape)
    if entry.kind == "dtype":
        return (entry.a and entry.a.dtype, entry.b and entry.b.dtype)
    return None


def _row(sign: str, pattern: str, entries: list[Entry], kind: str) -> list[str]:
    head = [f"  {sign} {safe(pattern)}", str(len(entries)) if len(entries) > 1 else ""]
    if kind == "value":
        values = reduce(add, [entry.values for entry in entries if entry.values])
        return [*head, *_value_cells(values)]
    return [*head, _what(entries)]


def _value_cells(values: Values) -> list[str]:
    if not values.elements:
        return ["not measured", "", ""]
    return [f"{values.max_abs:.1e}", f"{values.cosine:.4f}", f"{values.changed / values.elements:.1%}"]


def _what(entries: list[Entry]) -> str:
    first = entries[0]
    if first.kind == "shape" and first.a and first.b:
        return f"{shape_text(first.a.shape)} → {shape_text(first.b.shape)}"
    if first.kind == "dtype" and first.a and first.b:
        return f"{first.a.dtype.value} → {first.b.dtype.value}"
    infos = [info for entry in entries if (info := entry.a or entry.b)]
    if len({(info.dtype, info.shape) for info in infos}) == 1:
        return f"{infos[0].dtype.value} {shape_text(infos[0].shape)}"
    return size_text(sum(info.nbytes for info in infos))


def _closing(diff: Diff) -> str:
    counts = diff.counts
    differ = counts["value"] + counts["shape"] + counts["dtype"]
    told = {"same": counts["same"], "renamed": counts["renamed"], "differ": differ, "removed": counts["only_a"], "added": counts["only_b"]}
    text = ", ".join(f"{count:,} {word}" for word, count in told.items() if count or word == "same")
    if diff.identical:
        return f"{text}: identical" if diff.compared_values else f"{text}: the same keys, shapes and dtypes"
    return text


def diff_json(diff: Diff, names: tuple[str, str], verbose: bool = False) -> dict[str, object]:
    """The contract's JSON; `same` entries are listed with `verbose` only."""
    entries = [_entry_json(entry) for entry in (diff.entries if verbose else diff.changes)]
    found = {
        "schema": 1, "a": _side_json(names[0], diff.a), "b": _side_json(names[1], diff.b), "identical": diff.identical,
        "counts": diff.counts, "entries": entries,
    }  # fmt: skip
    return found | ({"regrouped": list(diff.regrouped)} if diff.regrouped else {})


def _side_json(path: str, catalog: Catalog) -> dict[str, object]:
    return {"path": path, "tensors": len(catalog), "bytes": catalog.nbytes}


def _entry_json(entry: Entry) -> dict[str, object]:
    found: dict[str, object] = {"kind": entry.kind, "a": _info_json(entry.a), "b": _info_json(entry.b)}
    if entry.confidence is not None:
        found |= {"confidence": entry.confidence, "evidence": entry.evidence}
    if entry.how:
        found["how"] = entry.how
    if entry.values:
        values = entry.values
        found |= {"elements": values.elements, "changed": values.changed, "max_abs": values.max_abs, "cosine": values.cosine}
    return found


def _info_json(info: TensorInfo | None) -> dict[str, object] | None:
    return {"key": info.key, "dtype": info.dtype.value, "shape": list(info.shape)} if info else None
