"""The contents of a checkpoint that is a pickle: its state dicts, the one that is taken, and
everything beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.checkpoint import Contents, Extra
from ckpt_tool.formats.limits import EXTRAS
from ckpt_tool.formats.pickle.values import (
    Asked,
    PickleFault,
    StorageRef,
)
from ckpt_tool.formats.placements.assembled import Placement
from ckpt_tool.formats.placements.byte_ranges import Storage
from ckpt_tool.formats.torch_files.description import Described, describe_pickle
from ckpt_tool.formats.torch_files.listing import Listing
from ckpt_tool.formats.torch_files.state_dicts import versions_of
from ckpt_tool.formats.torch_files.tensor_layout import (
    Locate,
    Measured,
    check_inside,
    lay_out_tensor,
)
from ckpt_tool.frozen import frozen

_NOTHING = Asked()


@frozen
class PickledFile:
    """A pickle that was read, and the file around it.

    `locate` finds the bytes of a storage; `size_of` gives their number, where that takes less than
    to locate them.
    """

    root: object
    path: str
    locate: Locate
    asked: Asked = _NOTHING
    notes: tuple[str, ...] = ()
    is_big_endian: bool = False
    size_of: Callable[[StorageRef], int] | None = None

    def bytes_of(self, storage: StorageRef) -> int:
        """The number of bytes that the file has of a storage."""
        return self.size_of(storage) if self.size_of else self.locate(storage).length

    def place(self, tensor: Measured) -> Placement:
        """Where a tensor's bytes lie."""
        return lay_out_tensor(tensor, self.path, self.locate, self.is_big_endian)


@frozen
class ReadPickle:
    """A file's pickle with what it describes, kept with the open checkpoint: two checkpoints of
    one model often differ in their storages alone. Nobody may change its objects.

    `storages` says where these lie, where no archive's directory does.
    """

    data: bytes
    root: object
    asked: Asked
    wanted: str
    described: Described
    storages: Mapping[str, Storage] | None = None


def describe_file(pickled: PickledFile, wanted: str) -> Described:
    """What the pickle says by itself. Raises FormatError for tensors that can't be, InputError for
    an unknown `wanted`.
    """
    try:
        return describe_pickle(pickled.root, pickled.path, wanted, pickled.asked)
    except PickleFault as fault:
        raise FormatError(pickled.path, f"its pickle {fault}") from None


def pickled_contents(pickled: PickledFile, wanted: str) -> Contents:
    """What a pickle's root object contains. Raises FormatError for tensors that can't be,
    InputError for an unknown `wanted`.
    """
    return contents_of(pickled, describe_file(pickled, wanted))


def contents_of(pickled: PickledFile, described: Described) -> Contents:
    """What is described, at the places that it has in this file. Raises FormatError for a tensor
    outside of its storage.
    """
    for tensor in described.measured.values():
        check_inside(tensor, pickled.path, pickled.bytes_of)
    listing = described.listing
    extras = [
        *listing.extras,
        *_asked_extras(pickled.asked),
        *_notes_on(listing),
        *_note_extras(pickled.notes),
    ]
    return Contents(
        described.catalog,
        Placements(described.inside, pickled.place),
        versions=versions_of(listing.taken.value),
        extras=bounded(extras, listing.unlisted),
        state_dicts=described.state_dicts,
        taken=listing.taken.text,
        elsewhere=described.elsewhere,
        rivals=described.rivals,
        left_behind=described.left_behind,
        beside=Placements(described.outside, pickled.place),
        unreadable_elsewhere=described.unreadable_elsewhere,
        values=listing.taken.value,
        root=pickled.root,
    )


def _notes_on(listing: Listing) -> list[Extra]:
    """What holds for a pickle's tensors and modules in all."""
    notes = []
    if listing.attributed:
        more = " …" if len(listing.attributed) > 8 else ""
        names = ", ".join(f"`{name[:40]}`" for name in islice(listing.attributed, 8)) + more
        notes.append(f"tensors have Python attributes, which are not read: {names}")
    if listing.hooked:
        which = f"`{listing.hooked[0]}`" if listing.hooked[0] else "the module"
        more = f" and {len(listing.hooked) - 1} more" if len(listing.hooked) > 1 else ""
        notes.append(
            f"{which}{more} has state-dict hooks, which may change names: "
            "its state_dict() may have other keys"
        )
    return _note_extras(notes)


class Placements(Mapping[str, Placement]):
    """Where the tensors of a pickle lie; a placement is made when it is asked for."""

    __slots__ = ("_lay_out", "_tensors")

    def __init__(
        self, tensors: Mapping[str, Measured], lay_out: Callable[[Measured], Placement]
    ) -> None:
        self._tensors, self._lay_out = tensors, lay_out

    def elsewhere(self, lay_out: Callable[[Measured], Placement]) -> Placements:
        """The same tensors, laid out in another way."""
        return Placements(self._tensors, lay_out)

    def __getitem__(self, key: str) -> Placement:
        return self._lay_out(self._tensors[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def _asked_extras(asked: Asked) -> list[Extra]:
    return [
        Extra("", kind, name[:200])
        for kind, names in (("call", asked.calls), ("import", asked.imports))
        for name in names
    ]


def _note_extras(notes: Iterable[str]) -> list[Extra]:
    return [Extra("", "note", note) for note in notes]


def bounded(extras: Sequence[Extra], unlisted: int) -> tuple[Extra, ...]:
    """The extras, the many of a kind cut short with a note that counts the others, too. Calls and
    imports are kept before all else.
    """
    calls = [extra for extra in extras if extra.kind == "call"]
    asked = calls + [extra for extra in extras if extra.kind == "import"]
    others = [extra for extra in extras if extra.kind not in ("call", "import")]
    if len(asked) > EXTRAS:
        rest = f"… and {len(asked) - EXTRAS + 1} more"
        asked = [*asked[: EXTRAS - 1], Extra("", asked[0].kind, rest)]
    kept = [*asked, *others]
    unlisted += max(0, len(kept) - EXTRAS)
    if not unlisted:
        return tuple(kept)
    note = f"{unlisted} more things besides the tensors are not listed"
    return (*kept[:EXTRAS], Extra("", "note", note))
