"""Executes a plan into a new checkpoint: the output's layout first, then each tensor's bytes at its place, in source order."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckpt_tool.engine.atomic import atomic_output
from ckpt_tool.engine.copying import checksum, copy_extent, write_at
from ckpt_tool.engine.layout import Labels, Layout, Member
from ckpt_tool.engine.safetensors_layout import SafetensorsLayout
from ckpt_tool.engine.sources import Origin, TensorSource, computed_tensors, moved_tensors
from ckpt_tool.engine.torch_layout import TorchLayout
from ckpt_tool.engine.versions import renamed_versions
from ckpt_tool.errors import FormatError, OutputError
from ckpt_tool.formats.files import sha256_of
from ckpt_tool.tensors import Catalog, TensorInfo

if TYPE_CHECKING:
    from ckpt_tool.mapping.plan import Plan

TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".pkl")
MAKERS: dict[str, tuple[str, type[SafetensorsLayout] | type[TorchLayout]]] = {
    ".safetensors": ("safetensors", SafetensorsLayout),
    **dict.fromkeys(TORCH_SUFFIXES, ("torch", TorchLayout)),
}


@dataclass(frozen=True, slots=True)
class Written:
    """The checkpoint that was written. `ties` are keys that share a tensor, with the key that they share it with.

    `sha256` is that of the file, where it was asked for.
    """

    path: str
    format: str
    tensors: int
    nbytes: int
    ties: tuple[tuple[str, str], ...]
    sha256: str | None = None


def output_format(path: str) -> str:
    """`safetensors` or `torch`, by the output's name. Raises OutputError for a name that tells neither."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in MAKERS:
        raise OutputError(path, "its name does not tell the format to write", f"end it in .safetensors or {' '.join(TORCH_SUFFIXES)}")
    return MAKERS[suffix][0]


def write_checkpoint(
    plan: Plan, source: TensorSource, target: TensorSource | None, path: str, replace: bool = False, checksum: bool = False
) -> Written:
    """Writes what the plan says to `path`, complete or not at all; with `checksum`, what was written is read again for its SHA-256.

    Costs one pass over the bytes that move; the largest group of tensors that an op works on is in memory at a time.
    Raises OutputError, and FormatError for a source that is broken, or changes while it is read.
    """
    output_format(path)
    _refuse_inputs(path, source, target)
    origins = moved_tensors(plan, source, target)
    members = _members(plan.outputs, origins)
    ties = tuple((member.info.key, member.same_as) for member in members if member.same_as)
    kind, maker = MAKERS[os.path.splitext(path)[1].lower()]
    layout = maker(members, _labels(plan, source, target, kind), path)
    with atomic_output(path, layout.size, replace) as fd:
        _fill(fd, layout, plan, source, target, members, origins)
        _check_unchanged(source, target)
        digest = sha256_of(fd, layout.size, path) if checksum else None
    return Written(path, kind, len(members), layout.size, ties, digest)


def _refuse_inputs(path: str, *inputs: TensorSource | None) -> None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return
    for checkpoint in inputs:
        for file in checkpoint.files if checkpoint else ():
            if (status.st_dev, status.st_ino) == file.stamp[:2]:
                raise OutputError(path, "is one of the inputs", "give the output another name")


def _check_unchanged(*inputs: TensorSource | None) -> None:
    for checkpoint in inputs:
        for file in checkpoint.files if checkpoint else ():
            if file.has_changed():
                raise FormatError(file.path, "changed while it was read", "nothing was written; try again")


def _members(outputs: Catalog, origins: Mapping[str, Origin]) -> list[Member]:
    """The output's tensors; one that is, bit for bit and by storage, an earlier one says so."""
    owners: dict[tuple[int, str], list[tuple[str, str]]] = {}
    members = []
    for key, info in outputs.items():
        origin = origins.get(key)
        same_as = None
        if origin is not None:
            first = origin.checkpoint.catalog[origin.key].shares or origin.key
            group = owners.setdefault((id(origin.checkpoint), first), [])
            same_as = next((other for other, theirs in group if _is_same(origin, theirs)), None)
            group.append((key, origin.key))
        members.append(Member(TensorInfo(key, info.dtype, info.shape), same_as))
    return members


def _is_same(origin: Origin, other: str) -> bool:
    return origin.key == other or origin.checkpoint.same_storage(origin.key, other)


def _labels(plan: Plan, source: TensorSource, target: TensorSource | None, kind: str) -> Labels:
    metadata = {**(target.metadata if target else {}), **source.metadata}
    if kind == "safetensors":
        metadata.setdefault("format", "pt")
    return Labels(metadata, renamed_versions(plan, source.versions, target.versions if target else {}))


def _fill(
    fd: int,
    layout: Layout,
    plan: Plan,
    source: TensorSource,
    target: TensorSource | None,
    members: Sequence[Member],
    origins: Mapping[str, Origin],
) -> None:
    stored = {m.info.key for m in members if m.same_as is None or not layout.shares_tensors}
    checksums: dict[str, int] = {}
    for offset, content in layout.head():
        write_at(fd, content, offset)
    moves = [(key, origin) for key, origin in origins.items() if key in stored]
    for key, origin in sorted(moves, key=lambda move: _place(move[1])):
        checksums[key] = _move(fd, layout, key, origin)
    for key, computed in computed_tensors(plan, source, target, stored - origins.keys()):
        write_at(fd, computed, layout.offset(key))
        checksums[key] = checksum(computed) if layout.needs_checksums else 0
    for offset, content in layout.tail(checksums):
        write_at(fd, content, offset)


def _place(origin: Origin) -> tuple[str, int]:
    extent = origin.checkpoint.extent(origin.key)
    return (extent.file.path, extent.offset) if extent else (origin.checkpoint.path, -1)


def _move(fd: int, layout: Layout, key: str, origin: Origin) -> int:
    """Copies one tensor's bytes and gives their CRC-32, where the layout needs it.

    A checksum that the source has is carried over to a container that stores it, and verified where it would be lost.
    """
    extent, offset = origin.checkpoint.extent(origin.key), layout.offset(key)
    if extent and (extent.crc32 is None) is not layout.needs_checksums:
        copy_extent(extent, fd, offset)
        return extent.crc32 or 0
    return _write_chunks(fd, offset, origin.checkpoint.chunks(origin.key), layout.needs_checksums)


def _write_chunks(fd: int, offset: int, chunks: Iterator[bytes], needs_checksum: bool) -> int:
    crc = 0
    for chunk in chunks:
        write_at(fd, chunk, offset)
        offset += len(chunk)
        crc = checksum(chunk, crc) if needs_checksum else 0
    return crc
