"""A folder of torch.distributed.checkpoint as one checkpoint. Opening it reads `.metadata`; each
tensor's parts are looked into when its bytes are asked for, or at once where they are few.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.checkpoint import Checkpoint, Contents, Extra
from ckpt_tool.formats.distributed.dcp.metadata import (
    ByteRange,
    Metadata,
    is_readable,
    read_metadata,
)
from ckpt_tool.formats.distributed.dcp.nesting import keys_of, nest
from ckpt_tool.formats.distributed.dcp.objects import Objects
from ckpt_tool.formats.distributed.dcp.parts import Files, check_parts, locate
from ckpt_tool.formats.distributed.rank_files import check_stays
from ckpt_tool.formats.files import AGAIN, SourceFile
from ckpt_tool.formats.folder import Folder, names_in
from ckpt_tool.formats.limits import DCP_CHECKED_ON_OPEN, DCP_METADATA_BYTES, OPEN_SHARDS
from ckpt_tool.formats.partial_models import layout_of
from ckpt_tool.formats.pickle.values import StorageRef
from ckpt_tool.formats.placements.assembled import Placement
from ckpt_tool.formats.placements.byte_ranges import Inflated, Storage
from ckpt_tool.formats.sharded.parts import DATA_SUFFIX, METADATA
from ckpt_tool.formats.torch_files.contents import PickledFile, Placements, pickled_contents
from ckpt_tool.formats.torch_files.tensor_layout import Measured
from ckpt_tool.tensors import counted

_DRIVE = re.compile(r"[A-Za-z]:")


def open_dcp(folder: Folder, path: str, wanted: str) -> Checkpoint:
    """The checkpoint in a folder; `wanted` names one of the state dicts in it. Raises FormatError
    for parts that don't fill their tensors, and for files that are missing, cut or elsewhere.
    """
    opened: list[SourceFile] = []
    try:
        metadata = _read_metadata(folder, opened)
        for tensor in metadata.tensors:
            check_parts(tensor, opened[0].path)
        files = _open_files(folder, metadata, opened)
        _check_places(metadata, files)
        contents = _contents(metadata, files, folder, wanted)
    except BaseException:
        for file in opened:
            file.close()
        raise
    if sentence := layout_of(contents, folder, METADATA):
        contents = replace(contents, layout=sentence, is_whole=False)
    return Checkpoint(path, "torch dcp", contents, tuple(opened))


def _read_metadata(folder: Folder, opened: list[SourceFile]) -> Metadata:
    file = folder.open(METADATA)
    opened.append(file)
    if not file.size:
        raise FormatError(file.path, "is empty (zero bytes)", AGAIN)
    if file.size > DCP_METADATA_BYTES:
        fact = f"has {file.size:,} bytes; at most {DCP_METADATA_BYTES:,} are read"
        raise FormatError(file.path, fact)
    return read_metadata(file.read(0, file.size), file.path)


def _open_files(folder: Folder, metadata: Metadata, opened: list[SourceFile]) -> Files:
    """The data files by their names in `.metadata`."""
    path = opened[0].path
    names = list(dict.fromkeys(place.name for _, place in _places(metadata)))
    for name in names:
        if not _is_plain_name(name):
            fact = f"says that data are in `{name[:200]}`, which is not a plain file name"
            raise FormatError(path, fact, "the files of a checkpoint are beside its `.metadata`")
    missing = [name for name in names if not folder.has(name)]
    if missing:
        some = ", ".join(name[:200] for name in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise FormatError(
            path,
            f"of its {counted(len(names), 'data file')}, {len(missing)} can't be found: "
            f"{some}{more}",
            "copy the whole folder",
        )
    files = {}
    for name in names:
        check_stays(folder, name)
        files[name] = folder.open(name)
        opened.append(files[name])
        if len(opened) > OPEN_SHARDS:
            files[name].release()
    return files


def _is_plain_name(name: str) -> bool:
    """Whether a name can't lead out of the folder on any system."""
    if name in ("", ".", "..", METADATA) or _DRIVE.match(name):
        return False
    return not any(mark in name for mark in "/\\\0")


def _places(metadata: Metadata) -> Iterator[tuple[str, ByteRange]]:
    """Every item's bytes, with its key."""
    for tensor in metadata.tensors:
        for place in tensor.ranges:
            yield tensor.key, place
    yield from metadata.objects.items()


def _check_places(metadata: Metadata, files: Files) -> None:
    """Raises FormatError for items that lie outside of their file, or over each other in it."""
    per_file: dict[str, list[tuple[int, int, str]]] = {}
    for key, place in _places(metadata):
        end, size = place.offset + place.length, files[place.name].size
        if end > size:
            raise FormatError(
                files[place.name].path,
                f"is cut off: its bytes {place.offset} to {end} are asked for, and it has {size}",
                AGAIN,
                f"`{key[:200]}`",
            )
        per_file.setdefault(place.name, []).append((place.offset, end, key))
    for name, spans in per_file.items():
        spans.sort()
        for (start, end, key), (after, last, other) in pairwise(spans):
            if after < end:
                raise FormatError(
                    files[name].path,
                    f"`{key[:200]}` and `{other[:200]}` lie over each other, "
                    f"at bytes {start} to {end} and {after} to {last}",
                )


def _contents(metadata: Metadata, files: Files, folder: Folder, wanted: str) -> Contents:
    path = folder.path
    objects = Objects(metadata.objects, files, folder.is_here)
    root = nest(metadata, objects.describe, path)
    whole = PickledFile(
        root, path, _no_bytes, metadata.asked.and_also(objects.asked), size_of=_declared_size
    )
    contents = pickled_contents(whole, wanted)
    place = _Located(metadata, files, path)
    inside, beside = contents.placements, contents.beside
    assert isinstance(inside, Placements)
    assert isinstance(beside, Placements)
    contents = replace(
        contents,
        placements=inside.elsewhere(place),
        beside=beside.elsewhere(place),
        extras=(*contents.extras, *_strays(folder, files)),
    )
    if folder.is_here and metadata.parts <= DCP_CHECKED_ON_OPEN:
        place.check_all()
    return contents


def _strays(folder: Folder, files: Files) -> Iterator[Extra]:
    """What is said of data files that no `.metadata` describes: those of an earlier checkpoint in
    the same folder, say.
    """
    strays = sorted(
        name for name in names_in(folder) if name.endswith(DATA_SUFFIX) and name not in files
    )
    if strays:
        some = ", ".join(strays[:3]) + (", …" if len(strays) > 3 else "")
        fact = f"{counted(len(strays), 'data file')} that `.metadata` does not name: {some}"
        yield Extra("", "note", fact)


def _declared_size(storage: StorageRef) -> int:
    return storage.count * storage.itemsize


def _no_bytes(storage: StorageRef) -> Storage:
    """Placements are made by `_Located`."""
    return Inflated(b"")


class _Located:
    """Where tensors lie, each looked for once."""

    def __init__(self, metadata: Metadata, files: Files, path: str) -> None:
        self._tensors = keys_of(metadata)
        self._files, self._path = files, path
        self._found: dict[str, Placement] = {}

    def __call__(self, measured: Measured) -> Placement:
        assert measured.tensor is not None
        return self._of(measured.tensor.storage.key)

    def _of(self, key: str) -> Placement:
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = locate(self._tensors[key], self._files, self._path)
        return found

    def check_all(self) -> None:
        """Looks into all parts. Raises FormatError for one that is not as it should be."""
        for key, tensor in self._tensors.items():
            if is_readable(tensor):
                self._of(key)
