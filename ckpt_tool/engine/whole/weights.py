"""A state dict in a pickle with what a plan makes of it: tensors that move keep their opcodes and
their storages, others are new.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ckpt_tool.engine.layouts.pickle_writer import put_versions
from ckpt_tool.engine.sources import TensorSource, moved_tensors
from ckpt_tool.engine.versions import Versions, renamed_versions
from ckpt_tool.engine.whole.outline import Fill, Made, Outline, OutlineFault
from ckpt_tool.engine.whole.places import BUILD, SET_ITEMS, entries, find
from ckpt_tool.engine.whole.splicing import Edit, Splicer
from ckpt_tool.formats.pickle.graph import key_text
from ckpt_tool.mapping.plan import Plan, Step
from ckpt_tool.tensors import TensorInfo

NewTensor = tuple[TensorInfo, str]
"""A tensor with the key of its storage, all of which it is."""
Member = tuple[Made | str, Made | NewTensor]
"""A key and its value: as they are written in the source, or new."""


@dataclass(frozen=True, slots=True)
class Part:
    """A state dict of the file, to which `names` lead, and what becomes of it.

    `prefix` stands before all of its keys, which the plan's are without. `storages` has the keys of
    new storages, by the outputs that don't move.
    """

    names: tuple[str, ...]
    plan: Plan
    source: TensorSource
    target: TensorSource | None
    prefix: str = ""
    storages: Mapping[str, str] = field(default_factory=dict)

    shares_tensors = True
    """Outputs that are one tensor have one storage."""

    @property
    def path(self) -> str:
        """The names as a dotted path."""
        return ".".join(self.names)

    @property
    def moved(self) -> dict[str, str]:
        """The keys of the source that move unchanged, by output."""
        found = moved_tensors(self.plan, self.source, None)
        return {key: origin.key for key, origin in found.items()}

    def edits(self, outline: Outline) -> list[Edit]:
        """What changes in the stream. Raises OutlineFault."""
        item = find(outline, self.names)
        return [Edit(item.start, item.end, NewStateDict(outline, item, self))]


def in_source_order(plan: Plan) -> Plan:
    """A plan without a target, whose outputs are in the order of the tensors that they come from,
    whatever the order of the rules is.
    """
    last = len(plan.source)
    places = {key: number for number, key in enumerate(plan.source)}

    def place(step: Step) -> int:
        return min((places[key] for key in step.inputs), default=last)

    return replace(plan, steps=tuple(sorted(plan.steps, key=place)))


@dataclass(frozen=True, slots=True)
class NewStateDict:
    """Writes the state dict of a part in the place of the one at `item`."""

    outline: Outline
    item: Made
    part: Part

    def __call__(self, splicer: Splicer) -> None:
        """Raises OutlineFault for what can't be replaced."""
        item = self.item
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
        found = _found(self.outline, self.item, part)
        members = found.after.pop("", [])
        for key in part.plan.outputs:
            source = moved.get(key)
            name = f"{part.prefix}{key}"
            if source is None:
                members.append((name, (part.plan.outputs[key], part.storages[key])))
            elif source in found.tensors:
                was, value = found.tensors[source]
                members.append((was if source == key else name, value))
            elif source not in found.inside:
                raise OutlineFault(f"has `{source[:80]}` where it can't be replaced")
            made_by = part.plan.producers.get(key)
            for each in made_by[0].inputs if made_by else ():
                members += found.after.pop(each, [])
        for others in found.after.values():
            members += others
        self._check_names(members)
        return members

    def _check_names(self, members: list[Member]) -> None:
        """Raises OutlineFault where a tensor gets the name of something else."""
        names = Counter(self._text(key) for key, _ in members)
        twice = next((name for name, count in names.items() if count > 1), None)
        if twice is not None:
            raise OutlineFault(f"has `{twice[:80]}` beside its tensors, as one would be named")

    def _text(self, key: Made | str) -> str:
        return key if isinstance(key, str) else key_text(self.outline.value(key))

    def _add_attributes(self, splicer: Splicer, fill: Fill) -> None:
        """The state of the dict with the versions of the modules under their new names."""
        source, versions = self.part.source.versions, _versions(self.part)
        named = entries(fill.parts[0])
        value = next((one for key, one in named if self._text(key) == "_metadata"), None)
        if value is None or versions == source or self.part.prefix:
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
        else:
            splicer.add_tensor(*value)
    splicer.add(b"u")


@dataclass(frozen=True, slots=True)
class _Found:
    """The tensors of a state dict by key, with the spans of the key and the value; those that are
    in a dict of their own; and what else is in it, by the tensor that it stands behind.
    """

    tensors: dict[str, tuple[Made, Made]]
    inside: set[str]
    after: dict[str, list[Member]]


def _found(outline: Outline, item: Made, part: Part) -> _Found:
    """Raises OutlineFault for keys that the dict has twice."""
    found, last = _Found({}, set(), {"": []}), ""
    catalog, dropped = part.source.catalog, frozenset(part.plan.dropped)
    for key, value in entries(item):
        name = key_text(outline.value(key)).removeprefix(part.prefix)
        if name in found.tensors:
            raise OutlineFault(f"has `{name[:80]}` twice")
        if name in catalog:
            found.tensors[name] = (key, value)
            found.after[name] = []
            last = name
        elif name in dropped:  # one that can't be read
            continue
        elif inside := [one for one in catalog if one.startswith(f"{name}.")]:
            found.inside.update(inside)
            if not dropped.issuperset(inside):
                new = _new_name(part, name, inside)
                found.after[last].append((key if new == name else f"{part.prefix}{new}", value))
        else:
            found.after[last].append((key, value))
    return found


def _new_name(part: Part, name: str, inside: list[str]) -> str:
    """What a dict in a state dict is called then. Raises OutlineFault where its tensors get other
    names in it, or don't all move.
    """
    outputs: dict[str, list[str]] = {}
    for output, source in part.moved.items():
        outputs.setdefault(source, []).append(output)
    new = None
    for key in inside:
        rest = key[len(name) :]
        made = outputs.get(key, [])
        new = made[0].removesuffix(rest) if new is None and len(made) == 1 else new
        if new is None or made != [f"{new}{rest}"]:
            raise OutlineFault(f"has `{key[:80]}` in a dict of its own, whose names would change")
    assert new is not None
    return new
