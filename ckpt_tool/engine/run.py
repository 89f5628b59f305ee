"""Executes a plan into a new checkpoint: the output's layout first, then each tensor's bytes at its
place, in source order.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from ckpt_tool.engine.durable.file import atomic_output
from ckpt_tool.engine.filling import Job, OutputFile, fill
from ckpt_tool.engine.inputs import mode_for, refuse_input
from ckpt_tool.engine.layouts.dcp_file import DcpFileLayout
from ckpt_tool.engine.layouts.layout import Labels, MakesLayout
from ckpt_tool.engine.layouts.safetensors import SafetensorsLayout
from ckpt_tool.engine.layouts.torch_zip import TorchLayout
from ckpt_tool.engine.sharing import members_of
from ckpt_tool.engine.sources import ByteSource, moved_tensors
from ckpt_tool.engine.versions import renamed_versions
from ckpt_tool.errors import FormatError, OutputError
from ckpt_tool.formats import LeftBehind
from ckpt_tool.formats.files import sha256_of
from ckpt_tool.tensors import Catalog

TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".pkl")
SUFFIXES = {".safetensors": "safetensors", **dict.fromkeys(TORCH_SUFFIXES, "torch")}
MAKERS: dict[str, MakesLayout] = {
    "safetensors": SafetensorsLayout,
    "torch": TorchLayout,
    "dcp": DcpFileLayout,
}
"""How a file of each format is laid out."""


@dataclass(frozen=True, slots=True)
class Written:
    """The checkpoint that was written. `ties` are keys that share a tensor, with the key that they
    share it with.

    `sha256` has the digest of each file by its name, where that was asked for; `shards` are the
    names of the files in the folder `path`, none for a single file. `in_place`: the file
    was there before, and `renamed` of its tensors got new names. `is_whole`: it is a training
    checkpoint, with everything that the source has `beside` the weights, but for what is `left`.
    `notes` say what else is to be known.
    """

    path: str
    format: str
    tensors: int
    nbytes: int
    ties: tuple[tuple[str, str], ...]
    sha256: Mapping[str, str] = field(default_factory=dict)
    shards: tuple[str, ...] = ()
    in_place: bool = False
    is_whole: bool = False
    beside: tuple[LeftBehind, ...] = ()
    left: tuple[LeftBehind, ...] = ()
    notes: tuple[str, ...] = ()
    renamed: int = 0


def output_format(path: str, asked: str | None = None) -> str:
    """`torch` or `safetensors`, as it is asked for, or else by the name's end. Raises
    OutputError.
    """
    named = SUFFIXES.get(os.path.splitext(path)[1].lower())
    if asked and named and asked != named:
        raise OutputError(
            path, f"has the name of a {named} file, and {asked} is asked for", "name it otherwise"
        )
    if not (asked or named):
        raise OutputError(
            path,
            "its name does not say the format to write",
            f"end it in one of {' '.join(SUFFIXES)}, or give --to",
        )
    return asked or named or ""


def write_checkpoint(job: Job, path: str, to: str | None = None) -> Written:
    """Writes what the plan says to `path`, complete or not at all. `to` is the format, where the
    name does not tell it.

    Costs one pass over the bytes that move; the largest group of tensors that an op works on is in
    memory at a time. Raises OutputError, and FormatError for a source that is broken, or changes
    while it is read.
    """
    kind = output_format(path, to)
    refuse_inputs(path, job)
    origins = moved_tensors(job.plan, job.source, job.target)
    file = lay_out_file(job, path, kind, job.plan.outputs, origins)
    with atomic_output(path, file.layout.size, job.replace, mode_for(tensor_files(job))) as fd:
        fill(job, origins, [(fd, file)])
        check_unchanged(job)
        sums = (
            {os.path.basename(path): sha256_of(fd, file.layout.size, path)} if job.checksum else {}
        )
    return Written(path, file.format, len(file.members), file.layout.size, file.ties, sums)


def lay_out_file(
    job: Job, path: str, kind: str, outputs: Catalog, origins: Mapping[str, ByteSource]
) -> OutputFile:
    """Where some of the plan's outputs, or all of them, lie in one file. Raises OutputError for
    what the format can't hold.
    """
    members = list(members_of(job, outputs, origins))
    return OutputFile(kind, members, MAKERS[kind](members, labels(job, kind), path))


def refuse_inputs(path: str, job: Job) -> None:
    """Raises OutputError where the output is one of the files that are read."""
    refuse_input(path, (*tensor_files(job), *job.others))


def tensor_files(job: Job) -> list[str]:
    """The files that the tensors come from."""
    return [
        file.path
        for checkpoint in (job.source, job.target)
        for file in (checkpoint.files if checkpoint else ())
    ]


def check_unchanged(job: Job) -> None:
    """Raises FormatError where what was read is no longer what was opened."""
    for checkpoint in (job.source, job.target):
        for file in checkpoint.files if checkpoint else ():
            if file.has_changed():
                raise FormatError(
                    file.path, "changed while it was read", "nothing was written; try again"
                )


def labels(job: Job, kind: str) -> Labels:
    """What the output says besides its tensors: the target's texts and versions, and over them the
    source's.
    """
    source, target = job.source, job.target
    metadata = {**(target.metadata if target else {}), **source.metadata}
    if kind == "safetensors":
        metadata.setdefault("format", "pt")
    return Labels(
        metadata, renamed_versions(job.plan, source.versions, target.versions if target else {})
    )
