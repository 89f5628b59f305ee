"""The archive of a whole checkpoint: the storages of the source that it still names, and its
layout.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

from ckpt_tool.engine.layouts.torch_zip import ArchiveLayout
from ckpt_tool.errors import FormatError, OutputError
from ckpt_tool.formats import Checkpoint
from ckpt_tool.formats.archives.zip_directory import Archive, read_directory
from ckpt_tool.formats.checkpoint import Contents
from ckpt_tool.formats.files import AGAIN, SourceFile
from ckpt_tool.formats.placements.assembled import Placement
from ckpt_tool.formats.placements.byte_ranges import Deflated, Inflated, Storage
from ckpt_tool.formats.placements.views import View
from ckpt_tool.formats.torch_files.contents import ReadPickle
from ckpt_tool.frozen import frozen
from ckpt_tool.tensors import Catalog, DType, TensorInfo

_CONTROL = frozenset((
    "data.pkl", "version", "byteorder", ".format_version", ".storage_alignment",
    ".data/serialization_id",
))  # fmt: skip
"""Members that say how an archive is written, or which one it is."""


class WholeLayout(ArchiveLayout):
    """An archive of a pickle and the storages that it names, each under the key that it has
    there.
    """

    def __init__(self, pickled: bytes, stored: Sequence[TensorInfo], name: str) -> None:
        root = os.path.basename(name).rsplit(".", 1)[0] or "archive"
        names = [f"data/{info.key}".encode() for info in stored]
        super().__init__(root.encode("utf-8", "replace"), pickled, stored, names)


def root_of(archive: Archive) -> str:
    """The folder that all members are in."""
    return next(iter(archive.members)).split("/")[0]


def check_archive(archive: Archive, output: str) -> None:
    """Raises OutputError for an archive that has more than a new one would, or other bytes."""
    root, path = root_of(archive), archive.file.path
    order = f"{root}/byteorder"
    if order in archive.members and archive.read(order, 100) != b"little":
        raise OutputError(
            output,
            f"would be of two byte orders: `{path}` is big-endian",
            "write the weights alone, --only-weights",
        )
    for name in archive.members:
        rest = name.removeprefix(f"{root}/")
        if rest not in _CONTROL and not rest.startswith("data/") and not rest.endswith("/"):
            raise OutputError(
                output,
                f"would lack `{name[:100]}`, which `{path}` has and torch never writes",
                "write the weights alone, --only-weights",
            )


@frozen
class SourceStorages:
    """The storages of a file by their keys. `highest` is the highest number that one has, -1 where
    there is none.
    """

    file: SourceFile
    highest: int
    locate: Callable[[str], Storage | None]

    def as_tensors(self, keys: Iterable[str]) -> Checkpoint:
        """Some of them as tensors of bytes. Raises FormatError for one that is missing."""
        placements: dict[str, Placement] = {}
        infos = []
        for key in keys:
            found = self.locate(key)
            if found is None or isinstance(found, Inflated):
                fact = f"the storage `data/{key[:40]}` is missing"
                raise FormatError(self.file.path, fact, AGAIN)
            placements[key] = View(found, 0, (1,)) if isinstance(found, Deflated) else found
            infos.append(TensorInfo(key, DType.U8, (found.length,)))
        contents = Contents(Catalog(infos), placements)
        return Checkpoint(self.file.path, "torch zip", contents, (self.file,))


def source_storages(file: SourceFile, read: ReadPickle, output: str) -> SourceStorages:
    """The storages of a file whose pickle was read. Raises OutputError for an archive that has more
    than a new one would, or other bytes.
    """
    if read.storages is not None:
        return SourceStorages(file, _highest(read.storages), read.storages.get)
    archive = read_directory(file)
    check_archive(archive, output)
    prefix = f"{root_of(archive)}/data/"
    keys = [name.removeprefix(prefix) for name in archive.members if name.startswith(prefix)]

    def locate(key: str) -> Storage | None:
        member = archive.members.get(f"{prefix}{key}")
        return None if member is None else archive.placement(archive.located(member))

    return SourceStorages(file, _highest(keys), locate)


def _highest(keys: Iterable[str]) -> int:
    return max((int(key) for key in keys if key.isdecimal()), default=-1)
