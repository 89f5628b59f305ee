"""What a pickle says by itself, wherever the bytes lie: its listing, measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ckpt_tool.errors import FormatError, WithoutTensors
from ckpt_tool.formats.checkpoint import LeftBehind, StateDict
from ckpt_tool.formats.key_order import are_declared_so, are_in_module_order
from ckpt_tool.formats.pickle.descriptions import describe
from ckpt_tool.formats.pickle.graph import TENSOR_TYPES, holders, module_children, parts_of, unwrap
from ckpt_tool.formats.pickle.unreadable import dimensions
from ckpt_tool.formats.pickle.values import (
    ArrayRef,
    Asked,
    OpaqueTensor,
    TensorRef,
)
from ckpt_tool.formats.torch_files.listing import Dense, Listing, Odd, Spot
from ckpt_tool.formats.torch_files.picking import choose, look_up
from ckpt_tool.formats.torch_files.state_dicts import Container, find_state_dicts, versions_of
from ckpt_tool.formats.torch_files.tensor_layout import (
    KnownExtents,
    Measured,
    measure_tensor,
)
from ckpt_tool.frozen import frozen
from ckpt_tool.tensors import Catalog, TensorInfo, UnreadableTensor, nbytes_of


def describe_pickle(root: object, path: str, wanted: str, asked: Asked) -> Described:
    """The description of a pickle's root object. Raises FormatError for a file without tensors and
    for tensors that can't be, InputError for an unknown `wanted`, PickleFault.
    """
    holding, has_torch = holders(root)
    if id(root) not in holding and not _is_empty(root):
        raise _without_tensors(root, path, asked)
    places = find_state_dicts(root, holding) if id(root) in holding else []
    taken, rivals = (
        (look_up(root, wanted, holding, places, path), ()) if wanted else choose(places, root)
    )
    listing = _list_file(root, Listing(taken, holding, not has_torch, _by_id(places, taken)))
    if taken.path not in [place.path for place in places]:
        places.insert(0, taken)
    listings = [(place, _list_place(place, listing)) for place in places]
    return _describe(listing, listings, rivals, path)


def _without_tensors(root: object, path: str, asked: Asked) -> FormatError:
    names = (*asked.calls, *asked.imports)
    would = ", ".join(name[:60] for name in names[:3])
    hint = f"unpickling it would call or import {would}" if would else None
    return WithoutTensors(path, f"holds no tensor, but {describe(root, 120)}", hint, names, root)


def _by_id(places: list[Container], taken: Container) -> dict[int, Container]:
    """The places by the ids of their objects, which are no keys themselves."""
    return {id(place.value): place for place in ((*places, taken) if taken.path else places)}


def _list_file(root: object, listing: Listing) -> Listing:
    """The listing, with all that the file holds."""
    if type(root) in TENSOR_TYPES:
        listing.add("", root, Spot(key=""))
    else:
        listing.add_all(unwrap(root), Spot(key=None if listing.taken.path else ""))
    return listing


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


@frozen
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
    measured: Mapping[Dense, Measured]
    inside: Mapping[str, Measured]
    outside: Mapping[str, Measured]
    unreadable_elsewhere: tuple[UnreadableTensor, ...]


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
    _check_keys([*(info.key for info in infos), *(tensor.key for tensor in unreadable)], path)
    is_ordered = are_in_module_order([info.key for info in infos])
    is_declared = are_declared_so(infos, versions_of(listing.taken.value))
    return Described(
        listing,
        Catalog(infos, is_ordered, unreadable, is_declared),
        tuple(elsewhere),
        tuple(_state_dicts(places, tensors)),
        tuple(place.text for place in rivals),
        tuple(_left_behind(listing, tensors)),
        tensors.measured,
        {key: tensors.measured[tensor] for key, tensor in listing.inside},
        {key: tensors.measured[tensor] for key, tensor in listing.elsewhere},
        tuple(_unreadable(key, tensor) for key, tensor in listing.odd_elsewhere),
    )


def _check_keys(keys: list[str], path: str) -> None:
    """Raises FormatError for a key that two tensors have."""
    if len(set(keys)) < len(keys):
        raise FormatError(
            path, f"two tensors of its state dict are named `{_first_repeated(keys)}`"
        )


def _state_dicts(
    places: list[tuple[Container, Listing]], tensors: MeasuredTensors
) -> Iterator[StateDict]:
    for place, listing in places:
        count = len(listing.inside) + len(listing.odd)
        if count:
            nbytes = tensors.nbytes(tensor for _, tensor in listing.inside)
            yield StateDict(place.text, count, nbytes)


def _left_behind(listing: Listing, tensors: MeasuredTensors) -> Iterator[LeftBehind]:
    for name, group in listing.groups.items():
        count = len(group.tensors) + group.others
        if count:
            yield LeftBehind(name, group.kind, count, tensors.nbytes(group.tensors))
        elif group.has_values:
            yield LeftBehind(name, "values")


def _unreadable(key: str, tensor: Odd) -> UnreadableTensor:
    kind = "array" if type(tensor) is ArrayRef else tensor.kind  # type: ignore[union-attr]
    return UnreadableTensor(key, kind, dimensions(tensor.shape), describe(tensor))


@dataclass(slots=True, eq=False)
class MeasuredTensors:
    """The tensors of one pickle, measured once each; `owners` has the first tensor of each storage,
    `seen` the others' first keys.
    """

    path: str
    measured: dict[Dense, Measured] = field(default_factory=dict)
    owners: dict[str, tuple[str, Dense]] = field(default_factory=dict)
    seen: dict[object, str] = field(default_factory=dict)
    known: KnownExtents = field(default_factory=dict)

    def add_all(self, tensors: list[tuple[str, Dense]]) -> list[TensorInfo]:
        """What the catalog says of tensors, in their order."""
        listed = []
        for key, tensor in tensors:
            found = self.measured.get(tensor)
            if found is None:
                found = self.measured[tensor] = measure_tensor(tensor, key, self.path, self.known)
            info = found.info
            storage = tensor.storage.key if type(tensor) is TensorRef else f"array {id(tensor)}"
            owner, first = self.owners.setdefault(storage, (key, tensor))
            twin = None if owner == key else self._first(key, tensor, owner, first)
            other = None if owner == key else owner
            if other or info.key != key:
                info = TensorInfo(key, info.dtype, info.shape, other, twin, info.span)
            listed.append(info)
        return listed

    def _first(self, key: str, tensor: Dense, owner: str, first: Dense) -> str | None:
        """The first key that is this very tensor, other than its own."""
        if tensor is first or (
            type(tensor) is TensorRef
            and type(first) is TensorRef
            and _view_of(tensor) == _view_of(first)
        ):
            return owner
        if type(tensor) is not TensorRef:
            return None
        found = self.seen.setdefault((owner, _view_of(tensor)), key)
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
                    self.measured.setdefault(part, measure_tensor(part, key, self.path, self.known))
                elif type(part) is OpaqueTensor:
                    pending += part.inside
                else:
                    pending += parts_of(part)

    def nbytes(self, tensors: Iterable[Dense]) -> int:
        """The bytes of these tensors in all, as if each were stored by itself."""
        infos = [self.measured[tensor].info for tensor in tensors]
        return sum([nbytes_of(info.dtype, info.shape) for info in infos])


def _view_of(tensor: TensorRef) -> tuple[object, ...]:
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
