"""Everything that a pickle holds by its path: what is in the state dict that is taken, what lies
outside of it, and the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ckpt_tool.formats.checkpoint import Extra
from ckpt_tool.formats.limits import EXTRAS, LISTED_AGAIN, LISTINGS, NAME_CHARACTERS, NESTING
from ckpt_tool.formats.pickle.arrays import element_type, is_numeric
from ckpt_tool.formats.pickle.descriptions import describe
from ckpt_tool.formats.pickle.graph import (
    TENSOR_TYPES,
    children,
    containers,
    has_renaming_hooks,
    module_children,
    module_leftovers,
    unwrap,
)
from ckpt_tool.formats.pickle.values import (
    ArrayRef,
    Opaque,
    OpaqueTensor,
    PickleFault,
    TensorRef,
    UnreadObject,
)
from ckpt_tool.formats.torch_files.state_dicts import (
    Container,
    are_optimizers,
    is_averaged_copy,
    is_optimizer,
    names_bookkeeping,
)

Dense = TensorRef | ArrayRef
Odd = OpaqueTensor | ArrayRef
REST = "…"
"""The path of all that there are too many of to be named."""


@dataclass(slots=True, eq=False)
class Again:
    """What all listings of a file cost: the containers that were listed by now, how many members
    were listed more than once, and the characters that names repeat of the names above them.
    """

    containers: set[int] = field(default_factory=set)
    members: int = 0
    characters: int = 0

    def note(self, value: object, prefix: int) -> None:
        """`prefix` is the length of what the names of the members begin with."""
        seen = self.containers
        for container in (value,) if type(value) is dict else containers(value):
            size, me = len(container), id(container)
            if me in seen:
                self.members += size
            seen.add(me)
            self.characters += prefix * size
        if self.members > LISTED_AGAIN:
            raise PickleFault("refers to the same objects over and over")
        if self.characters > NAME_CHARACTERS:
            raise PickleFault("has too many tensors under too long names")


@dataclass(slots=True, eq=False)
class Group:
    """One thing outside of the state dict, as a person would name it: its tensors that can be read,
    the number of the others, and whether it has numbers and texts.
    """

    kind: str
    tensors: list[Dense] = field(default_factory=list)
    others: int = 0
    has_values: bool = False


class Spot(NamedTuple):
    """Where a container stands: what paths and keys of its members begin with (no key: outside of
    the state dict), and its group.

    `is_named`: whether a member's name may mark it as a part of training: not inside of a
    state dict, where a module may be called `sampler` or `hooks`. (A tuple, since each optimizer's
    state has thousands.)
    """

    path: str = ""
    key: str | None = None
    group: str = ""
    is_named: bool = True
    depth: int = 0


@dataclass(slots=True, eq=False)
class Listing:
    """`inside` and `odd` are the tensors of the state dict by key, `elsewhere` and `odd_elsewhere`
    the others by path.

    `odd_parts` are all that can't be read.
    """

    taken: Container
    holding: set[int]
    are_arrays_tensors: bool
    places: Mapping[int, Container] = field(default_factory=dict)
    inside: list[tuple[str, Dense]] = field(default_factory=list)
    odd: list[tuple[str, Odd]] = field(default_factory=list)
    elsewhere: list[tuple[str, Dense]] = field(default_factory=list)
    odd_elsewhere: list[tuple[str, Odd]] = field(default_factory=list)
    odd_parts: list[tuple[str, OpaqueTensor]] = field(default_factory=list)
    groups: dict[str, Group] = field(default_factory=dict)
    hooked: list[str] = field(default_factory=list)
    attributed: dict[str, None] = field(default_factory=dict)
    extras: list[Extra] = field(default_factory=list)
    unlisted: int = 0
    listed: int = 0
    again: Again = field(default_factory=Again)

    def add_all(self, value: object, spot: Spot) -> None:
        """Lists what a container holds."""
        self.listed += 1
        if self.listed > LISTINGS * len(self.holding) + 1000 or spot.depth > NESTING:
            raise PickleFault("refers to the same objects over and over")
        members = module_children(value)
        if members is not None:
            self._add_leftovers(value, spot.path)
        self.again.note(value, len(spot.path) + len(spot.key or ""))
        for name, child in members or children(value):
            self.add(name, child, spot)

    def add(self, name: str, child: object, spot: Spot) -> None:
        """Lists one member of a container, by its name in it."""
        if type(child) is TensorRef:
            self._add_tensor(name, child, spot)
            for part in child.attributes:
                self.attributed |= dict.fromkeys(map(str, part))
        elif type(child) in TENSOR_TYPES:
            self._add_odd(name, child, spot)  # type: ignore[arg-type]
        elif id(child) in self.holding:
            child = unwrap(child)
            self.add_all(child, self._inner(name, child, spot))
        elif module_children(child) is None:
            self.note(spot.path + name, child)
            self._group_at(spot.group or spot.path + name, "values").has_values = True

    def _add_tensor(self, name: str, child: Dense, spot: Spot) -> None:
        if spot.key is None:
            self.elsewhere.append((spot.path + name, child))
            self._group_at(spot.group or spot.path + name, "tensors").tensors.append(child)
        else:
            self.inside.append((spot.key + name, child))

    def _add_odd(self, name: str, child: Odd, spot: Spot) -> None:
        """A tensor that can't be read, or an array: as a tensor where the file has none
        of torch's.
        """
        if type(child) is ArrayRef and self.are_arrays_tensors and element_type(child.type_text):
            self._add_tensor(name, child, spot)
            return
        self._add_extra(spot.path + name, "tensor", child)
        if type(child) is OpaqueTensor:
            self.odd_parts.append((spot.path + name, child))
        if type(child) is ArrayRef and not is_numeric(child):
            return
        if spot.key is None:
            self.odd_elsewhere.append((spot.path + name, child))
            self._group_at(spot.group or spot.path + name, "tensors").others += 1
        else:
            self.odd.append((spot.key + name, child))

    def _inner(self, name: str, child: object, spot: Spot) -> Spot:
        """Where a container in another stands."""
        path = f"{spot.path}{name}"
        key = self._key_inside(name, child, spot, path)
        is_place = id(child) in self.places
        is_named = spot.is_named and not is_place and not self._is_state_dict()
        is_on_the_way = key is None and not spot.group and self.taken.text.startswith(f"{path}.")
        group = (
            "" if key is not None or is_on_the_way else self._group(name, child, path, spot.group)
        )
        return Spot(f"{path}.", key, group, is_named, spot.depth + 1)

    def _is_state_dict(self) -> bool:
        """Whether the file itself is a state dict, so that names mark training at its
        top alone.
        """
        return not self.taken.path and id(self.taken.value) in self.places

    def _key_inside(self, name: str, child: object, spot: Spot, path: str) -> str | None:
        """What the keys in a member start with; None for what lies outside the state dict."""
        if spot.key is None:
            return "" if child is self.taken.value and path == self.taken.text else None
        is_training = is_optimizer(child) or (spot.is_named and names_bookkeeping(name))
        if is_training and module_children(child) is None and not self.are_optimizers:
            return None
        return f"{spot.key}{name}."

    @property
    def are_optimizers(self) -> bool:
        """Whether the optimizers' states are what was asked for."""
        return bool(self.taken.path) and are_optimizers(self.taken.value)

    def _group(self, name: str, child: object, path: str, group: str) -> str:
        """The group of what is in a container: one of its own for a state dict, and for an
        optimizer and the like.
        """
        is_known = (
            id(child) in self.places
            or is_optimizer(child)
            or names_bookkeeping(name)
            or is_averaged_copy((name,))
        )
        if group and (not is_known or self.groups[group].kind == "optimizer"):
            return group
        self._group_at(path, self._kind(name, child))
        return path if path in self.groups else REST

    def _group_at(self, path: str, kind: str) -> Group:
        """The group of this path; beyond so many, that of all others."""
        found = self.groups.get(path)
        if found is None:
            if len(self.groups) >= EXTRAS:
                path, kind = REST, "tensors"
            found = self.groups.setdefault(path, Group(kind))
        return found

    def _kind(self, name: str, child: object) -> str:
        place = self.places.get(id(child))
        if is_averaged_copy(place.path if place else (name,)):
            return "averaged weights"
        if place:
            return "state dict"
        return "optimizer" if is_optimizer(child) or "optim" in name.lower() else "tensors"

    def _add_leftovers(self, module: object, path: str) -> None:
        """Tensors of a module that its `state_dict()` leaves out are no tensors of the checkpoint;
        they are named all the same.
        """
        if has_renaming_hooks(module):
            self.hooked.append(path.removesuffix("."))
        for name, child in module_leftovers(module):
            if type(child) in TENSOR_TYPES or id(child) in self.holding:
                kind = "tensor" if type(child) in TENSOR_TYPES else "container"
                self._add_extra(path + name, kind, child, ", not in the module's state dict")

    def note(self, path: str, value: object) -> None:
        """Lists what is no tensor, among the extras."""
        kind = (
            "object"
            if isinstance(value, Opaque | UnreadObject)
            else "container"
            if isinstance(value, dict | list | tuple) and value
            else "value"
        )
        self._add_extra(path, kind, value)

    def _add_extra(self, path: str, kind: str, value: object, remark: str = "") -> None:
        """The first ones; others are counted."""
        if len(self.extras) < EXTRAS:
            self.extras.append(Extra(path, kind, f"{describe(value)}{remark}"))
        else:
            self.unlisted += 1
