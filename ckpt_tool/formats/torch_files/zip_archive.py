"""torch.save's zip archives (torch 1.6 and later), and TorchScript's.

A member `R/data.pkl` describes the object; the storages are the members `R/data/0`, `R/data/1`,
..., stored as they are, so that a tensor is a byte range of the file. `R` is the name of the file
when it was saved.
"""

from __future__ import annotations

from dataclasses import replace

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.archives.zip_directory import Archive, read_directory
from ckpt_tool.formats.archives.zip_end import CutOff
from ckpt_tool.formats.checkpoint import Contents
from ckpt_tool.formats.files import AGAIN, SourceFile
from ckpt_tool.formats.limits import CHECK_ON_OPEN, PICKLE_BYTES
from ckpt_tool.formats.pickle.machine import PickleMachine
from ckpt_tool.formats.pickle.storages import check_location, is_same_storage, make_storage
from ckpt_tool.formats.pickle.values import Asked, Global, PickleFault, StorageRef
from ckpt_tool.formats.placements.byte_ranges import Storage
from ckpt_tool.formats.torch_files.contents import (
    PickledFile,
    ReadPickle,
    contents_of,
    describe_file,
    pickled_contents,
)


def read(file: SourceFile, wanted: str, earlier: object = None) -> Contents:
    """Raises FormatError for what is no checkpoint of torch, or a damaged one.

    `earlier` is the `kept` of another file's contents: the same pickle is not read again.
    """
    return read_archive(_directory(file), wanted, earlier)


def read_pickle(file: SourceFile) -> PickledFile:
    """The pickle of an archive and where its storages lie, for a reader of several files that are
    one checkpoint. Raises FormatError.
    """
    archive = _directory(file)
    root = _root(archive)
    is_big_endian = file.is_here and _read_control_records(archive, root)
    if file.is_here and file.size <= CHECK_ON_OPEN:
        archive.check()
    value, asked = _run(archive.read(f"{root}/data.pkl", PICKLE_BYTES), file.path)
    storages = Storages(archive, root)
    return PickledFile(
        value, file.path, storages.locate, asked, archive.notes, is_big_endian, storages.size_of
    )


def _directory(file: SourceFile) -> Archive:
    """The archive's directory. Raises FormatError; for a file that is cut off, with what is
    missing.
    """
    try:
        return read_directory(file)
    except CutOff as error:
        from ckpt_tool.formats.torch_files.truncated import with_what_is_missing

        raise with_what_is_missing(error, file, StorageIds().find) from None


def read_archive(archive: Archive, wanted: str, earlier: object = None) -> Contents:
    """The same of an archive whose directory was read. Raises FormatError."""
    file = archive.file
    root = _root(archive)
    is_big_endian = file.is_here and _read_control_records(archive, root)
    if file.is_here and file.size <= CHECK_ON_OPEN:
        archive.check()
    data = archive.read(f"{root}/data.pkl", PICKLE_BYTES)
    if f"{root}/constants.pkl" in archive.members:
        from ckpt_tool.formats.torch_files.torchscript import as_modules

        program = as_modules(_run(data, file.path)[0], archive, root)
        note = "a TorchScript program; only its weights were read"
        return pickled_contents(
            _pickled(archive, root, is_big_endian, program, Asked(), note), wanted
        )
    found = earlier if isinstance(earlier, ReadPickle) and earlier.data == data else None
    value, asked = (found.root, found.asked) if found else _run(data, file.path)
    whole = _pickled(archive, root, is_big_endian, value, asked)
    described = found.described if found and found.wanted == wanted else None
    if described is None:
        described = describe_file(whole, wanted)
    return replace(
        contents_of(whole, described), kept=ReadPickle(data, value, asked, wanted, described)
    )


def read_object(file: SourceFile, limit: int = PICKLE_BYTES) -> PickledFile:
    """What `torch.save` wrote there, whatever it is, undescribed; its checksums are left to whoever
    reads its bytes. Raises FormatError.
    """
    archive = read_directory(file)
    root = _root(archive)
    is_big_endian = _read_control_records(archive, root)
    value, asked = _run(archive.read(f"{root}/data.pkl", limit), file.path)
    return _pickled(archive, root, is_big_endian, value, asked)


def _pickled(
    archive: Archive, root: str, is_big_endian: bool, value: object, asked: Asked, *notes: str
) -> PickledFile:
    storages = Storages(archive, root)
    return PickledFile(
        value,
        archive.file.path,
        storages.locate,
        asked,
        (*archive.notes, *notes),
        is_big_endian,
        storages.size_of,
    )


def _run(data: bytes, path: str) -> tuple[object, Asked]:
    """What a pickle describes, and what it asks for. Raises FormatError."""
    machine = PickleMachine(data, persistent=StorageIds().find)
    value = machine.load(path, "data.pkl")
    return value, machine.asked


def _root(archive: Archive) -> str:
    """The folder that every member is in. Raises FormatError where there is none, or no pickle in
    it.
    """
    path, names = archive.file.path, list(archive.members)
    root = names[0].split("/")[0]
    if f"{root}/data.pkl" not in archive.members:
        raise _no_checkpoint(path, names)
    stray = next((name for name in names if not name.startswith(f"{root}/")), None)
    if stray:
        raise FormatError(
            path,
            f"its zip archive has `{stray[:200]}` outside of `{root[:200]}/`, "
            "which torch.save never writes",
        )
    return root


def _no_checkpoint(path: str, names: list[str]) -> FormatError:
    if "model.weights.h5" in names:
        return FormatError(
            path,
            "is a Keras file (.keras)",
            "convert it with Keras: `model.save_weights` and numpy.savez",
        )
    if any(name.endswith("/archive_format") for name in names):
        return FormatError(
            path,
            "is a program of torch.export (.pt2)",
            "save the state_dict of what torch.export.load gives",
        )
    if "[Content_Types].xml" in names:
        return FormatError(path, "is an office document, not a checkpoint")
    return FormatError(
        path,
        "is a zip archive, but no checkpoint: it has no data.pkl",
        "if a checkpoint is inside, unpack it",
    )


def _read_control_records(archive: Archive, root: str) -> bool:
    """Whether storages are big-endian. Raises FormatError for a version or byte order that torch
    does not have.
    """
    path = archive.file.path
    version = (
        archive.read(f"{root}/version", 100).strip()
        if f"{root}/version" in archive.members
        else b""
    )
    if not version.isdigit() or not 1 <= int(version[:9]) <= 10:
        raise FormatError(
            path, f"its `version` record is {version[:20]!r}; torch writes a number from 1 to 10"
        )
    order = (
        archive.read(f"{root}/byteorder", 100)
        if f"{root}/byteorder" in archive.members
        else b"little"
    )
    if order not in (b"little", b"big"):
        raise FormatError(path, f"its `byteorder` record is {order[:20]!r}, not `little` or `big`")
    return order == b"big"


class StorageIds:
    """What turns the pickle's persistent ids into storages: ('storage', class, key, location,
    number of elements).
    """

    __slots__ = ("_by_key", "_by_name", "_places")

    def __init__(self) -> None:
        self._by_name: dict[tuple[Global, str, int], StorageRef] = {}
        self._by_key: dict[str, StorageRef] = {}
        self._places: set[str] = set()

    def find(self, identity: object) -> StorageRef:
        """The storage of an id: the same object for the same id. Raises PickleFault."""
        if type(identity) is not tuple or len(identity) != 5 or identity[0] != "storage":
            raise PickleFault("refers to something outside that is not a storage")
        _, kind, key, place, count = identity
        if type(key) is not str or not _is_number(key):
            raise PickleFault("names a storage as torch.save never does")
        self._check_place(place)
        if type(kind) is not Global or type(count) is not int:
            # This refuses them: their hash could cost anything.
            return make_storage(kind, key, count)
        found = self._by_name.get((kind, key, count))
        return self._add(kind, key, count) if found is None else found

    def _check_place(self, place: object) -> None:
        if type(place) is not str or place not in self._places:
            check_location(place)
            self._places.add(str(place))

    def _add(self, kind: Global, key: str, count: int) -> StorageRef:
        found = self._by_name[kind, key, count] = make_storage(kind, key, count)
        first = self._by_key.setdefault(key, found)
        if first is not found and not is_same_storage(first, found):
            raise PickleFault(f"has two different storages of the key {key}")
        return found


def _is_number(key: str) -> bool:
    return key.isascii() and key.isdigit() and len(key) < 20


class Storages:
    """The storages of one archive. Raises FormatError for one that is missing, or of another size
    than the pickle says.
    """

    def __init__(self, archive: Archive, root: str) -> None:
        self.archive, self.folder = archive, f"{root}/data/"
        self.found: dict[str, Storage] = {}

    def size_of(self, storage: StorageRef) -> int:
        """Its bytes."""
        member = self.archive.members.get(self.folder + storage.key)
        if member is None:
            raise FormatError(
                self.archive.file.path, f"the storage `data/{storage.key}` is missing", AGAIN
            )
        if member.size != storage.count * storage.itemsize:
            expected = storage.count * storage.itemsize
            fact = (
                f"the storage `data/{storage.key}` has {member.size} bytes; "
                f"the pickle says {expected}"
            )
            raise FormatError(self.archive.file.path, fact)
        return member.size

    def locate(self, storage: StorageRef) -> Storage:
        """Where it lies; the same object each time."""
        self.size_of(storage)
        if storage.key not in self.found:
            self.found[storage.key] = self.archive.placement(
                self.archive.members[self.folder + storage.key]
            )
        return self.found[storage.key]
