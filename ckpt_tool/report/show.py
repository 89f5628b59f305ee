"""What a checkpoint contains, as people and machines read it."""

from collections.abc import Mapping

from ckpt_tool.formats import Checkpoint, Extra
from ckpt_tool.keys import fold
from ckpt_tool.report.style import PLAIN, Style, columns, plural, safe, size_text
from ckpt_tool.tensors import Catalog, TensorInfo, shape_text

MOST_EXTRAS = 20
ASKED = ("call", "import")


def show_text(checkpoint: Checkpoint, style: Style = PLAIN) -> str:
    """Tensors, folded; where the state dict was found, what else the file holds, and what a pickle would have called."""
    blocks = [_header(checkpoint, style), "\n".join(_tensors(checkpoint.catalog, style)), _elsewhere(checkpoint, style)]
    blocks += [_metadata(checkpoint), _extras(checkpoint, style), _calls(checkpoint, style)]
    return "\n\n".join([block for block in blocks if block] + [_closing(checkpoint)])


def _header(checkpoint: Checkpoint, style: Style) -> str:
    lines = [style.paint(f"{safe(checkpoint.path)}  ({checkpoint.format})", "bold")]
    contents = checkpoint.contents
    if contents.taken or len(contents.state_dicts) > 1:
        others = [safe(f"#{found.path}") for found in contents.state_dicts if found.path != contents.taken]
        taken = f"state dict taken: {safe('#' + contents.taken) if contents.taken else 'the file itself'}"
        lines.append(taken + (f"; also here: {', '.join(others)}" if others else ""))
    return "\n".join(lines)


def _tensors(catalog: Catalog, style: Style) -> list[str]:
    rows = []
    for pattern, infos in _folded(catalog, style):
        tied = f"= {safe(infos[0].shares)}" if len(infos) == 1 and infos[0].shares else ""
        count = str(len(infos)) if len(infos) > 1 else ""
        rows.append(
            [f"  {safe(pattern)}", count, infos[0].dtype.value, shape_text(infos[0].shape), size_text(sum(i.nbytes for i in infos)), tied]
        )
    return columns(rows, "lrllrl")


def _folded(catalog: Catalog, style: Style) -> list[tuple[str, list[TensorInfo]]]:
    if not style.is_folded:
        return [(key, [info]) for key, info in catalog.items()]
    folds = fold({key: (info.dtype, info.shape, info.shares is None) for key, info in catalog.items()})
    return [(one.keys[0] if len(one.keys) == 1 else one.pattern, [catalog[key] for key in one.keys]) for one in folds]


def _elsewhere(checkpoint: Checkpoint, style: Style) -> str:
    others = checkpoint.contents.elsewhere
    if not others:
        return ""
    return "\n".join(["tensors elsewhere in the file", *_tensors(Catalog(others), style)])


def _metadata(checkpoint: Checkpoint) -> str:
    rows = [[f"  {safe(name)}", safe(value if len(value) <= 100 else value[:97] + "…")] for name, value in checkpoint.metadata.items()]
    return "\n".join(["metadata", *columns(rows, "ll")]) if rows else ""


def _extras(checkpoint: Checkpoint, style: Style) -> str:
    extras = [extra for extra in checkpoint.extras if extra.kind not in ASKED]
    shown = extras if not style.is_folded else extras[:MOST_EXTRAS]
    rows = [[f"  {safe(extra.path)}", extra.kind, safe(extra.text)] for extra in shown]
    if len(extras) > len(shown):
        rows.append([f"  and {len(extras) - len(shown)} more (-v lists them)", "", ""])
    return "\n".join(["besides the tensors", *columns(rows, "lll")]) if rows else ""


def calls(extras: tuple[Extra, ...]) -> list[str]:
    """What unpickling would have called or imported, each once."""
    return sorted({extra.text for extra in extras if extra.kind in ASKED})


def _calls(checkpoint: Checkpoint, style: Style) -> str:
    named = calls(checkpoint.extras)
    if not named:
        return ""
    fact = ": unpickling this file would call or import what it names; nothing of it was imported or run"
    title = style.paint("warning", "yellow") + fact
    return "\n".join([title, *(f"  {safe(name)}" for name in named)])


def _closing(checkpoint: Checkpoint) -> str:
    catalog, others = checkpoint.catalog, checkpoint.contents.elsewhere
    text = f"{plural(len(catalog), 'tensor')}, {size_text(catalog.nbytes)}"
    return text + (f", and {plural(len(others), 'tensor')} elsewhere in the file" if others else "")


def checksums_text(sums: Mapping[str, str]) -> str:
    """As sha256sum prints them, so that `sha256sum --check` understands it."""
    return "\n".join(f"{digest}  {safe(path)}" for path, digest in sums.items())


def show_json(checkpoint: Checkpoint) -> dict[str, object]:
    """The contract's JSON. `entries` are all tensors of the file; those outside the state dict say so in `elsewhere`."""
    contents = checkpoint.contents
    entries = [_entry(info, False) for info in contents.catalog.values()] + [_entry(info, True) for info in contents.elsewhere]
    return {
        "schema": 1,
        "path": checkpoint.path,
        "format": checkpoint.format,
        "tensors": len(contents.catalog),
        "bytes": contents.catalog.nbytes,
        "entries": entries,
        "metadata": dict(checkpoint.metadata),
        "extras": [{"path": extra.path, "kind": extra.kind, "text": extra.text} for extra in checkpoint.extras],
        "state_dict": contents.taken,
        "state_dicts": [{"path": found.path, "tensors": found.tensors, "bytes": found.nbytes} for found in contents.state_dicts],
        "versions": {module: dict(entry) for module, entry in checkpoint.versions.items()},
    }


def _entry(info: TensorInfo, is_elsewhere: bool) -> dict[str, object]:
    entry: dict[str, object] = {"key": info.key, "dtype": info.dtype.value, "shape": list(info.shape), "shares": info.shares}
    return entry | {"elsewhere": True} if is_elsewhere else entry
