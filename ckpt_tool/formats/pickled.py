"""The contents of a checkpoint that is a pickle: its state dicts, the one that is taken, and everything beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.checkpoint import Contents, Extra, StateDict
from ckpt_tool.formats.limits import EXTRAS, LISTINGS, NESTING
from ckpt_tool.formats.ordering import are_in_module_order
from ckpt_tool.formats.pickle_arrays import element_type
from ckpt_tool.formats.pickle_graph import TENSOR_TYPES, children, describe, holders, module_children, module_leftovers, unwrap
from ckpt_tool.formats.pickle_values import ArrayRef, Opaque, PickleFault, TensorRef
from ckpt_tool.formats.placement import Placement
from ckpt_tool.formats.state_dicts import Place, choose, find_state_dicts, is_bookkeeping, look_up, versions_of
from ckpt_tool.formats.tensor_layout import Locate, lay_out, lay_out_array
from ckpt_tool.tensors import Catalog, TensorInfo

Dense = TensorRef | ArrayRef


@dataclass(slots=True)
class Listing:
    """Everything of a file by its path: the tensors of the state dict by key, the tensors elsewhere, and the rest."""

    taken: Place
    holding: set[int]
    are_arrays_tensors: bool
    inside: list[tuple[str, Dense]] = field(default_factory=list)
    elsewhere: list[tuple[str, Dense]] = field(default_factory=list)
    extras: list[Extra] = field(default_factory=list)
    listed: int = 0

    def add_all(self, value: object, path: str, key: str | None, depth: int = 0) -> None:
        """Lists what a container holds. `path` and `key` are what its members' names are appended to; no key: elsewhere."""
        self.listed += 1
        if self.listed > LISTINGS * len(self.holding) + 1000 or depth > NESTING:
            raise PickleFault("refers to the same objects over and over")
        members = module_children(value)
        if members is not None:
            self._add_leftovers(value, path)
        for name, child in members or children(value):
            self.add(name, child, path, key, depth)

    def add(self, name: str, child: object, path: str, key: str | None, depth: int) -> None:
        if type(child) is TensorRef:
            if key is None:
                self.elsewhere.append((path + name, child))
            else:
                self.inside.append((key + name, child))
        elif type(child) in TENSOR_TYPES:
            self._add_odd(path + name, None if key is None else key + name, child)
        elif id(child) in self.holding:
            child = unwrap(child)
            self.add_all(child, f"{path}{name}.", self._key_inside(name, child, path, key), depth + 1)
        elif module_children(child) is None:
            self.note(path + name, child)

    def _key_inside(self, name: str, child: object, path: str, key: str | None) -> str | None:
        """What the keys in a member start with; None for what lies outside the state dict."""
        if key is None:
            is_taken = child is self.taken.value and path + name == self.taken.text
            return "" if is_taken else None
        is_model = module_children(child) is not None or not is_bookkeeping(name, child)
        return f"{key}{name}." if is_model else None

    def _add_odd(self, path: str, key: str | None, child: object) -> None:
        if type(child) is ArrayRef and self.are_arrays_tensors and element_type(child.type_text):
            if key is None:
                self.elsewhere.append((path, child))
            else:
                self.inside.append((key, child))
        else:
            self.extras.append(Extra(path, "tensor", describe(child)))

    def _add_leftovers(self, module: object, path: str) -> None:
        """Tensors of a module that its `state_dict()` leaves out are no tensors of the checkpoint; they are named all the same."""
        for name, child in module_leftovers(module):
            if type(child) in TENSOR_TYPES or id(child) in self.holding:
                kind = "tensor" if type(child) in TENSOR_TYPES else "container"
                self.extras.append(Extra(path + name, kind, f"{describe(child)}, not in the module's state dict"))

    def note(self, path: str, value: object) -> None:
        kind = "object" if type(value) is Opaque else "container" if isinstance(value, dict | list | tuple) and value else "value"
        self.extras.append(Extra(path, kind, describe(value)))


def pickled_contents(
    root: object, path: str, wanted: str, locate: Locate, calls: Iterable[str] = (), is_big_endian: bool = False, notes: Iterable[str] = ()
) -> Contents:
    """What a pickle's root object contains. Raises FormatError for tensors that can't be, InputError for an unknown `wanted`."""
    try:
        listing, places = _list(root, path, wanted)
    except PickleFault as fault:
        raise FormatError(path, f"its pickle {fault}") from None
    return _contents(listing, places, path, locate, is_big_endian, [*_call_extras(calls), *_note_extras(notes)])


def _list(root: object, path: str, wanted: str) -> tuple[Listing, list[tuple[Place, Listing]]]:
    """The listing of the whole file, and those of its state dicts."""
    holding, has_torch = holders(root)
    places = find_state_dicts(root, holding) if id(root) in holding else []
    taken = look_up(root, wanted, holding, places, path) if wanted else choose(places, root)
    if taken.path not in [place.path for place in places]:
        places.insert(0, taken)
    listing = Listing(taken, holding, not has_torch)
    if type(root) in TENSOR_TYPES:
        listing.add("", root, "", "", 0)
    else:
        listing.add_all(unwrap(root), "", None if taken.path else "")
    return listing, [(place, _list_place(place, listing)) for place in places]


def _list_place(place: Place, whole: Listing) -> Listing:
    if place is whole.taken:
        return whole
    listing = Listing(Place((), place.value), whole.holding, whole.are_arrays_tensors)
    listing.add_all(place.value, "", "")
    return listing


def _contents(
    listing: Listing, places: list[tuple[Place, Listing]], path: str, locate: Locate, is_big_endian: bool, extras: list[Extra]
) -> Contents:
    layout = Layout(path, locate, is_big_endian)
    infos, elsewhere = layout.add_all(listing.inside), layout.add_all(listing.elsewhere)
    if len({info.key for info in infos}) < len(infos):
        raise FormatError(path, f"two tensors of its state dict are named `{_first_repeated(infos)}`")
    catalog = Catalog(infos, are_in_module_order([info.key for info in infos]))
    if not catalog and elsewhere == [] and isinstance(listing.taken.value, Opaque):
        extras = [Extra("", "object", describe(listing.taken.value)), *extras]
    state_dicts = tuple(StateDict(place.text, len(one.inside), layout.nbytes(one.inside)) for place, one in places if one.inside)
    placements = {info.key: layout.placements[id(tensor)] for info, (_, tensor) in zip(infos, listing.inside, strict=True)}
    return Contents(
        catalog, placements, {}, versions_of(listing.taken.value), bounded([*listing.extras, *extras]),
        state_dicts, listing.taken.text, tuple(elsewhere),
    )  # fmt: skip


@dataclass(slots=True)
class Layout:
    """The tensors of one file, laid out once each; `owners` has the first key of each storage."""

    path: str
    locate: Locate
    is_big_endian: bool
    placements: dict[int, Placement] = field(default_factory=dict)
    infos: dict[int, TensorInfo] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)

    def add_all(self, tensors: list[tuple[str, Dense]]) -> list[TensorInfo]:
        """What the catalog says of tensors, in their order."""
        listed = []
        for key, tensor in tensors:
            info = self.infos.get(id(tensor)) or self._lay_out(key, tensor)
            shares = self._owner(key, tensor)
            listed.append(info if info.key == key and shares is None else TensorInfo(key, info.dtype, info.shape, shares))
        return listed

    def _lay_out(self, key: str, tensor: Dense) -> TensorInfo:
        if isinstance(tensor, TensorRef):
            info, placement = lay_out(tensor, key, self.path, self.locate, self.is_big_endian)
        else:
            info, placement = lay_out_array(tensor, key, self.path)
        self.infos[id(tensor)], self.placements[id(tensor)] = info, placement
        return info

    def _owner(self, key: str, tensor: Dense) -> str | None:
        storage = tensor.storage.key if type(tensor) is TensorRef else f"array {id(tensor)}"
        owner = self.owners.setdefault(storage, key)
        return None if owner == key else owner

    def nbytes(self, tensors: list[tuple[str, Dense]]) -> int:
        return sum(self.infos[id(tensor)].nbytes for _, tensor in tensors)


def _first_repeated(infos: list[TensorInfo]) -> str:
    seen: set[str] = set()
    return next(info.key for info in infos if info.key in seen or seen.add(info.key))  # type: ignore[func-returns-value]


def _call_extras(calls: Iterable[str]) -> list[Extra]:
    return [Extra("", "call", name[:200]) for name in calls]


def _note_extras(notes: Iterable[str]) -> list[Extra]:
    return [Extra("", "note", note) for note in notes]


def bounded(extras: list[Extra]) -> tuple[Extra, ...]:
    """The extras, the many of a kind cut short with a note that counts the others. Calls are kept before all else."""
    extras.sort(key=lambda extra: extra.kind != "call")
    if (calls := sum(extra.kind == "call" for extra in extras)) > EXTRAS:
        extras[EXTRAS - 1 : calls] = [Extra("", "call", f"… and {calls - EXTRAS + 1} more")]
    if len(extras) <= EXTRAS:
        return tuple(extras)
    return (*extras[:EXTRAS], Extra("", "note", f"{len(extras) - EXTRAS} more things besides the tensors are not listed"))
