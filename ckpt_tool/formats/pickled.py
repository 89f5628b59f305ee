"""The contents of a checkpoint that is a pickle: its state dicts, the one that is taken, and everything beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.checkpoint import Contents, Extra, StateDict
from ckpt_tool.formats.limits import EXTRAS, LISTED_AGAIN, LISTINGS, NAME_CHARACTERS, NESTING
from ckpt_tool.formats.ordering import are_in_module_order
from ckpt_tool.formats.pickle_arrays import element_type
from ckpt_tool.formats.pickle_graph import TENSOR_TYPES, children, containers, describe, holders, module_children, module_leftovers, unwrap
from ckpt_tool.formats.pickle_values import ArrayRef, Asked, Opaque, PickleFault, StorageRef, TensorRef
from ckpt_tool.formats.placement import Placement
from ckpt_tool.formats.state_dicts import Place, choose, find_state_dicts, is_bookkeeping, look_up, versions_of
from ckpt_tool.formats.tensor_layout import KnownExtents, Locate, Measured, check_inside, lay_out, measure
from ckpt_tool.tensors import Catalog, TensorInfo, nbytes_of

Dense = TensorRef | ArrayRef
_NOTHING = Asked()


@dataclass(slots=True)
class Again:
    """What all listings of a file cost: the containers that were listed by now, how many members were listed more than once, and the
    characters that names repeat of the names above them."""

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


@dataclass(slots=True)
class Listing:
    """Everything of a file by its path: the tensors of the state dict by key, the tensors elsewhere, and the rest."""

    taken: Place
    holding: set[int]
    are_arrays_tensors: bool
    inside: list[tuple[str, Dense]] = field(default_factory=list)
    elsewhere: list[tuple[str, Dense]] = field(default_factory=list)
    extras: list[Extra] = field(default_factory=list)
    unlisted: int = 0
    listed: int = 0
    again: Again = field(default_factory=Again)

    def add_all(self, value: object, path: str, key: str | None, depth: int = 0) -> None:
        """Lists what a container holds. `path` and `key` are what its members' names are appended to; no key: elsewhere."""
        self.listed += 1
        if self.listed > LISTINGS * len(self.holding) + 1000 or depth > NESTING:
            raise PickleFault("refers to the same objects over and over")
        members = module_children(value)
        if members is not None:
            self._add_leftovers(value, path)
        self.again.note(value, len(path) + len(key or ""))
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
            self._add_extra(path, "tensor", child)

    def _add_leftovers(self, module: object, path: str) -> None:
        """Tensors of a module that its `state_dict()` leaves out are no tensors of the checkpoint; they are named all the same."""
        for name, child in module_leftovers(module):
            if type(child) in TENSOR_TYPES or id(child) in self.holding:
                kind = "tensor" if type(child) in TENSOR_TYPES else "container"
                self._add_extra(path + name, kind, child, ", not in the module's state dict")

    def note(self, path: str, value: object) -> None:
        kind = "object" if type(value) is Opaque else "container" if isinstance(value, dict | list | tuple) and value else "value"
        self._add_extra(path, kind, value)

    def _add_extra(self, path: str, kind: str, value: object, remark: str = "") -> None:
        """The first ones; others are counted."""
        if len(self.extras) < EXTRAS:
            self.extras.append(Extra(path, kind, f"{describe(value)}{remark}"))
        else:
            self.unlisted += 1


def pickled_contents(
    root: object,
    path: str,
    wanted: str,
    locate: Locate,
    asked: Asked = _NOTHING,
    is_big_endian: bool = False,
    notes: Iterable[str] = (),
    known: dict[str, Described] | None = None,
    size_of: Callable[[StorageRef], int] | None = None,
) -> Contents:
    """What a pickle's root object contains. Raises FormatError for tensors that can't be, InputError for an unknown `wanted`.

    `known` remembers what the object says by itself, for files that have the same pickle. `size_of` gives the bytes of a storage,
    where that takes less than to locate it.
    """
    known = {} if known is None else known
    described = known.get(wanted)
    if described is None:
        try:
            listing, places = _list(root, path, wanted)
        except PickleFault as fault:
            raise FormatError(path, f"its pickle {fault}") from None
        described = known[wanted] = _describe(listing, places, path)
    length = size_of or (lambda storage: locate(storage).length)
    for one in described.measured.values():
        check_inside(one, path, length)
    placements = Placements(described.inside, lambda one: lay_out(one, path, locate, is_big_endian))
    extras = [*described.listing.extras, *described.root_extras, *_asked_extras(asked), *_note_extras(notes)]
    taken = described.listing.taken
    return Contents(
        described.catalog, placements, {}, versions_of(taken.value), bounded(extras, described.listing.unlisted),
        described.state_dicts, taken.text, described.elsewhere,
    )  # fmt: skip


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
    listing = Listing(Place((), place.value), whole.holding, whole.are_arrays_tensors, again=whole.again)
    listing.add_all(place.value, "", "")
    return listing


@dataclass(frozen=True, slots=True)
class Described:
    """What the pickle says by itself, wherever the bytes lie; `measured` has each tensor by its id."""

    listing: Listing
    catalog: Catalog
    elsewhere: tuple[TensorInfo, ...]
    state_dicts: tuple[StateDict, ...]
    root_extras: tuple[Extra, ...]
    measured: Mapping[int, Measured]
    inside: Mapping[str, Measured]


def _describe(listing: Listing, places: list[tuple[Place, Listing]], path: str) -> Described:
    tensors = Tensors(path)
    infos, elsewhere = tensors.add_all(listing.inside), tensors.add_all(listing.elsewhere)
    if len({info.key for info in infos}) < len(infos):
        raise FormatError(path, f"two tensors of its state dict are named `{_first_repeated(infos)}`")
    catalog = Catalog(infos, are_in_module_order([info.key for info in infos]))
    is_odd = not catalog and not elsewhere and isinstance(listing.taken.value, Opaque)
    extras = (Extra("", "object", describe(listing.taken.value)),) if is_odd else ()
    state_dicts = tuple(StateDict(place.text, len(one.inside), tensors.nbytes(one.inside)) for place, one in places if one.inside)
    inside = {key: tensors.measured[id(tensor)] for key, tensor in listing.inside}
    return Described(listing, catalog, tuple(elsewhere), state_dicts, extras, tensors.measured, inside)


class Placements(Mapping[str, Placement]):
    """Where the tensors of a pickle lie; a placement is made when it is asked for."""

    __slots__ = ("_lay_out", "_tensors")

    def __init__(self, tensors: Mapping[str, Measured], lay_out: Callable[[Measured], Placement]) -> None:
        self._tensors, self._lay_out = tensors, lay_out

    def __getitem__(self, key: str) -> Placement:
        return self._lay_out(self._tensors[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


@dataclass(slots=True)
class Tensors:
    """The tensors of one pickle, measured once each; `owners` has the first tensor of each storage, `seen` the others' first keys."""

    path: str
    measured: dict[int, Measured] = field(default_factory=dict)
    owners: dict[str, tuple[str, Dense]] = field(default_factory=dict)
    seen: dict[object, str] = field(default_factory=dict)
    known: KnownExtents = field(default_factory=dict)

    def add_all(self, tensors: list[tuple[str, Dense]]) -> list[TensorInfo]:
        """What the catalog says of tensors, in their order."""
        listed = []
        for key, tensor in tensors:
            one = self.measured.get(id(tensor))
            if one is None:
                one = self.measured[id(tensor)] = measure(tensor, key, self.path, self.known)
            info = one.info
            storage = tensor.storage.key if type(tensor) is TensorRef else f"array {id(tensor)}"
            owner, first = self.owners.setdefault(storage, (key, tensor))
            if owner == key:
                listed.append(info if info.key == key else TensorInfo(key, info.dtype, info.shape))
            else:
                listed.append(TensorInfo(key, info.dtype, info.shape, owner, self._first(key, tensor, owner, first)))
        return listed

    def _first(self, key: str, tensor: Dense, owner: str, first: Dense) -> str | None:
        """The first key that is this very tensor, other than its own."""
        if tensor is first or (type(tensor) is TensorRef and type(first) is TensorRef and _seen_as(tensor) == _seen_as(first)):
            return owner
        if type(tensor) is not TensorRef:
            return None
        found = self.seen.setdefault((owner, _seen_as(tensor)), key)
        return None if found == key else found

    def nbytes(self, tensors: list[tuple[str, Dense]]) -> int:
        infos = [self.measured[id(tensor)].info for _, tensor in tensors]
        return sum([nbytes_of(info.dtype, info.shape) for info in infos])


def _seen_as(tensor: TensorRef) -> tuple[object, ...]:
    """How a tensor looks at its storage."""
    return tensor.dtype, tensor.shape, tensor.stride, tensor.offset, tensor.conjugate, tensor.negative


def _first_repeated(infos: list[TensorInfo]) -> str:
    seen: set[str] = set()
    return next(info.key for info in infos if info.key in seen or seen.add(info.key))  # type: ignore[func-returns-value]


def _asked_extras(asked: Asked) -> list[Extra]:
    return [Extra("", kind, name[:200]) for kind, names in (("call", asked.calls), ("import", asked.imports)) for name in names]


def _note_extras(notes: Iterable[str]) -> list[Extra]:
    return [Extra("", "note", note) for note in notes]


def bounded(extras: list[Extra], unlisted: int) -> tuple[Extra, ...]:
    """The extras, the many of a kind cut short with a note that counts the others, too. Calls and imports are kept before all else."""
    extras.sort(key=lambda extra: (extra.kind != "call", extra.kind != "import"))
    if (asked := sum(extra.kind in ("call", "import") for extra in extras)) > EXTRAS:
        extras[EXTRAS - 1 : asked] = [Extra("", extras[0].kind, f"… and {asked - EXTRAS + 1} more")]
    unlisted += max(0, len(extras) - EXTRAS)
    more = (Extra("", "note", f"{unlisted} more things besides the tensors are not listed"),) if unlisted else ()
    return (*extras[:EXTRAS], *more)
