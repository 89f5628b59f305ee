"""torch.save's tar archives of 0.1.9 and before: the members `pickle`, `tensors` and `storages`,
read where they lie.

`storages` is a count, then for each a pickle of (key, location, class), 8 bytes of element count
and the bytes; then a pickle of views (key, key of the whole, first element, elements). `tensors` is
a count, then for each a pickle of (key, storage key, class), 4 bytes of dimensions, 4 of nothing,
sizes, strides and offset as 8 bytes each. `pickle` refers to tensors by their keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from struct import unpack

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.archives.tar_directory import read_members
from ckpt_tool.formats.checkpoint import Contents
from ckpt_tool.formats.files import AGAIN, SourceFile, Truncated
from ckpt_tool.formats.limits import DIMENSIONS, TAR_RECORDS
from ckpt_tool.formats.pickle.storages import check_location, make_storage
from ckpt_tool.formats.pickle.values import PickleFault, StorageRef, TensorRef
from ckpt_tool.formats.placements.byte_ranges import Extent, Storage
from ckpt_tool.formats.torch_files.contents import PickledFile, pickled_contents
from ckpt_tool.formats.torch_files.legacy_stream import Stream

_MEMBERS = ("storages", "tensors", "pickle")


def read(file: SourceFile, wanted: str) -> Contents:
    """Raises FormatError for a tar archive of anything else, for links, and for what is cut."""
    members = read_members(file)
    missing = [name for name in _MEMBERS if name not in members]
    if missing:
        raise FormatError(
            file.path,
            f"is a tar archive without `{missing[0]}`, so not one of torch's",
            "unpack it first",
        )
    described = [Stream(file, *members[name]) for name in ("storages", "tensors")]
    storages, extents = _read_storages(file, described[0])
    tensors = _read_tensors(file, described[1], storages)
    asked = described[0].asked.and_also(described[1].asked)
    stream = Stream(file, *members["pickle"])

    def find(identity: object) -> object:
        if type(identity) is tuple and identity:
            return identity[0]  # a class, with the text of its source
        key = (
            int(identity)
            if isinstance(identity, str) and identity.isdigit() and len(identity) < 20
            else identity
        )
        if type(key) is not int or not (key in tensors or key in storages):
            raise PickleFault("refers to a tensor that the archive does not have")
        return tensors[key] if key in tensors else storages[key]

    def locate(storage: StorageRef) -> Storage:
        return extents[storage.key]

    value = stream.load("pickle", find)
    pickled = PickledFile(value, file.path, locate, asked.and_also(stream.asked))
    return pickled_contents(pickled, wanted)


def _read_storages(
    file: SourceFile, stream: Stream
) -> tuple[dict[int, StorageRef], dict[str, Extent]]:
    storages: dict[int, StorageRef] = {}
    extents: dict[str, Extent] = {}
    for _ in range(_count(file, stream)):
        fields = stream.load("a storage")
        if (
            type(fields) is not tuple
            or len(fields) != 3
            or type(fields[0]) is not int
            or fields[0] in storages
        ):
            raise FormatError(file.path, "describes a storage as torch.save never does")
        key, place, kind = fields
        (count,) = unpack("<q", _take(file, stream, 8))
        storage = _storage(file, kind, str(key), count, place)
        extents[storage.key] = Extent(file, stream.pos, count * storage.itemsize)
        stream.pos += extents[storage.key].length
        if stream.pos > stream.end:
            raise Truncated(file.path, f"is cut off inside the storage {key}", AGAIN)
        storages[key] = storage
    for key, storage, extent in _views(file, stream.load("the views"), storages, extents):
        storages[key] = storage
        extents[storage.key] = extent
    return storages, extents


def _views(
    file: SourceFile,
    views: object,
    storages: Mapping[int, StorageRef],
    extents: Mapping[str, Extent],
) -> Iterator[tuple[int, StorageRef, Extent]]:
    """Storages that are parts of others, by their keys; one may be a part of one that came before.

    Raises FormatError for a view that is none, or outside of its storage.
    """
    for view in views if isinstance(views, list) else []:
        if not _are_integers(view, 4):
            raise FormatError(file.path, "describes a view of a storage as torch.save never does")
        key, root, start, count = view
        whole = storages.get(root)
        if whole is None or key in storages or not _is_inside(start, count, whole):
            raise FormatError(file.path, "has a view outside of its storage")
        size = whole.itemsize
        yield (
            key,
            StorageRef(str(key), whole.type_name, whole.dtype, size, count),
            Extent(file, extents[whole.key].offset + start * size, count * size),
        )


def _are_integers(value: object, count: int) -> bool:
    """Whether this is a tuple of so many integers."""
    if type(value) is not tuple or len(value) != count:
        return False
    return all(type(number) is int for number in value)


def _is_inside(start: int, count: int, whole: StorageRef) -> bool:
    return start >= 0 and count >= 0 and start + count <= whole.count


def _read_tensors(
    file: SourceFile, stream: Stream, storages: dict[int, StorageRef]
) -> dict[int, TensorRef]:
    tensors: dict[int, TensorRef] = {}
    for _ in range(_count(file, stream)):
        fields = stream.load("a tensor")
        if (
            type(fields) is not tuple
            or len(fields) != 3
            or type(fields[0]) is not int
            or fields[0] in tensors
        ):
            raise FormatError(file.path, "describes a tensor as torch.save never does")
        key, owner, _ = fields
        storage = storages.get(owner) if type(owner) is int else None
        if storage is None or storage.dtype is None:
            raise FormatError(file.path, "has a tensor in a storage that the archive does not have")
        (rank,) = unpack("<i", _take(file, stream, 8)[:4])
        if not 0 <= rank <= DIMENSIONS:
            raise FormatError(
                file.path, f"has a tensor of {rank} dimensions; at most {DIMENSIONS} are read"
            )
        numbers = unpack(f"<{2 * rank + 1}q", _take(file, stream, 16 * rank + 8))
        tensors[key] = TensorRef(
            storage, storage.dtype, numbers[:rank], numbers[rank:-1], numbers[-1]
        )
    return tensors


def _count(file: SourceFile, stream: Stream) -> int:
    count = stream.load("a count")
    if type(count) is not int or not 0 <= count <= stream.end - stream.pos:
        raise FormatError(file.path, "announces more than it can hold")
    if count > TAR_RECORDS:
        raise FormatError(
            file.path, f"has {count:,} storages or tensors; at most {TAR_RECORDS:,} are read"
        )
    return count


def _take(file: SourceFile, stream: Stream, size: int) -> bytes:
    if stream.pos + size > stream.end:
        raise Truncated(file.path, "is cut off", AGAIN)
    stream.pos += size
    return file.read(stream.pos - size, size)


def _storage(file: SourceFile, kind: object, key: str, count: int, place: object) -> StorageRef:
    try:
        check_location(place)
        return make_storage(kind, key, count)
    except PickleFault as fault:
        raise FormatError(file.path, str(fault)) from None
