"""A diff in two columns: what each side has, beside what the other has in its place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from ckpt_tool.comparing import Diff, Entry
from ckpt_tool.keys import outline, quote
from ckpt_tool.report.diff import beside_sections, closing_text, header_text
from ckpt_tool.report.parts.amounts import dtypes_text, shapes_text
from ckpt_tool.report.parts.style import PLAIN, Style, pattern_shown, safe
from ckpt_tool.report.parts.table import GAP, broken, cut, width_of, wrapped
from ckpt_tool.report.parts.value_differences import value_cells
from ckpt_tool.report.renames import key_b, renamed_groups
from ckpt_tool.tensors import TensorInfo

MARKS = {
    "same": (" ", "dim"),
    "only_a": ("-", "red"),
    "only_b": ("+", "green"),
    "renamed": (">", "cyan"),
}
"""What stands between the columns, and the colour of the line; of other differences `~`."""


@dataclass(frozen=True, slots=True)
class Pairing:
    """A line: what either side calls its tensors, and the entries that it stands for."""

    kind: str
    a: str
    b: str
    entries: tuple[Entry, ...]


def side_by_side_text(diff: Diff, names: tuple[str, str], style: Style = PLAIN) -> str:
    """Both sides in the order of their keys, equal ones too; the counts in the last line."""
    pairings = sorted(_pairings(diff, style), key=_positions(diff))
    columns = [(_side(each, 0, style), each, _side(each, 1, style)) for each in pairings]
    half = _half([side for left, _, right in columns for side in (left, right)], style.width)
    lines = [
        line for left, each, right in columns for line in _lines(left, each, right, half, style)
    ]
    blocks = [header_text(diff, names, style), "\n".join(lines)]
    if diff.uncompared:
        keys = ", ".join(pattern_shown(one.key) for one in diff.uncompared)
        blocks.append(f"not compared: {keys}")
    blocks += beside_sections(diff, names, style)
    return "\n\n".join([*(block for block in blocks if block), closing_text(diff)])


def _pairings(diff: Diff, style: Style) -> Iterator[Pairing]:
    plain = {entry.key: entry for entry in diff.entries if entry.kind != "renamed"}
    labels = {key: _label(entry) for key, entry in plain.items()}
    keys = [key for side in (diff.a, diff.b) for key in (*side, *side.unreadable)]
    folds = (
        [(one.pattern, one.keys) for one in outline(labels, keys)]
        if style.is_folded
        else [(quote(key), (key,)) for key in plain]
    )
    for pattern, members in folds:
        entries = tuple([plain[key] for key in members])
        kind = entries[0].kind
        a, b = ("" if kind == only else pattern_shown(pattern) for only in ("only_b", "only_a"))
        yield Pairing(kind, a, b, entries)
    renamed = [entry for entry in diff.entries if entry.kind == "renamed"]
    if style.is_folded:
        for a, b, group in renamed_groups(renamed, diff):
            yield Pairing("renamed", pattern_shown(a), pattern_shown(b), tuple(group))
    else:
        yield from (
            Pairing("renamed", quote(each.key), quote(key_b(each)), (each,)) for each in renamed
        )


def _label(entry: Entry) -> object:
    """What keys must have in common to stand on one line; of other dtypes any shape, as in a list
    of differences.
    """
    if entry.kind in ("same", "only_a", "only_b", "value"):
        return entry.kind
    casts = entry.values.casts if entry.values else None
    shape = entry.a and entry.a.shape if entry.kind == "shape" else None
    return entry.kind, entry.a and entry.a.dtype, entry.b and entry.b.dtype, shape, casts


def _positions(diff: Diff) -> Positions:
    """Where lines stand: as in the first side; what is new, behind what comes before it in the
    second.
    """
    renamed = {key_b(entry): entry for entry in diff.entries if entry.kind == "renamed"}
    place = {key: (i, 0) for i, key in enumerate(diff.a)}
    found, last = dict(place), (-1, 0)
    for key in diff.b:
        entry = renamed.get(key)
        known = place.get(entry.key if entry else key)
        last = known or (last[0], last[1] + 1)
        found.setdefault(key, last)
    return Positions(found)


@dataclass(frozen=True, slots=True)
class Positions:
    """The place of each line among all, for sorting."""

    found: dict[str, tuple[int, int]]

    def __call__(self, pairing: Pairing) -> tuple[int, int]:
        return self.found.get(pairing.entries[0].key, (len(self.found), 0))


def _side(pairing: Pairing, side: int, style: Style) -> tuple[str, ...]:
    """The name of one side's tensors, and what they are."""
    name = (pairing.a, pairing.b)[side]
    infos = [info for each in pairing.entries if (info := (each.a, each.b)[side])]
    if not name or not infos:
        return ()
    return style.text(safe(name)), style.text(_about(infos))


def _about(infos: Sequence[TensorInfo]) -> str:
    count = f"{len(infos):,}  " if len(infos) > 1 else ""
    return f"{count}{dtypes_text(infos)} {shapes_text(info.shape for info in infos)}"


def _half(sides: Sequence[tuple[str, ...]], width: int | None) -> int:
    """Columns of one side: half of the terminal, else as many as the widest name has with what it
    stands for.
    """
    if width is not None:
        return (width - 3) // 2
    return max((sum(map(width_of, side)) + len(GAP) for side in sides if side), default=0)


def _lines(
    left: tuple[str, ...], pairing: Pairing, right: tuple[str, ...], half: int, style: Style
) -> Iterator[str]:
    sign, colour = MARKS.get(pairing.kind, ("~", "yellow"))
    rows = zip_longest(_fitted(left, half, style), _fitted(right, half, style), fillvalue="")
    for i, (one, other) in enumerate(rows):
        mark = sign if i == 0 else " "
        text = f"{one}{' ' * (half - width_of(one))} {mark} {other}".rstrip()
        yield style.paint(text, colour)
    if any(entry.values for entry in pairing.entries):
        most, cosine, changed = value_cells(pairing.entries)
        apart = (
            f"{GAP}max |Δ| {most}, cosine {cosine}, {changed} changed" if changed else GAP + most
        )
        yield style.paint(style.text(apart), colour)


def _fitted(side: tuple[str, ...], half: int, style: Style) -> list[str]:
    """A name and what it stands for, on one line where both fit, else on two."""
    if not side:
        return []
    name, about = side
    gap = half - width_of(name) - width_of(about)
    if gap >= len(GAP):
        return [f"{name}{' ' * gap}{about}"]
    below = [cut(line, half, style) for line in wrapped(about, half, GAP, GAP * 2)]
    return [*broken(name, half, "", GAP * 2, style), *below]
