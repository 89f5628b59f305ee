"""torch.save's stream of 0.1.10 to 1.5, which `_use_new_zipfile_serialization=False` still writes.

Five pickles (magic number, protocol 1001, system, the object, the sorted storage keys), then each
storage: its number of elements as 8 bytes, and its bytes. Always little-endian, whatever the system
pickle says.
"""

from __future__ import annotations

from dataclasses import replace

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.checkpoint import Contents
from ckpt_tool.formats.files import AGAIN, SourceFile, truncated
from ckpt_tool.formats.limits import PICKLE_BYTES
from ckpt_tool.formats.pickle.machine import Persistent, PickleMachine, refuse_persistent
from ckpt_tool.formats.pickle.storages import check_location, is_same_storage, make_storage
from ckpt_tool.formats.pickle.values import Asked, PickleFault, StorageRef
from ckpt_tool.formats.placements.byte_ranges import Extent, Storage
from ckpt_tool.formats.torch_files.contents import (
    PickledFile,
    ReadPickle,
    contents_of,
    describe_file,
)
from ckpt_tool.formats.torch_files.tensor_layout import Locate, narrow

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


def read(file: SourceFile, wanted: str) -> Contents:
    """Raises FormatError where a storage is missing, cut, or of another size than the
    object says.
    """
    stream = Stream(file)
    if stream.load("the magic number") != MAGIC or stream.load("the protocol") != PROTOCOL:
        raise FormatError(
            file.path, "is a pickle of torch's legacy kind, but of an unknown protocol"
        )
    stream.load("the system information")
    storages, start = LegacyStorages(), stream.pos
    value = stream.load("the object", storages.find)
    data = file.read(start, stream.pos - start)
    keys = stream.load("the storage keys")
    if (
        not isinstance(keys, list)
        or not all(isinstance(key, str) for key in keys)
        or len(set(keys)) < len(keys)
    ):
        raise FormatError(file.path, "its list of storages is not a list of different keys", AGAIN)
    extents, end = _find_storages(file, stream.pos, keys, storages.roots)
    notes = (f"{file.size - end} bytes follow the last storage",) if end < file.size else ()
    pickled = PickledFile(value, file.path, _locator(file, extents), stream.asked, notes)
    described = describe_file(pickled, wanted)
    kept = ReadPickle(data, value, stream.asked, wanted, described, extents)
    return replace(contents_of(pickled, described), kept=kept)


class Stream:
    """Pickles one after the other in a file; `asked` gathers what any of them asks for."""

    def __init__(self, file: SourceFile, pos: int = 0, end: int | None = None) -> None:
        self.file, self.pos, self.end = file, pos, file.size if end is None else end
        self.asked = Asked()

    def load(self, name: str, persistent: Persistent = refuse_persistent) -> object:
        """The next one. Its length is known only when it has been read: it is tried on longer and
        longer windows, first on what is at hand.
        """
        window = min(1 << 16, self.file.at_hand(self.pos)) or 1 << 16
        while True:
            window = min(window, self.end - self.pos, PICKLE_BYTES)
            machine = PickleMachine(self.file.read(self.pos, window), persistent=persistent)
            try:
                value = machine.load(self.file.path, name)
            except FormatError:
                if window == min(self.end - self.pos, PICKLE_BYTES):
                    raise
                window *= 16
                continue
            self.pos += machine.pos
            self.asked = self.asked.and_also(machine.asked)
            return value


class LegacyStorages:
    """What persistent ids stand for: ('storage', class, key, location, elements[, view]); views are
    of torch 0.3 and before.
    """

    def __init__(self) -> None:
        self.roots: dict[str, StorageRef] = {}

    def find(self, identity: object) -> object:
        """The storage, or the class of a module, that an id stands for. Raises PickleFault."""
        if type(identity) is not tuple or len(identity) not in (4, 5, 6):
            raise PickleFault("refers to something outside that is not a storage")
        if identity[0] == "module" and len(identity) == 4:
            # With it come the file name and the text of the class's source, which nothing needs.
            return identity[1]
        return self._storage(*identity) if len(identity) > 4 else self._storage(*identity, None)

    def _storage(
        self, word: object, kind: object, key: object, place: object, count: object, *view: object
    ) -> StorageRef:
        if word != "storage" or type(key) is not str or len(key) > 100:
            raise PickleFault("names a storage as torch.save never does")
        check_location(place)
        found = make_storage(kind, key, count)
        root = self.roots.setdefault(key, found)
        if not is_same_storage(root, found):
            raise PickleFault(f"has two different storages of the key {key}")
        if not view or view[0] is None:
            return root if root.type_name == found.type_name else found
        return _view(kind, root, view[0])


def _view(kind: object, root: StorageRef, view: object) -> StorageRef:
    """A storage that is elements `start` to `start + count` of another. The view's key is of no
    use.
    """
    if type(view) is not tuple or len(view) != 3:
        raise PickleFault("has a view of something that is not a storage")
    _, start, count = view
    if (
        type(start) is not int
        or type(count) is not int
        or start < 0
        or count < 0
        or start + count > root.count
    ):
        raise PickleFault("has a view outside of its storage")
    return make_storage(kind, root.key, count, start)


def _find_storages(
    file: SourceFile, pos: int, keys: list[str], roots: dict[str, StorageRef]
) -> tuple[dict[str, Extent], int]:
    """The bytes of each storage, and where the last ends; where one begins is known only after the
    count before it.
    """
    extents: dict[str, Extent] = {}
    stray = next((key for key in keys if key not in roots), None)
    if stray is not None:
        raise FormatError(file.path, f"has the storage {stray[:40]}, which the object does not use")
    needed = pos + sum(8 + roots[key].count * roots[key].itemsize for key in keys)
    if needed > file.size:
        raise truncated(file.path, needed, file.size)
    for key in keys:
        count = _count_at(file, pos, roots[key].count)
        if count != roots[key].count:
            raise FormatError(
                file.path,
                f"the storage {key} has {count} elements; the pickle says {roots[key].count}",
            )
        extents[key] = Extent(file, pos + 8, count * roots[key].itemsize)
        pos += 8 + extents[key].length
    return extents, pos


def _count_at(file: SourceFile, pos: int, expected: int) -> int:
    """The number of elements that stands before a storage; the expected one where reading it costs
    a request: it is looked at before the bytes are.
    """
    return int.from_bytes(file.read(pos, 8), "little", signed=True) if file.is_here else expected


def _locator(file: SourceFile, extents: dict[str, Extent]) -> Locate:
    def locate(storage: StorageRef) -> Storage:
        whole = extents.get(storage.key)
        if whole is None:
            raise FormatError(file.path, f"the storage {storage.key} is missing", AGAIN)
        start = storage.start * storage.itemsize
        return narrow(whole, start, start + storage.count * storage.itemsize)

    return locate
