"""What differs between two checkpoints, as a table."""

from collections.abc import Iterator

from ckpt_tool.comparing import Diff, Entry
from ckpt_tool.report.diff import MEASURED, TITLES_OF, folded, shown_kind
from ckpt_tool.report.parts.amounts import dtypes_text, shapes_text
from ckpt_tool.report.parts.style import PLAIN, Style
from ckpt_tool.report.parts.value_differences import FORMATS, value_numbers, worst_first, worst_of
from ckpt_tool.report.renames import key_a, key_b, renamed_groups
from ckpt_tool.report.tables.formats import Cell, Table
from ckpt_tool.tensors import TensorInfo

TITLES = ("change", "a", "b", "tensors", "in a", "in b")
VALUES = ("max abs", "cosine", "changed", "worst")
BESIDE = " outside the state dict"
WORDS = {**TITLES_OF, "only_a": "removed", "only_b": "added"}


def diff_table(diff: Diff, style: Style = PLAIN) -> Table:
    """A row for each pattern of what differs, or where `style` doesn't fold, for each tensor."""
    has_values = diff.compared_values
    rows = []
    for kind, a, b, entries in _groups(diff, style):
        row: tuple[Cell, ...] = (
            WORDS.get(kind, kind),
            a,
            b,
            len(entries),
            _about([each.a for each in entries]),
            _about([each.b for each in entries]),
        )
        rows.append((*row, *_values(entries)) if has_values else row)
    for one in diff.uncompared:
        row = ("not compared", one.key, one.key, 1, one.a, one.b)
        rows.append((*row, *(None for _ in VALUES)) if has_values else row)
    if diff.beside is not None:
        rows += [
            (f"{first}{BESIDE}", *cells) for first, *cells in diff_table(diff.beside, style).rows
        ]
    titles = (*TITLES, *VALUES) if has_values else TITLES
    return Table(titles, tuple(rows), ("a", "b", "worst"), dict(zip(VALUES, FORMATS, strict=False)))


def _groups(diff: Diff, style: Style) -> Iterator[tuple[str, str | None, str | None, list[Entry]]]:
    for kind in ("shape", "dtype", "value", "within", "only_a", "only_b"):
        entries = {entry.key: entry for entry in diff.changes if shown_kind(entry) == kind}
        folds = folded(entries, diff, style) if entries else ()
        groups = [(pattern, [entries[key] for key in keys]) for pattern, keys in folds]
        is_measured = kind in MEASURED and diff.compared_values
        for pattern, group in worst_first(groups) if is_measured else groups:
            a, b = (None if kind == "only_b" else pattern), (None if kind == "only_a" else pattern)
            yield kind, a, b, group
    renamed = [entry for entry in diff.changes if entry.kind == "renamed"]
    if style.is_folded:
        for source, target, group in renamed_groups(renamed, diff):
            yield "renamed", source, target, group
    else:
        yield from (("renamed", key_a(each), key_b(each), [each]) for each in renamed)


def _about(infos: list[TensorInfo | None]) -> str | None:
    known = [info for info in infos if info is not None]
    if not known:
        return None
    return f"{dtypes_text(known)} {shapes_text(info.shape for info in known)}"


def _values(entries: list[Entry]) -> tuple[Cell, ...]:
    if not any(entry.values for entry in entries):
        return tuple(None for _ in VALUES)
    return *value_numbers(entries), worst_of(entries)
