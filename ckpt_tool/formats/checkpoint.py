"""An open checkpoint: its catalog at once, its tensors' bytes when they are asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import field, replace
from typing import TYPE_CHECKING

from ckpt_tool.errors import InputError
from ckpt_tool.formats.placements.assembled import Assembled, Joined, Placement, storages_of
from ckpt_tool.formats.placements.byte_ranges import CHUNK, Deflated, Extent
from ckpt_tool.formats.placements.parts import read_part
from ckpt_tool.formats.placements.views import View, read_view
from ckpt_tool.frozen import frozen
from ckpt_tool.regions import Region
from ckpt_tool.tensors import Catalog, TensorInfo, UnreadableTensor
from ckpt_tool.watching import Watch, unwatched

if TYPE_CHECKING:
    from types import TracebackType

    import torch

    from ckpt_tool.formats.files import SourceFile


MAX_RIVALS = 10
"""State dicts that are named to somebody who is to choose one."""


@frozen
class Extra:
    """Something of the file that is no tensor of the state dict: a number, a text, an object whose
    class was not imported.

    `path` leads to it from the file's root (`optimizer.param_groups`); `kind` is `value`,
    `container`, `object`, `call` (a pickle would have called `text`), `import` (it would have
    imported it), `tensor` (quantised, sparse) or `note`.
    """

    path: str
    kind: str
    text: str


@frozen
class StateDict:
    """A state dict that was found in a file: `path` leads to it (empty: the file itself is one),
    `keys` are its tensors.
    """

    path: str
    tensors: int
    nbytes: int


@frozen
class LeftBehind:
    """What a file holds outside the state dict that is taken: `path` leads to it, with its tensors
    and their bytes.

    `kind` is `optimizer`, `averaged weights`, `state dict`, `tensors` or `values` (numbers and
    texts, no tensors).
    """

    path: str
    kind: str
    tensors: int = 0
    nbytes: int = 0


@frozen
class Contents:
    """What a reader of one format returns.

    `placements` says for each key of the catalog where its bytes lie; it is empty where only names
    and shapes are known. `taken` is the path of the state dict that the catalog describes, out of
    `state_dicts`; `elsewhere` are the file's other tensors, under their full paths. `metadata` is
    safetensors' `__metadata__`; `versions` is torch's `state_dict._metadata`. `digests` are those
    of tensors' values, which a key list may have. `rivals` are the paths of state dicts that are
    equally likely meant, so that none is taken; `left_behind` sums up what is outside the one that
    is taken. `layout` says in one sentence what kind of file this is, where it is no whole model: a
    rank's part, an adapter, quantised weights; and what makes a whole of it. `is_whole` is False
    then; where a folder's shards were read in spite of its index, `layout` says that, and it is
    whole.
    """

    catalog: Catalog
    placements: Mapping[str, Placement]
    metadata: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    extras: tuple[Extra, ...] = ()
    state_dicts: tuple[StateDict, ...] = ()
    taken: str = ""
    elsewhere: tuple[TensorInfo, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)
    rivals: tuple[str, ...] = ()
    left_behind: tuple[LeftBehind, ...] = ()
    layout: str = ""
    is_whole: bool = True
    stale_index: str = ""
    """Why the index of shards was left aside, and these were read without it."""
    beside: Mapping[str, Placement] = field(default_factory=dict)
    """Where the tensors of `elsewhere` lie."""
    unreadable_elsewhere: tuple[UnreadableTensor, ...] = ()
    """What can't be read outside of the state dict, under its full path."""
    kept: object = field(default=None, compare=False, repr=False)
    """What the format's reader may use again for another file with the same description."""
    values: object = field(default=None, compare=False, repr=False)
    """The state dict that is taken as a pickle has it: dicts, lists, numbers, texts, and what
    stands for tensors and for objects of other classes. None for formats that hold tensors alone.
    """
    root: object = field(default=None, compare=False, repr=False)
    """The same for the whole file."""


class Checkpoint:
    """An open checkpoint, a context manager. Reading a tensor costs its bytes; everything else was
    read on opening.

    >>> import ckpt_tool, torch
    >>> torch.save({"fc.bias": torch.ones(10)}, "model.pth")
    >>> with ckpt_tool.open("model.pth") as checkpoint:
    ...     checkpoint.format, checkpoint.catalog["fc.bias"].nbytes, len(checkpoint.raw("fc.bias"))
    ('torch zip', 40, 40)
    """

    is_file = True
    """Whether it was opened by its path, so that `path` names something."""

    def __init__(
        self, path: str, format: str, contents: Contents, files: tuple[SourceFile, ...] = ()
    ) -> None:
        self.path, self.format, self.contents, self.files = path, format, contents, files
        self.catalog: Catalog = contents.catalog
        self.metadata = contents.metadata
        self.versions = contents.versions
        self.extras = contents.extras
        for file in files:
            file.described()

    def outside(self) -> Checkpoint:
        """The same open file with the tensors that are outside of the state dict, under their full
        paths.
        """
        readable = [info for info in self.contents.elsewhere if info.key in self.contents.beside]
        catalog = Catalog(readable, unreadable=self.contents.unreadable_elsewhere)
        return Checkpoint(
            self.path, self.format, Contents(catalog, self.contents.beside), self.files
        )

    def only(self, keys: Collection[str]) -> Checkpoint:
        """The same open checkpoint with these keys alone."""
        catalog = Catalog(
            (info for key, info in self.catalog.items() if key in keys),
            self.catalog.is_ordered,
            (one for key, one in self.catalog.unreadable.items() if key in keys),
            self.catalog.is_declared,
        )
        return Checkpoint(
            self.path, self.format, replace(self.contents, catalog=catalog), self.files
        )

    @property
    def has_values(self) -> bool:
        """False for a key list, which knows names and shapes alone."""
        return bool(self.contents.placements) or not self.catalog

    def definite(self) -> Checkpoint:
        """This checkpoint. Raises InputError if the file holds several plausible state dicts,
        and names them.
        """
        rivals = self.contents.rivals
        if not rivals:
            return self
        some = rivals[:MAX_RIVALS]
        more = f" and {len(rivals) - MAX_RIVALS} more" if len(rivals) > MAX_RIVALS else ""
        fact = (
            f"holds {len(rivals)} equally likely state dicts: "
            f"{', '.join(f'`{name}`' for name in some)}{more}"
        )
        names = " or ".join(f"{self.path}#{name}" for name in some)
        raise InputError(self.path, fact, f"name one: {names}; or {self.path}#. for all of it")

    @property
    def asked(self) -> tuple[str, ...]:
        """The names of what unpickling the file would call or import, sorted."""
        return tuple(
            sorted({extra.text for extra in self.extras if extra.kind in ("call", "import")})
        )

    def extent(self, key: str) -> Extent | None:
        """The byte range that is this tensor as it stands (contiguous, little-endian), or None
        where its bytes are computed.
        """
        placement = self.contents.placements[key]
        return placement if isinstance(placement, Extent) else None

    def extents(self, key: str) -> tuple[Extent, ...]:
        """The byte ranges that are this tensor one after the other; none where its bytes are
        computed.
        """
        match self.contents.placements[key]:
            case Extent() as extent:
                return (extent,)
            case Joined() as joined:
                return joined.extents
            case _:
                return ()

    def chunks(self, key: str, size: int = CHUNK) -> Iterator[bytes]:
        """The contiguous little-endian bytes of a tensor in pieces. Raises FormatError where a
        checksum says otherwise.
        """
        placement = self.contents.placements[key]
        info = self.catalog[key]
        match placement:
            case Extent() | Joined():
                yield from placement.chunks(size)
            case Assembled():
                yield from placement.chunks(info.dtype, info.shape, self.path)
            case _:
                yield read_view(placement, info.dtype, info.shape, self.path)

    def read_part(self, key: str, region: Region, into: memoryview) -> None:
        """Fills `into` with the contiguous little-endian bytes of a box of a tensor, reading about
        as many; checksums are looked at by `check`. Raises FormatError where a file is cut.
        """
        info = self.catalog[key]
        read_part(self.contents.placements[key], region, info.dtype, info.shape, self.path, into)

    def has_parts(self, key: str) -> bool:
        """Whether a box of this tensor costs less than all of it."""
        placement, dtype = self.contents.placements[key], self.catalog[key].dtype
        return bool(dtype.itemsize) and not isinstance(placement, View)

    def fetch(self, keys: Iterable[str]) -> None:
        """Brings the values of these tensors here, where they lie elsewhere. Raises InputError."""
        if not all(file.is_here for file in self.files):
            for key in keys:
                if key in self.contents.placements:
                    self.contents.placements[key]

    def check(self, keys: Iterable[str], threads: int = 1) -> None:
        """Raises FormatError where the bytes of these tensors are not those of their checksums.
        Costs reading what has one.
        """
        placements = map(self.contents.placements.__getitem__, keys)
        checked = [one for one in placements if not (isinstance(one, Extent) and one.crc32 is None)]
        storages = dict.fromkeys(each for one in checked for each in storages_of(one))
        extents = [one for one in storages if isinstance(one, Extent) and one.crc32 is not None]
        if extents:
            from ckpt_tool.formats.placements.checksums import check_all

            check_all(extents, threads)
        for storage in storages:
            if isinstance(storage, Deflated):
                storage.read()

    def raw(self, key: str) -> bytes:
        """The contiguous little-endian bytes of a tensor."""
        return b"".join(self.chunks(key))

    def read(self, key: str) -> torch.Tensor:
        """The tensor, in its own memory."""
        from ckpt_tool.torch_bridge import to_tensor

        info = self.catalog[key]
        return to_tensor(bytearray().join(self.chunks(key)), info.dtype, info.shape)

    @property
    def has_digests(self) -> bool:
        """Whether the values can be compared: they are there, or their digests are."""
        return self.has_values or self.contents.digests.keys() >= self.catalog.keys()

    def digest(self, key: str) -> str:
        """The digest of a tensor's values: noted, or computed from its bytes. Raises FormatError
        where a checksum says otherwise.
        """
        from ckpt_tool.formats.digests import digest_of

        noted = self.contents.digests.get(key)
        if noted is not None:
            return noted
        extent = self.extent(key)
        return digest_of(extent.pieces() if extent else self.chunks(key))

    def checksums(self, watch: Watch = unwatched) -> dict[str, str]:
        """The SHA-256 of each file by its path, the one that was opened first. Costs reading them
        all.
        """
        with watch(sum(file.size for file in self.files)) as on_progress:
            return {file.path: file.sha256(on_progress) for file in self.files}

    def close(self) -> None:
        """Closes every file; tensors that were read stay."""
        for file in self.files:
            file.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
