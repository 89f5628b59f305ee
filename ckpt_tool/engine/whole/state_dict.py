"""A state dict written in the place of another one: tensors that move are written as they were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from ckpt_tool.engine.layouts.pickle_writer import put_versions
from ckpt_tool.engine.versions import Versions, renamed_versions
from ckpt_tool.engine.whole.groups import Group, read_group
from ckpt_tool.engine.whole.outline import Fill, Made, Outline, OutlineFault
from ckpt_tool.engine.whole.places import BUILD, SET_ITEMS, entries, find
from ckpt_tool.engine.whole.splicing import Edit, Splicer
from ckpt_tool.engine.whole.weights import NewTensor, Part
from ckpt_tool.frozen import frozen

Value = Made | NewTensor | Callable[[Splicer], None]
"""As it is written in the source, new, or what writes it."""
Member = tuple[Made | str, Value]


def edit_of(outline: Outline, part: Part) -> Edit:
    """What changes in the stream. Raises OutlineFault for what can't be replaced."""
    item = find(outline, part.names)
    return Edit(item.start, item.end, NewStateDict.of(outline, item, part))


@frozen
class NewStateDict:
    """Writes the state dict of a part in the place of the one at `group`; `outputs` are those that
    it has then, without the ones of dicts in it. `tensors` are all that the source has.
    """

    outline: Outline
    part: Part
    group: Group
    outputs: dict[str, list[str]]
    names: dict[str, str]
    tensors: dict[str, tuple[Made, Made]]

    @staticmethod
    def of(outline: Outline, item: Made, part: Part) -> NewStateDict:
        """Raises OutlineFault for what can't be replaced."""
        group = read_group(outline, item, part.source.catalog, part.prefix)
        tensors = dict(group.all_tensors)
        moved = part.moved
        lost = next((key for key in moved.values() if key not in tensors), None)
        if lost is not None:
            raise OutlineFault(f"has `{lost[:80]}` where it can't be replaced")
        names = _new_names(group, part)
        outputs = _divided(group, part, names)
        return NewStateDict(outline, part, group, outputs, names, tensors)

    def __call__(self, splicer: Splicer) -> None:
        """Raises OutlineFault for what can't be replaced."""
        item = self.group.item
        if item.is_filled_elsewhere or (item.code == ord("d") and item.parts):
            raise OutlineFault("has a state dict that is filled piece by piece")
        members = self._members()
        splicer.keep(item.start, item.made_end, is_moved=True)
        add_entries(splicer, members)
        at = item.made_end
        for fill in item.fills:
            splicer.keep(at, fill.start, is_moved=True)
            if fill.code == BUILD:
                self._add_attributes(splicer, fill)
            elif fill.code not in SET_ITEMS:
                splicer.keep(fill.start, fill.end, is_moved=True)
            at = fill.end
        splicer.keep(at, item.end, is_moved=True)

    def _members(self) -> list[Member]:
        """Keys and values in their new order. What is no tensor of the plan comes behind what was
        made of the tensor that it stands behind.
        """
        part, moved = self.part, self.part.moved
        after = {key: self._others(others) for key, others in self.group.after.items()}
        members = after.pop("", [])
        for key in self.outputs.get(self.group.name, ()):
            source, name = moved.get(key), self._own_name(key)
            if source is None:
                members.append((name, (part.plan.outputs[key], part.storages[key])))
            else:
                was, value = self.tensors[source]
                is_same = self._text(was) == name
                members.append((was if is_same else name, value))
            made_by = part.plan.producers.get(key)
            for each in made_by[0].inputs if made_by else ():
                members += after.pop(each, [])
        for others in after.values():
            members += others
        self._check_names(members)
        return members

    def _own_name(self, key: str) -> str:
        """The name of an output in its own dict."""
        return f"{'' if self.group.name else self.part.prefix}{key[len(self.group.name) :]}"

    def _others(self, others: list[tuple[Made, Made]]) -> list[Member]:
        """What else is in the dict; dicts of tensors with what becomes of them."""
        members: list[Member] = []
        for key, value in others:
            group = self.group.groups.get(id(value))
            if group is None:
                members.append((key, value))
            elif group.name in self.names:
                new = self.names[group.name]
                members.append((key if new == group.name else self._own_name(new[:-1]), value))
            elif group.name in self.outputs or self._keeps_some(group):
                inner = NewStateDict(
                    self.outline, self.part, group, self.outputs, self.names, self.tensors
                )
                members.append((key, inner))
        return members

    def _keeps_some(self, group: Group) -> bool:
        """Whether a dict still has something in it, when all of its own tensors are gone."""
        return any(one.name in {*self.outputs, *self.names} for one in group.groups.values())

    def _check_names(self, members: list[Member]) -> None:
        """Raises OutlineFault where a tensor gets the name of something else."""
        names = Counter(self._text(key) for key, _ in members)
        twice = next((name for name, count in names.items() if count > 1), None)
        if twice is not None:
            raise OutlineFault(f"has `{twice[:80]}` beside its tensors, as one would be named")

    def _text(self, key: Made | str) -> str:
        return key if isinstance(key, str) else self.outline.name(key)

    def _add_attributes(self, splicer: Splicer, fill: Fill) -> None:
        """The state of the dict with the versions of the modules under their new names."""
        source, versions = self.part.source.versions, _versions(self.part)
        named = entries(fill.parts[0])
        value = next((one for key, one in named if self._text(key) == "_metadata"), None)
        if value is None or versions == source or self.part.prefix or self.group.name:
            splicer.keep(fill.start, fill.end, is_moved=True)
            return
        splicer.keep(fill.start, value.start, is_moved=True)
        put_versions(splicer.writer, versions)
        splicer.keep(value.end, fill.end, is_moved=True)


def _versions(part: Part) -> Versions:
    """torch's `_metadata` under the new names."""
    source, target = part.source.versions, part.target.versions if part.target else {}
    root = {"": source[""]} if "" in source else {}
    return {**root, **renamed_versions(part.plan, source, target)}


def add_entries(splicer: Splicer, members: list[Member]) -> None:
    """Gives keys and values to the dict on top of the stack."""
    if not members:
        return
    splicer.add(b"(")
    for key, value in members:
        if isinstance(key, str):
            splicer.writer.put(key)
        else:
            splicer.keep_item(key)
        if isinstance(value, Made):
            splicer.keep_item(value)
        elif callable(value):
            value(splicer)
        else:
            splicer.add_tensor(*value)
    splicer.add(b"u")


def _new_names(group: Group, part: Part) -> dict[str, str]:
    """The dicts in a state dict all of whose tensors move with it, with their new names."""
    outputs: dict[str, list[str]] = {}
    for output, source in part.moved.items():
        outputs.setdefault(source, []).append(output)
    names: dict[str, str] = {}
    for one in group.groups.values():
        new = _common_name(one, outputs)
        if new is not None:
            names[one.name] = new
        else:
            names |= {
                name: new for name, new in _new_names(one, part).items() if new.startswith(one.name)
            }
    return names


def _common_name(group: Group, outputs: dict[str, list[str]]) -> str | None:
    """What stands before all of a dict's tensors then, if they only change that."""
    found: set[str | None] = set()
    for key, _ in group.all_tensors:
        rest, made = key[len(group.name) :], outputs.get(key, [])
        is_one = len(made) == 1 and made[0].endswith(f".{rest}")
        found.add(made[0].removesuffix(rest) if is_one else None)
    return next(iter(found)) if len(found) == 1 else None


def _divided(group: Group, part: Part, names: dict[str, str]) -> dict[str, list[str]]:
    """The outputs of each dict that is written anew, by its name. Raises OutlineFault for one that
    would stand beside dicts of tensors, where none stood.
    """
    going_along = {key for one in _all_groups(group) if one.name in names
                   for key, _ in one.all_tensors}  # fmt: skip
    kept = {output for output, source in part.moved.items() if source in going_along}
    written = [one.name for one in _all_groups(group) if one.name not in names]
    divided: dict[str, list[str]] = {}
    for key in part.plan.outputs:
        if key not in kept:
            owner = max((name for name in written if key.startswith(name)), key=len, default="")
            divided.setdefault(owner, []).append(key)
    if group.groups and not group.tensors and divided.get(""):
        raise OutlineFault(
            f"has its tensors in dicts of their own, and `{divided[''][0][:80]}` would be in none"
        )
    return divided


def _all_groups(group: Group) -> list[Group]:
    inside = list(group.groups.values())
    return inside + [one for each in inside for one in _all_groups(each)]
