"""The renamed keys of a diff: what became of which names, folded where whole groups moved alike."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ckpt_tool.comparing import Diff, Entry
from ckpt_tool.keys import fold, quote
from ckpt_tool.report.parts.style import Style, columns, safe
from ckpt_tool.report.parts.value_differences import remark_on, value_cells

_NUMBER = re.compile(r"(?<![0-9])[0-9]{1,18}(?![0-9])")


def renamed_section(diff: Diff, style: Style) -> str:
    """A line for each group of keys that moved alike: both patterns, how many, how sure, and what
    else differs.
    """
    entries = [entry for entry in diff.changes if entry.kind == "renamed"]
    if not entries:
        return ""
    groups = (
        _groups(entries, diff)
        if style.is_folded
        else [(key_a(entry), key_b(entry), [entry]) for entry in entries]
    )
    rows = [
        [f"  > {safe(a)} → {safe(b)}", str(len(group)) if len(group) > 1 else "", _remark(group)]
        for a, b, group in groups
    ]
    return "\n".join(["renamed", *(style.paint(line, "cyan") for line in columns(rows, "lrl"))])


def key_a(entry: Entry) -> str:
    """The key of side a; there is one."""
    assert entry.a is not None
    return entry.a.key


def key_b(entry: Entry) -> str:
    """The key of side b; there is one."""
    assert entry.b is not None
    return entry.b.key


def _groups(entries: Sequence[Entry], diff: Diff) -> Iterator[tuple[str, str, list[Entry]]]:
    """Patterns of both sides with what they stand for: each matches exactly the keys of
    its group.
    """
    known = {key_a(entry): entry for entry in entries}
    for one in fold({key: _label(entry) for key, entry in known.items()}, diff.a):
        group = [known[key] for key in one.keys]
        folded = fold({key_b(entry): None for entry in group}, diff.b)
        if len(folded) == 1 and len(group) > 1:
            other = folded[0]
            yield _spelt(one.pattern, one.keys), _spelt(other.pattern, other.keys), group
        else:
            yield from ((key_a(entry), key_b(entry), [entry]) for entry in group)


def _spelt(pattern: str, keys: Sequence[str]) -> str:
    """A pattern; for everything, what all keys begin with."""
    if pattern != "**":
        return pattern
    shared = 0
    names = [key.split(".")[:-1] for key in keys]
    while all(len(each) > shared and each[shared] == names[0][shared] for each in names):
        shared += 1
    return ".".join([*(quote(name) for name in names[0][:shared]), pattern])


def _label(entry: Entry) -> object:
    """What keys must have in common to stand on one line: which names became which, by how much
    numbers differ, and what else.
    """
    a, b = key_a(entry).split("."), key_b(entry).split(".")
    shared = 0
    while shared < min(len(a), len(b)) and a[-1 - shared] == b[-1 - shared]:
        shared += 1
    source, target = (".".join(names[: len(names) - shared]) for names in (a, b))
    numbers = [[int(number) for number in _NUMBER.findall(text)] for text in (source, target)]
    steps = (
        tuple(y - x for x, y in zip(*numbers, strict=True))
        if len(numbers[0]) == len(numbers[1])
        else (source, target)
    )
    return (
        _NUMBER.sub("#", source),
        _NUMBER.sub("#", target),
        steps,
        entry.how,
        entry.values is None,
        _dtypes(entry),
    )


def _dtypes(entry: Entry) -> str:
    if entry.a is None or entry.b is None or entry.a.dtype is entry.b.dtype:
        return ""
    return f"{entry.a.dtype.value} → {entry.b.dtype.value}"


def _remark(group: Sequence[Entry]) -> str:
    """How sure the least sure one is, ops and dtypes between the two, and how far values differ."""
    least = min((entry.confidence for entry in group if entry.confidence is not None), default=1.0)
    parts = [f"{least:.2f}" if least < 1 else "", group[0].how, _dtypes(group[0])]
    if any(entry.values for entry in group):
        most, cosine, _ = value_cells(group)
        parts.append(f"max |Δ| {most}, cosine {cosine}")
        parts.append(remark_on(group) if len(group) > 1 else "")
    return ", ".join(part for part in parts if part)
