"""Where things are in a pickle's outline: the members of dicts, lists and objects by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ckpt_tool.engine.whole.outline import Made, Outline, OutlineFault, resolved

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
    places = Places(outline)
    item = resolved(outline.root)
    for name in names:
        item = resolved(places.member(item, name))
    return item


@dataclass(slots=True)
class Places:
    """Finds members by their names; what a dict has is listed once."""

    outline: Outline
    _listed: dict[int, dict[str, Made]] = field(default_factory=dict)

    def member(self, item: Made, name: str) -> Made:
        """The value of this name in a dict, a list, or the attributes of an object. Raises
        OutlineFault.
        """
        if item.is_filled_elsewhere:
            raise OutlineFault(f"fills what `{name}` is in piece by piece")
        found = self._named(item).get(name)
        if found is not None:
            return found
        members = elements(item)
        if name.isdecimal() and int(name) < len(members):
            return members[int(name)]
        for fill in item.fills:
            if fill.code == BUILD:
                return self.member(resolved(fill.parts[0]), name)
        raise OutlineFault(f"has `{name[:80]}` where it can't be replaced")

    def has(self, item: Made, name: str) -> bool:
        """Whether a dict has a member of this name."""
        return name in self._named(item)

    def _named(self, item: Made) -> dict[str, Made]:
        named = self._listed.get(id(item))
        if named is None:
            name = self.outline.name
            named = {name(key): one for key, one in entries(item)}
            self._listed[id(item)] = named
        return named
