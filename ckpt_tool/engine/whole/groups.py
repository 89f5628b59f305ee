"""The tensors of a state dict as they stand in a stream: in one dict, or in dicts inside of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ckpt_tool.engine.whole.outline import Made, Outline, OutlineFault, resolved
from ckpt_tool.engine.whole.places import entries
from ckpt_tool.tensors import Catalog


@dataclass(slots=True)
class Group:
    """A dict of tensors, `name` before all of its keys; `key` is where its own name stands.

    `tensors` has the spans of key and value by the tensors' full names. `after` is what else is in
    it, by the tensor behind which it stands; `groups` are the dicts of tensors among that.
    """

    item: Made
    name: str = ""
    key: Made | None = None
    tensors: dict[str, tuple[Made, Made]] = field(default_factory=dict)
    after: dict[str, list[tuple[Made, Made]]] = field(default_factory=lambda: {"": []})
    groups: dict[int, Group] = field(default_factory=dict)

    @property
    def all_tensors(self) -> Iterator[tuple[str, tuple[Made, Made]]]:
        """Its tensors and those of its groups."""
        yield from self.tensors.items()
        for group in self.groups.values():
            yield from group.all_tensors


def read_group(outline: Outline, item: Made, catalog: Catalog, prefix: str) -> Group:
    """The dict at `item`, whose keys have `prefix` before those of the catalog. Raises OutlineFault
    for keys that a dict has twice.
    """
    firsts = Counter(
        ".".join(parts[:depth])
        for parts in (key.split(".") for key in catalog)
        for depth in range(1, len(parts))
    )
    return _read(outline, Group(item), catalog, prefix, firsts)


def _read(
    outline: Outline, group: Group, catalog: Catalog, prefix: str, firsts: Mapping[str, int]
) -> Group:
    last = ""
    for key, value in entries(group.item):
        name = group.name + outline.name(key).removeprefix(prefix)
        if name in group.tensors:
            raise OutlineFault(f"has `{name[:80]}` twice")
        if name in catalog:
            group.tensors[name] = (key, value)
            group.after[name] = []
            last = name
        elif name not in catalog.unreadable:
            group.after[last].append((key, value))
            if name in firsts:
                inside = Group(resolved(value), f"{name}.", key)
                group.groups[id(value)] = _read(outline, inside, catalog, "", firsts)
    return group
