"""What a checkpoint contains, as people and machines read it."""

from collections import Counter
from collections.abc import Mapping, Sequence

from ckpt_tool.formats import Checkpoint, Extra, LeftBehind
from ckpt_tool.keys import Fold, fold, outline, quote
from ckpt_tool.report.parts.amounts import (
    amount_of,
    by_dtype,
    bytes_text,
    dtypes_text,
    elements_text,
    shapes_text,
)
from ckpt_tool.report.parts.labels import alike_labels, by_number
from ckpt_tool.report.parts.left_behind import left_behind_json
from ckpt_tool.report.parts.style import PLAIN, Style, pattern_shown, plural, safe, size_text
from ckpt_tool.report.parts.table import Row, columns, shortened, table
from ckpt_tool.tensors import Catalog, TensorInfo, shape_text

ORDER = "order"
TITLES = ("n", "dtype", "shape", "bytes")

MAX_EXTRAS = 20
MAX_VALUES = 20
ASKED = ("call", "import")
_NOUNS = {"DTensor": "DTensor", "ShardedTensor": "ShardedTensor", "array": "array"}
"""What the kinds of tensors that can't be read are called, where not `KIND tensor`."""


def show_text(
    checkpoint: Checkpoint, style: Style = PLAIN, sort: str = ORDER, of: Catalog | None = None
) -> str:
    """Tensors, folded; where the state dict was found, what else the file holds, and what a pickle
    would have called. `of` are all tensors, where only some of them are shown.
    """
    blocks = [
        header_text(checkpoint, style),
        "\n".join(_tensors(checkpoint.catalog, style, sort)),
        unreadable_text(checkpoint.catalog, style),
    ]
    if of is None:
        blocks += [
            _left_behind(checkpoint, style),
            _metadata(checkpoint, style),
            _extras(checkpoint, style),
            _calls(checkpoint, style),
        ]
    blocks += [_totals(checkpoint.catalog, style)]
    return "\n\n".join([block for block in blocks if block] + [closing_text(checkpoint, of)])


def header_text(checkpoint: Checkpoint, style: Style) -> str:
    """The file, its format, the state dict that is shown, and what kind of checkpoint it is."""
    lines = [style.paint(f"{safe(checkpoint.path)}  ({checkpoint.format})", "bold")]
    contents = checkpoint.contents
    if contents.rivals:
        names = ", ".join(safe(f"#{name}") for name in contents.rivals)
        lines.append(
            f"all of the file is shown: it holds {len(contents.rivals)} equally likely "
            f"state dicts, {names}"
        )
    elif contents.taken or len(contents.state_dicts) > 1:
        others = [
            safe(f"#{found.path}") for found in contents.state_dicts if found.path != contents.taken
        ]
        taken = f"state dict: {safe('#' + contents.taken) if contents.taken else 'the file itself'}"
        lines.append(taken + (f"; also here: {', '.join(others)}" if others else ""))
    if contents.layout:
        lines.append(safe(contents.layout))
    return "\n".join(lines)


def _tensors(catalog: Catalog, style: Style, sort: str = ORDER) -> list[str]:
    rows = [Row(("",), TITLES, margin="")] + [
        Row(
            (pattern_shown(pattern if style.is_folded else quote(pattern)),),
            (
                f"{len(infos):,}" if len(infos) > 1 else "",
                dtypes_text(infos),
                shapes_text(info.shape for info in infos),
                size_text(amount_of(infos).nbytes),
            ),
            _tie(infos, catalog, style),
            margin="",
        )
        for pattern, infos in groups_of(catalog, style, sort)
    ]
    first, *others = table(rows, "rllr", style)
    return [style.paint(first, "dim"), *others] if others else []


def _tie(infos: Sequence[TensorInfo], of: Catalog, style: Style) -> str:
    """What tensors are one with, or share their storage with: a key, or a pattern for several."""
    is_tied = all(info.tied_to is not None for info in infos)
    others = [info.tied_to if is_tied else info.shared_storage_with for info in infos]
    names = dict.fromkeys(one for one in others if one is not None)
    if not names:
        return ""
    folds = fold(names, of) if style.is_folded else ()
    if len(infos) == 1 or len(folds) != 1:
        first, *more = names
        name = pattern_shown(first) + (f" and {len(more):,} more" if more else "")
    else:
        name = pattern_shown(folds[0].pattern)
    return f"= {name}" if is_tied else f"in {name}"


Group = tuple[str, list[TensorInfo]]


def groups_of(catalog: Catalog, style: Style = PLAIN, sort: str = ORDER) -> list[Group]:
    """Patterns with their tensors, in the catalog's order, by bytes, or by name."""
    return in_order(_folded(catalog, style), sort)


def in_order(groups: list[Group], sort: str) -> list[Group]:
    """The groups as they come, the largest first, or by name, numbers by their size."""
    if sort == "size":
        return sorted(groups, key=lambda group: -amount_of(group[1]).nbytes)
    return sorted(groups, key=lambda group: by_number(group[0])) if sort == "name" else groups


def _folded(catalog: Catalog, style: Style) -> list[Group]:
    if not style.is_folded:
        return [(key, [info]) for key, info in catalog.items()]
    folds = [one for one in _folds(catalog) if one.keys[0] in catalog]
    return [(one.pattern, [catalog[key] for key in one.keys]) for one in folds]


def _folds(catalog: Catalog) -> Sequence[Fold]:
    """All keys folded, those that can't be read too: a pattern matches its own alone."""
    return outline(
        alike_labels(catalog)
        | {
            key: (tensor.kind, tensor.shape, tensor.text)
            for key, tensor in catalog.unreadable.items()
        }
    )


def unreadable_text(catalog: Catalog, style: Style = PLAIN) -> str:
    """What the state dict names and can't be read, by kind, folded."""
    groups: list[tuple[str, tuple[str, ...]]] = [(quote(key), (key,)) for key in catalog.unreadable]
    if style.is_folded and groups:
        found = [one for one in _folds(catalog) if one.keys[0] in catalog.unreadable]
        groups = [(one.pattern, tuple(one.keys)) for one in found]
    by_kind: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    for pattern, keys in groups:
        by_kind.setdefault(catalog.unreadable[keys[0]].kind, []).append((pattern, keys))
    return "\n\n".join(_unreadable_of(kind, rows, catalog, style) for kind, rows in by_kind.items())


def unreadable_count(kind: str, count: int) -> str:
    """`3 quantised tensors`, `12 DTensors`."""
    return plural(count, _NOUNS.get(kind, f"{kind} tensor"))


def _unreadable_of(
    kind: str, groups: list[tuple[str, tuple[str, ...]]], catalog: Catalog, style: Style
) -> str:
    rows = []
    for pattern, keys in groups:
        first = catalog.unreadable[keys[0]]
        shape = "?" if first.shape is None else shape_text(first.shape)
        rows.append(
            [
                f"  {pattern_shown(pattern)}",
                f"{len(keys):,}" if len(keys) > 1 else "",
                shape,
                safe(first.text),
            ]
        )
    title = f"{unreadable_count(kind, sum(len(keys) for _, keys in groups))} that can't be read"
    return "\n".join([title, *columns(rows, "lrll", style)])


def left_behind_rows(left: Sequence[LeftBehind]) -> list[list[str]]:
    """What lies outside of the state dict, a row each; what has no tensors, in one."""
    rows = [
        [f"  {safe(one.path)}", one.kind, plural(one.tensors, "tensor"), size_text(one.nbytes)]
        for one in left
        if one.kind != "values"
    ]
    names = [safe(one.path) for one in left if one.kind == "values"]
    more = f" and {len(names) - MAX_VALUES} more" if len(names) > MAX_VALUES else ""
    return (
        [*rows, [f"  {', '.join(names[:MAX_VALUES])}{more}", "values", "", ""]] if names else rows
    )


def _left_behind(checkpoint: Checkpoint, style: Style) -> str:
    """One line for each thing outside of the state dict; with -v its tensors too."""
    contents = checkpoint.contents
    rows = left_behind_rows([one for one in contents.left_behind if one.kind != "values"])
    lines = ["outside of the state dict", *columns(rows, "llrr", style)] if rows else []
    if contents.elsewhere and not style.is_folded:
        lines += ["tensors elsewhere in the file", *_tensors(Catalog(contents.elsewhere), style)]
    return "\n".join(lines)


def _metadata(checkpoint: Checkpoint, style: Style) -> str:
    rows = [
        [f"  {safe(name)}", safe(value if len(value) <= 100 else value[:97] + "…")]
        for name, value in checkpoint.metadata.items()
    ]
    return "\n".join(["metadata", *_cut(columns(rows, "ll"), style)]) if rows else ""


def _extras(checkpoint: Checkpoint, style: Style) -> str:
    extras = _untold(checkpoint)
    shown = extras if not style.is_folded else extras[:MAX_EXTRAS]
    rows = [[f"  {safe(extra.path)}", extra.kind, safe(extra.text)] for extra in shown]
    if len(extras) > len(shown):
        rows.append([f"  and {len(extras) - len(shown)} more (-v lists them)", "", ""])
    return "\n".join(["besides the tensors", *_cut(columns(rows, "lll"), style)]) if rows else ""


def _cut(lines: Sequence[str], style: Style) -> list[str]:
    """Lines of values, as far as the terminal is wide; -v has all of them."""
    if not style.is_folded:
        return list(lines)
    return [shortened(style.text(line), style) for line in lines]


def _untold(checkpoint: Checkpoint) -> list[Extra]:
    """What is no tensor of the state dict, but for what another section shows."""
    prefix = f"{checkpoint.contents.taken}." if checkpoint.contents.taken else ""
    listed = {f"{prefix}{key}" for key in checkpoint.catalog.unreadable}
    rest = (extra for extra in checkpoint.extras if extra.kind not in ASKED)
    return [extra for extra in rest if not (extra.kind == "tensor" and extra.path in listed)]


def _calls(checkpoint: Checkpoint, style: Style) -> str:
    if not checkpoint.asked:
        return ""
    fact = (
        ": unpickling this file would call or import what it names; nothing of it was "
        "imported or run"
    )
    title = style.paint("warning", "yellow") + fact
    return "\n".join([title, *(f"  {safe(name)}" for name in checkpoint.asked)])


def _totals(catalog: Catalog, style: Style) -> str:
    """A line for each dtype, where there are several."""
    totals = by_dtype(catalog.values())
    if len(totals) < 2:
        return ""
    rows = [
        (
            f"  {dtype.value}",
            plural(amount.tensors, "tensor"),
            f"{amount.elements:,}",
            size_text(amount.nbytes),
        )
        for dtype, amount in totals
    ]
    return "\n".join(["by dtype", *columns(rows, "lrrr", style)])


def closing_text(checkpoint: Checkpoint, of: Catalog | None = None) -> str:
    """How many tensors, parameters and bytes there are; `of` how many, where some are shown."""
    catalog, others = checkpoint.catalog, checkpoint.contents.elsewhere
    kinds = Counter(tensor.kind for tensor in catalog.unreadable.values())
    unread = "".join(
        f", and {unreadable_count(kind, count)} that can't be read" for kind, count in kinds.items()
    )
    tensors = plural(len(catalog), "tensor")
    if of is not None:
        tensors = f"{len(catalog):,} of {plural(len(of), 'tensor')}"
    elements = f"{elements_text(catalog.values())}, " if catalog else ""
    text = f"{tensors}, {elements}{bytes_text(catalog)}{unread}"
    if not others or of is not None:
        return text
    elsewhere = size_text(sum(info.nbytes for info in others))
    return f"{text}, and {plural(len(others), 'tensor')} ({elsewhere}) elsewhere in the file"


def checksums_text(sums: Mapping[str, str]) -> str:
    """As sha256sum prints them, so that `sha256sum --check` understands it."""
    return "\n".join(f"{digest}  {safe(path)}" for path, digest in sums.items())


def show_json(checkpoint: Checkpoint) -> dict[str, object]:
    """The contract's JSON. `entries` are all tensors of the file; those outside the state dict say
    so in `elsewhere`.
    """
    contents = checkpoint.contents
    entries = [_entry(info, False) for info in contents.catalog.values()] + [
        _entry(info, True) for info in contents.elsewhere
    ]
    return {
        "schema": 1,
        "path": checkpoint.path,
        "format": checkpoint.format,
        "tensors": len(contents.catalog),
        "bytes": contents.catalog.nbytes,
        "entries": entries,
        "metadata": dict(checkpoint.metadata),
        "extras": [
            {"path": extra.path, "kind": extra.kind, "text": extra.text}
            for extra in checkpoint.extras
        ],
        "state_dict": contents.taken,
        "state_dicts": [
            {"path": found.path, "tensors": found.tensors, "bytes": found.nbytes}
            for found in contents.state_dicts
        ],
        "versions": {module: dict(entry) for module, entry in checkpoint.versions.items()},
        "unreadable": [
            {
                "key": tensor.key,
                "kind": tensor.kind,
                "shape": None if tensor.shape is None else list(tensor.shape),
                "text": tensor.text,
            }
            for tensor in contents.catalog.unreadable.values()
        ],
        "left_behind": left_behind_json(contents.left_behind),
        "rivals": list(contents.rivals),
        "layout": contents.layout,
        "distinct_bytes": contents.catalog.distinct_nbytes,
    }


def _entry(info: TensorInfo, is_elsewhere: bool) -> dict[str, object]:
    entry: dict[str, object] = {
        "key": info.key,
        "dtype": info.dtype.value,
        "shape": list(info.shape),
        "shares": info.shared_storage_with,
    }
    return entry | {"elsewhere": True} if is_elsewhere else entry
