"""numpy's `.npz`: a zip archive of `.npy` members, which savez stores as they are and
savez_compressed deflates.
"""

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.archives.zip_directory import read_directory
from ckpt_tool.formats.checkpoint import Contents, Extra
from ckpt_tool.formats.files import SourceFile
from ckpt_tool.formats.flat_files.npy import read_array
from ckpt_tool.formats.key_order import are_in_module_order
from ckpt_tool.formats.limits import CHECK_ON_OPEN, NPZ_ARRAYS
from ckpt_tool.formats.placements.assembled import Placement
from ckpt_tool.tensors import Catalog, TensorInfo, UnreadableTensor


def read(file: SourceFile, wanted: str) -> Contents:
    """Raises FormatError for members that are no arrays, and for arrays of objects, which are
    pickles.
    """
    archive = read_directory(file)
    if len(archive.members) > NPZ_ARRAYS:
        raise FormatError(
            file.path, f"has {len(archive.members):,} arrays; at most {NPZ_ARRAYS:,} are read"
        )
    if file.size <= CHECK_ON_OPEN:
        archive.check()
    infos: list[TensorInfo] = []
    unreadable: list[UnreadableTensor] = []
    placements: dict[str, Placement] = {}
    extras = [Extra("", "note", note) for note in archive.notes]
    for member in archive.members.values():
        _check_name(file, member.name)
        found = read_array(archive.placement(member), member.name.removesuffix(".npy"), file.path)
        if isinstance(found, Extra):
            extras.append(found)
        elif isinstance(found, UnreadableTensor):
            unreadable.append(found)
            extras.append(Extra(found.key, "tensor", found.text))
        else:
            infos.append(found[0])
            placements[found[0].key] = found[1]
    return Contents(
        Catalog(infos, are_in_module_order([info.key for info in infos]), unreadable),
        placements,
        extras=tuple(extras),
    )


def _check_name(file: SourceFile, name: str) -> None:
    """Raises FormatError for a member that is no array, or whose name is no text."""
    if not name.endswith(".npy"):
        raise FormatError(file.path, f"has the member `{name[:200]}` among its arrays")
    if any("\udc80" <= letter <= "\udcff" for letter in name):
        raise FormatError(file.path, f"the name of its member `{name[:200]}` is not UTF-8")
