"""The contents of a checkpoint that is a pickle: its state dicts, the one that is taken, and
everything beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.byte_ranges import Placement
from ckpt_tool.formats.checkpoint import Contents, Extra, LeftBehind, StateDict
from ckpt_tool.formats.key_order import are_in_module_order
from ckpt_tool.formats.limits import EXTRAS
from ckpt_tool.formats.pickle.graph import (
    TENSOR_TYPES,
    describe,
    holders,
    module_children,
    parts_of,
    unwrap,
)
from ckpt_tool.formats.pickle.unreadable import dimensions
from ckpt_tool.formats.pickle.values import (
    ArrayRef,
    Asked,
    OpaqueTensor,
    PickleFault,
    StorageRef,
    TensorRef,
)
from ckpt_tool.formats.torch_files.listing import Dense, Listing, Odd, Spot
from ckpt_tool.formats.torch_files.picking import choose, look_up
from ckpt_tool.formats.torch_files.state_dicts import Container, find_state_dicts, versions_of
from ckpt_tool.formats.torch_files.tensor_layout import (
    KnownExtents,
    Locate,
    Measured,
    check_inside,
    lay_out,
    measure,
)
from ckpt_tool.tensors import Catalog, TensorInfo, UnreadableTensor, nbytes_of

_NOTHING = Asked()


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
    """What a pickle's root object contains. Raises FormatError for tensors that can't be,
    InputError for an unknown `wanted`.

    `known` remembers what the object says by itself, for files that have the same pickle. `size_of`
    gives the bytes of a storage, where that takes less than to locate it.
    """
    known = {} if known is None else known
    described = known.get(wanted)
    if described is None:
        try:
            listing, places, rivals = _list(root, path, wanted, asked)
        except PickleFault as fault:
            raise FormatError(path, f"its pickle {fault}") from None
        described = known[wanted] = _describe(listing, places, rivals, path)
    length = size_of or (lambda storage: locate(storage).length)
    for one in described.measured.values():
        check_inside(one, path, length)
    placements, beside = (
        Placements(tensors, lambda one: lay_out(one, path, locate, is_big_endian))
        for tensors in (described.inside, described.outside)
    )
    extras = [
        *described.listing.extras,
        *_asked_extras(asked),
        *_notes_on(described.listing),
        *_note_extras(notes),
    ]
    taken = described.listing.taken
    return Contents(
        described.catalog,
        placements,
        {},
        versions_of(taken.value),
        bounded(extras, described.listing.unlisted),
        described.state_dicts,
        taken.text,
        described.elsewhere,
        rivals=described.rivals,
        left_behind=described.left_behind,
        beside=beside,
        unreadable_elsewhere=tuple(
            _unreadable(key, tensor) for key, tensor in described.listing.odd_elsewhere
        ),
    )


def _list(
    root: object, path: str, wanted: str, asked: Asked
) -> tuple[Listing, list[tuple[Container, Listing]], tuple[Container, ...]]:
    """The listing of the whole file, those of its state dicts, and which of these are equally
    likely.

    Raises FormatError for a file without tensors.
    """
    holding, has_torch = holders(root)
    if id(root) not in holding and not _is_empty(root):
        would = ", ".join(name[:60] for name in (*asked.calls, *asked.imports)[:3])
        hint = f"unpickling it would call or import {would}" if would else None
        raise FormatError(path, f"holds no tensor, but {describe(root, 120)}", hint)
    places = find_state_dicts(root, holding) if id(root) in holding else []
    taken, rivals = (
        (look_up(root, wanted, holding, places, path), ()) if wanted else choose(places, root)
    )
    known = {id(place.value): place for place in ((*places, taken) if taken.path else places)}
    if taken.path not in [place.path for place in places]:
        places.insert(0, taken)
    listing = Listing(taken, holding, not has_torch, known)
    key = None if taken.path else ""
    if type(root) in TENSOR_TYPES:
        listing.add("", root, Spot(key=""))
    else:
        listing.add_all(unwrap(root), Spot(key=key))
    return listing, [(place, _list_place(place, listing)) for place in places], rivals


def _is_empty(root: object) -> bool:
    """Whether this is the state dict of a model without any tensors, or such a model."""
    return (isinstance(root, dict) and not root) or module_children(unwrap(root)) is not None


def _list_place(place: Container, whole: Listing) -> Listing:
    if place is whole.taken:
        return whole
    listing = Listing(
        Container((), place.value),
        whole.holding,
        whole.are_arrays_tensors,
        {id(place.value): place},
        again=whole.again,
    )
    listing.add_all(place.value, Spot(key="", is_named=False))
    return listing


@dataclass(frozen=True, slots=True)
class Described:
    """What the pickle says by itself, wherever the bytes lie; `measured` has each tensor
    by its id.
    """

    listing: Listing
    catalog: Catalog
    elsewhere: tuple[TensorInfo, ...]
    state_dicts: tuple[StateDict, ...]
    rivals: tuple[str, ...]
    left_behind: tuple[LeftBehind, ...]
    measured: Mapping[int, Measured]
    inside: Mapping[str, Measured]
    outside: Mapping[str, Measured]


def _describe(
    listing: Listing,
    places: list[tuple[Container, Listing]],
    rivals: tuple[Container, ...],
    path: str,
) -> Described:
    tensors = MeasuredTensors(path)
    infos, elsewhere = tensors.add_all(listing.inside), tensors.add_all(listing.elsewhere)
    tensors.measure_parts(listing.odd_parts)
    unreadable = [_unreadable(key, tensor) for key, tensor in listing.odd]
    keys = [*(info.key for info in infos), *(tensor.key for tensor in unreadable)]
    if len(set(keys)) < len(keys):
        raise FormatError(
            path, f"two tensors of its state dict are named `{_first_repeated(keys)}`"
        )
    catalog = Catalog(infos, are_in_module_order([info.key for info in infos]), unreadable)
    state_dicts = tuple(
        StateDict(
            place.text,
            len(one.inside) + len(one.odd),
            tensors.nbytes([tensor for _, tensor in one.inside]),
        )
        for place, one in places
        if one.inside or one.odd
    )
    left_behind = tuple(
        LeftBehind(name, group.kind if count else "values", count, tensors.nbytes(group.tensors))
        for name, group in listing.groups.items()
        for count in (len(group.tensors) + group.others,)
        if count or group.has_values
    )
    inside, outside = (
        {key: tensors.measured[id(tensor)] for key, tensor in each}
        for each in (listing.inside, listing.elsewhere)
    )
    names = tuple(place.text for place in rivals)
    return Described(
        listing,
        catalog,
        tuple(elsewhere),
        state_dicts,
        names,
        left_behind,
        tensors.measured,
        inside,
        outside,
    )


def _unreadable(key: str, tensor: Odd) -> UnreadableTensor:
    kind = "array" if type(tensor) is ArrayRef else tensor.kind  # type: ignore[union-attr]
    return UnreadableTensor(key, kind, dimensions(tensor.shape), describe(tensor))


def _notes_on(listing: Listing) -> list[Extra]:
    """What is said of a pickle's tensors and modules in all."""
    notes = []
    if listing.attributed:
        names = ", ".join(f"`{name[:40]}`" for name in islice(listing.attributed, 8)) + (
            " …" if len(listing.attributed) > 8 else ""
        )
        notes.append(
            Extra("", "note", f"tensors have Python attributes, which are not read: {names}")
        )
    if listing.hooked:
        which = f"`{listing.hooked[0]}`" if listing.hooked[0] else "the module"
        more = f" and {len(listing.hooked) - 1} more" if len(listing.hooked) > 1 else ""
        notes.append(
            Extra(
                "",
                "note",
                f"{which}{more} has state-dict hooks, which may change names: "
                "its state_dict() may have other keys",
            )
        )
    return notes


class Placements(Mapping[str, Placement]):
    """Where the tensors of a pickle lie; a placement is made when it is asked for."""

    __slots__ = ("_lay_out", "_tensors")

    def __init__(
        self, tensors: Mapping[str, Measured], lay_out: Callable[[Measured], Placement]
    ) -> None:
        self._tensors, self._lay_out = tensors, lay_out

    def __getitem__(self, key: str) -> Placement:
        return self._lay_out(self._tensors[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


@dataclass(slots=True)
class MeasuredTensors:
    """The tensors of one pickle, measured once each; `owners` has the first tensor of each storage,
    `seen` the others' first keys.
    """

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
                listed.append(
                    TensorInfo(
                        key, info.dtype, info.shape, owner, self._first(key, tensor, owner, first)
                    )
                )
        return listed

    def _first(self, key: str, tensor: Dense, owner: str, first: Dense) -> str | None:
        """The first key that is this very tensor, other than its own."""
        if tensor is first or (
            type(tensor) is TensorRef
            and type(first) is TensorRef
            and _seen_as(tensor) == _seen_as(first)
        ):
            return owner
        if type(tensor) is not TensorRef:
            return None
        found = self.seen.setdefault((owner, _seen_as(tensor)), key)
        return None if found == key else found

    def measure_parts(self, odd: list[tuple[str, OpaqueTensor]]) -> None:
        """Measures the plain tensors that others are made of, so that these are checked as well.
        Each is looked at once.
        """
        seen: set[int] = set()
        for key, tensor in odd:
            pending: list[object] = list(tensor.inside)
            while pending:
                part = pending.pop()
                if id(part) in seen:
                    continue
                seen.add(id(part))
                if type(part) is TensorRef:
                    self.measured.setdefault(id(part), measure(part, key, self.path, self.known))
                elif type(part) is OpaqueTensor:
                    pending += part.inside
                else:
                    pending += parts_of(part)

    def nbytes(self, tensors: list[Dense]) -> int:
        """The bytes of these tensors in all, as if each were stored by itself."""
        infos = [self.measured[id(tensor)].info for tensor in tensors]
        return sum([nbytes_of(info.dtype, info.shape) for info in infos])


def _seen_as(tensor: TensorRef) -> tuple[object, ...]:
    """How a tensor looks at its storage."""
    return (
        tensor.dtype,
        tensor.shape,
        tensor.stride,
        tensor.offset,
        tensor.conjugate,
        tensor.negative,
    )


def _first_repeated(keys: list[str]) -> str:
    seen: set[str] = set()
    return next(key for key in keys if key in seen or seen.add(key))  # type: ignore[func-returns-value]


def _asked_extras(asked: Asked) -> list[Extra]:
    return [
        Extra("", kind, name[:200])
        for kind, names in (("call", asked.calls), ("import", asked.imports))
        for name in names
    ]


def _note_extras(notes: Iterable[str]) -> list[Extra]:
    return [Extra("", "note", note) for note in notes]


def bounded(extras: list[Extra], unlisted: int) -> tuple[Extra, ...]:
    """The extras, the many of a kind cut short with a note that counts the others, too. Calls and
    imports are kept before all else.
    """
    extras.sort(key=lambda extra: (extra.kind != "call", extra.kind != "import"))
    if (asked := sum(extra.kind in ("call", "import") for extra in extras)) > EXTRAS:
        extras[EXTRAS - 1 : asked] = [Extra("", extras[0].kind, f"… and {asked - EXTRAS + 1} more")]
    unlisted += max(0, len(extras) - EXTRAS)
    more = (
        (Extra("", "note", f"{unlisted} more things besides the tensors are not listed"),)
        if unlisted
        else ()
    )
    return (*extras[:EXTRAS], *more)
