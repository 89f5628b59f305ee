"""Sharded state dicts of FSDP and tensor parallelism, each process's in a file of its own: read as
one checkpoint.

The values of tensors that several processes hold alike are taken from the first; they are not
compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.checkpoint import Checkpoint, Contents, Extra, LeftBehind, StateDict
from ckpt_tool.formats.distributed.pieces import Deferred, Piece, assembled, check_pieces
from ckpt_tool.formats.distributed.rank_files import RankFiles, locate, measure, refuse_missing
from ckpt_tool.formats.distributed.ranks.names import Family
from ckpt_tool.formats.distributed.ranks.tensor_parts import KINDS, LocalBoxes, Part, PartReader
from ckpt_tool.formats.key_order import are_in_module_order
from ckpt_tool.formats.pickle.graph import children
from ckpt_tool.formats.pickle.values import OpaqueTensor, TensorRef
from ckpt_tool.formats.placements.assembled import Placement
from ckpt_tool.formats.torch_files.contents import PickledFile, describe_file
from ckpt_tool.formats.torch_files.description import Described
from ckpt_tool.formats.torch_files.state_dicts import versions_of
from ckpt_tool.regions import Region
from ckpt_tool.tensors import Catalog, Shape, TensorInfo, UnreadableTensor, counted, shape_text

HINT = "are the files of all ranks, and of one run, in the folder?"


def open_ranks(family: Family, path: str, wanted: str) -> Checkpoint:
    """The whole of all ranks' files; `wanted` is the name of a state dict in each of them. Raises
    FormatError for a rank that is missing, and for parts that don't belong together.
    """
    files = RankFiles(family.folder)
    try:
        contents = _contents(family, files, wanted)
    except BaseException:
        files.close()
        raise
    return Checkpoint(path, "torch rank files", contents, files.files)


@dataclass(slots=True)
class _Pieces:
    """Different boxes of a tensor; how many were there again."""

    by_region: dict[Region, Piece] = field(default_factory=dict)
    copies: int = 0
    is_possible: bool = True

    def add(self, piece: Piece) -> None:
        """A piece, unless another rank has the same box."""
        self.copies += self.by_region.setdefault(piece.region, piece) is not piece


@dataclass(slots=True)
class _Tensor:
    """What the ranks have of one key: by the law of torch's placements, and by the other one of
    `boxes_by_law` where that gives other boxes.
    """

    shape: Shape
    first: _Pieces = field(default_factory=_Pieces)
    second: _Pieces | None = None
    local: tuple[object, ...] | None = None

    def add(self, first: list[Piece] | None, second: list[Piece] | None) -> None:
        """The pieces of one rank by either law, None by one that isn't true."""
        if self.second is None and second is not first:
            self.second = replace(self.first, by_region=dict(self.first.by_region))
        for law, pieces in ((self.first, first), (self.second, second)):
            if law is not None and pieces is None:
                law.is_possible = False
            for piece in pieces or () if law is not None else ():
                law.add(piece)  # type: ignore[union-attr]

    def pieces(self) -> _Pieces | None:
        """Those of the law that is true of all ranks. Where both are they give the same."""
        laws = (self.first, self.second)
        return next((law for law in laws if law is not None and law.is_possible), None)

    def note_place(self, tensor: TensorRef, pickled: PickledFile) -> None:
        """Where the first piece lies, which tied tensors have in common."""
        if self.local is None:
            view = (tensor.storage.key, tensor.offset, tensor.shape, tensor.stride, tensor.dtype)
            self.local = (pickled.path, self.shape, *view)


@dataclass(slots=True)
class _Join:
    """The tensors of all ranks' files, as they are read."""

    family: Family
    tensors: dict[str, _Tensor] = field(default_factory=dict)
    unreadable: dict[str, UnreadableTensor] = field(default_factory=dict)
    kinds: dict[str, None] = field(default_factory=dict)
    highest: int = -1
    is_counted: bool = True
    first: Described | None = None

    def add_file(self, rank: int, pickled: PickledFile, wanted: str) -> None:
        """One rank's."""
        described = describe_file(pickled, wanted)
        self.first = self.first or described
        _refuse_flat(described, pickled.path)
        reader = PartReader(pickled, rank)
        odd = dict(described.listing.odd)
        for key in _in_order(described):
            tensor = odd.get(key)
            if type(tensor) is OpaqueTensor and tensor.kind in KINDS:
                self.kinds[tensor.kind] = None
                self._add_part(key, reader.read(key, tensor), pickled)
            elif tensor is None:
                self._add_whole(key, described, pickled)
            else:
                self.unreadable.setdefault(key, described.catalog.unreadable[key])
        self.highest = max(self.highest, reader.highest)
        self.is_counted = self.is_counted and reader.is_counted

    def _of(self, key: str, shape: Shape, pickled: PickledFile) -> _Tensor:
        found = self.tensors.setdefault(key, _Tensor(shape))
        if found.shape != shape:
            fact = (
                f"`{key[:200]}` is {shape_text(shape)} here, and {shape_text(found.shape)} in "
                "another rank's file"
            )
            hint = "plain tensors that differ are cut by a rule that the files don't have"
            raise FormatError(pickled.path, fact, hint)
        return found

    def _add_part(self, key: str, part: Part, pickled: PickledFile) -> None:
        found = self._of(key, part.shape, pickled)
        first, second = part.boxes
        pieces = _pieces(first, key, pickled)
        found.add(pieces, pieces if second is first else _pieces(second, key, pickled))
        if part.local is not None and (first or second):
            found.note_place(part.local, pickled)

    def _add_whole(self, key: str, described: Described, pickled: PickledFile) -> None:
        info = described.catalog[key]
        found = self._of(key, info.shape, pickled)
        measured = described.inside[key]
        place = partial(pickled.place, measured)
        if measured.tensor is not None and 0 not in info.shape:
            found.note_place(measured.tensor, pickled)
        pieces = [Piece(Region((0,) * len(info.shape), info.shape), info.dtype, place)]
        found.add(pieces, pieces)


def _in_order(described: Described) -> list[str]:
    """The keys as the state dict has them, those that are read and the others."""
    keys = [*described.catalog, *described.catalog.unreadable]
    place = {name: at for at, (name, _) in enumerate(children(described.listing.taken.value))}
    return sorted(keys, key=lambda key: place.get(key, 0)) if place.keys() >= set(keys) else keys


def _pieces(boxes: LocalBoxes | None, key: str, pickled: PickledFile) -> list[Piece] | None:
    if boxes is None:
        return None
    found = []
    for region, local in boxes:
        measured = measure(local, key, pickled)
        found.append(Piece(region, measured.info.dtype, partial(_place, local, key, pickled)))
    return found


def _place(tensor: TensorRef, key: str, pickled: PickledFile) -> Placement:
    return locate(tensor, key, pickled)[1]


def _contents(family: Family, files: RankFiles, wanted: str) -> Contents:
    join = _Join(family)
    for rank, name in enumerate(family.names):
        join.add_file(rank, files.open(name), wanted)
    _check_ranks(join)
    infos, makers = [], {}
    first: dict[object, str] = {}
    for key, found in join.tensors.items():
        pieces = _true_pieces(key, found, family.folder.path)
        owner = first.setdefault(found.local or key, key)
        tied = None if owner == key else owner
        infos.append(TensorInfo(key, pieces[0].dtype, found.shape, tied, tied))
        makers[key] = assembled(pieces, found.shape)
    described = join.first
    assert described is not None
    keys = [info.key for info in infos]
    catalog = Catalog(infos, are_in_module_order(keys), join.unreadable.values())
    return Contents(
        catalog,
        Deferred(makers),
        versions=versions_of(described.listing.taken.value),
        extras=(*files.asked, *_notes(join)),
        state_dicts=_state_dicts(described, catalog),
        taken=described.listing.taken.text,
        rivals=described.rivals,
        left_behind=tuple(_left_behind(described, family)),
        layout=_layout(join),
    )


def _true_pieces(key: str, found: _Tensor, path: str) -> list[Piece]:
    """The pieces that fill the tensor. Raises FormatError where they don't."""
    law = found.pieces()
    if law is None:
        fact = f"`{key[:200]}` is cut in different ways in the files of different ranks"
        raise FormatError(path, fact, HINT)
    if not law.by_region:
        fact = f"`{key[:200]}` has none of its {prod(found.shape):,} elements in any file"
        raise FormatError(path, fact, HINT)
    pieces = list(law.by_region.values())
    check_pieces(key, pieces, found.shape, path, HINT)
    return pieces


def _check_ranks(join: _Join) -> None:
    """Raises FormatError where the meshes have ranks whose files aren't there, or files are of
    ranks that no mesh has; and where nothing says how the files belong together.
    """
    family, here = join.family, len(join.family.names)
    count = max(here, join.highest + 1)
    refuse_missing(family.folder, [family.named(rank) for rank in range(here, count)], count)
    if join.kinds and join.is_counted and here > join.highest + 1:
        more = here - join.highest - 2
        others = f" and {counted(more, 'more file')}" if more else ""
        raise FormatError(
            family.folder.path,
            f"has {family.names[join.highest + 1]}{others}, and the meshes of its tensors have "
            f"{counted(join.highest + 1, 'rank')}",
            "is it of another run? move it away",
        )
    if not join.kinds and not (here == 1 and family.is_counted):
        ranks = "1 rank" if here == 1 else f"{here:,} ranks"
        raise FormatError(
            family.folder.path,
            f"has the files of {ranks} ({family.names[0]}) with plain tensors alone: "
            "nothing in them says whether they are copies or parts",
            f"name one of them: {family.folder.join(family.names[0])}",
        )


def _notes(join: _Join) -> Iterator[Extra]:
    count = sum(1 for one in join.tensors.values() if one.first.copies)
    if count:
        text = (
            f"{counted(count, 'tensor')} that several ranks hold alike: the first one's were "
            "taken, the others not compared"
        )
        yield Extra("", "note", text)


def _state_dicts(described: Described, catalog: Catalog) -> tuple[StateDict, ...]:
    taken = described.listing.taken.text
    return tuple(
        StateDict(one.path, len(catalog), catalog.nbytes) if one.path == taken else one
        for one in described.state_dicts
    )


def _left_behind(described: Described, family: Family) -> Iterator[LeftBehind]:
    """What rank 0's file holds besides; the others' hold the like."""
    for one in described.left_behind:
        yield LeftBehind(f"{family.names[0]}#{one.path}", one.kind, one.tensors, one.nbytes)


def _refuse_flat(described: Described, path: str) -> None:
    keys = (*described.catalog, *described.catalog.unreadable)
    flat = next((key for key in keys if key.rpartition(".")[2].startswith(_FLAT)), None)
    if flat is not None:
        raise FormatError(
            path,
            f"has FSDP1's flat parameters (`{flat[:100]}`): one tensor holds the weights of a "
            "whole module, and nothing in the files says where each begins",
            "gather them where they were made (FullStateDictConfig, or torch's "
            "get_model_state_dict with full_state_dict=True)",
        )


_FLAT = ("_flat_param", "flat_param")


def _layout(join: _Join) -> str:
    count = len(join.family.names)
    ranks = "1 rank" if count == 1 else f"{count:,} ranks"
    kinds = " and ".join(f"{kind}s" for kind in join.kinds) or "plain tensors"
    return f"the sharded state dict of {ranks} ({kinds}), joined"
