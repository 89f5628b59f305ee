"""Where things are in a pickle's outline: the members of dicts, lists and objects by name."""

from __future__ import annotations

from collections.abc import Sequence

from ckpt_tool.engine.whole.outline import Made, Outline, OutlineFault, resolved
from ckpt_tool.formats.pickle.graph import key_text

SET_ITEMS = b"su"
APPENDS = b"ae"
BUILD = ord("b")
_SEQUENCES = b"]lt)\x85\x86\x87"


def entries(item: Made) -> list[tuple[Made, Made]]:
    """The keys and values that a dict, or an object like one, was given."""
    parts = [part for fill in item.fills if fill.code in SET_ITEMS for part in fill.parts]
    if item.code == ord("d"):
        parts = item.parts + parts
    return list(zip(parts[::2], parts[1::2], strict=True))


def elements(item: Made) -> list[Made]:
    """The members of a list or a tuple."""
    own = item.parts if item.code in _SEQUENCES else []
    return own + [part for fill in item.fills if fill.code in APPENDS for part in fill.parts]


def find(outline: Outline, names: Sequence[str]) -> Made:
    """The object to which these names lead from the root. Raises OutlineFault."""
    item = resolved(outline.root)
    for name in names:
        item = resolved(member(outline, item, name))
    return item


def member(outline: Outline, item: Made, name: str) -> Made:
    """The value of this name in a dict, a list, or the attributes of an object. Raises
    OutlineFault.
    """
    if item.is_filled_elsewhere:
        raise OutlineFault(f"fills what `{name}` is in piece by piece")
    found = [value for key, value in entries(item) if key_text(outline.value(key)) == name]
    if found:
        return found[-1]
    members = elements(item)
    if name.isdecimal() and int(name) < len(members):
        return members[int(name)]
    for fill in item.fills:
        if fill.code == BUILD:
            return member(outline, resolved(fill.parts[0]), name)
    raise OutlineFault(f"has `{name[:80]}` where it can't be replaced")
