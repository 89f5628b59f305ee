"""An output of several files, as the hub has them: `model-00001-of-00003.safetensors`, …, and an
index.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack

from ckpt_tool.engine.copying import write_at
from ckpt_tool.engine.durable.folder import new_file
from ckpt_tool.engine.filling import Computes, Job, OutputFile, fill
from ckpt_tool.engine.inputs import mode_for
from ckpt_tool.engine.run import Written, check_unchanged, lay_out_file, refuse_inputs, tensor_files
from ckpt_tool.engine.sources import ByteSource, moved_tensors
from ckpt_tool.engine.team import output_folder
from ckpt_tool.errors import OutputError
from ckpt_tool.formats.digests import sample_of
from ckpt_tool.formats.files import sha256_of
from ckpt_tool.tensors import Catalog, TensorInfo

INDEX = "model.safetensors.index.json"
OWN = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")
"""The names of the files that are a checkpoint's, and that one in their place replaces."""
_OF_CHECKPOINTS = (".safetensors", ".index.json", ".distcp", ".metadata")
"""How names end that make a folder a checkpoint."""


def write_sharded(job: Job, folder: str, most: int) -> Written:
    """Writes what the plan says to safetensors files of at most `most` bytes of tensors each, in a
    folder.

    The folder gets all of them at once, or stays as it is; its other files stay. A tensor that is
    larger than `most` has a file of its own. Raises OutputError, and what `write_checkpoint`
    raises.
    """
    parts = list(parts_of(job.plan.outputs, most))
    names = [
        f"model-{number:05d}-of-{len(parts):05d}.safetensors" for number in range(1, len(parts) + 1)
    ]
    check_folder(folder, job, OWN)
    origins = moved_tensors(job.plan, job.source, job.target)
    files = {
        name: lay_out_file(job, os.path.join(folder, name), "safetensors", Catalog(part), origins)
        for name, part in zip(names, parts, strict=True)
    }
    index = index_of(dict(zip(names, parts, strict=True)))
    size = sum(file.layout.size for file in files.values())
    with output_of(job, folder, size + len(index), OWN) as stage:
        sums = write_files(job, stage, files, origins)
        write_last(job, os.path.join(stage, INDEX), index)
    ties = tuple(tie for file in files.values() for tie in file.ties)
    return Written(folder, "safetensors", len(job.plan.outputs), size, ties, sums, tuple(names))


def write_files(
    job: Job,
    stage: str,
    files: Mapping[str, OutputFile],
    origins: Mapping[str, ByteSource],
    computes: Computes | None = None,
) -> dict[str, str]:
    """Writes files of these names; gives the SHA-256 of each where it is asked for. `computes` is
    as for `fill`.
    """
    if job.team is None:
        return _write_files(job, stage, files, origins, computes)
    mine = job.team.share({name: file.layout.size for name, file in files.items()})
    sums = _write_files(
        job, stage, {name: file for name, file in files.items() if name in mine}, origins, computes
    )
    check_unchanged(job)
    found = {name: one for each in job.team.exchange(sums) for name, one in each.items()}
    return {name: found[name] for name in files if name in found}


def _write_files(
    job: Job,
    stage: str,
    files: Mapping[str, OutputFile],
    origins: Mapping[str, ByteSource],
    computes: Computes | None,
) -> dict[str, str]:
    mode = mode_for(tensor_files(job))
    with ExitStack() as stack:
        fds = [
            stack.enter_context(new_file(os.path.join(stage, name), file.layout.size, mode))
            for name, file in files.items()
        ]
        fill(job, origins, list(zip(fds, files.values(), strict=True)), computes)
        return (
            {
                name: sha256_of(fd, files[name].layout.size, name)
                for name, fd in zip(files, fds, strict=True)
            }
            if job.checksum
            else {}
        )


def output_of(
    job: Job, folder: str, size: int, own: re.Pattern[str]
) -> AbstractContextManager[str]:
    """The folder that a job's processes fill together."""
    work = _work_of(job) if job.team else ""
    return output_folder(job.team, folder, size, own, job.replace, work)


def write_last(job: Job, path: str, content: bytes) -> None:
    """Writes the file that describes all others, when these are written; one process does. Raises
    FormatError where what was read has changed.
    """
    if job.team is None or job.team.is_leader:
        with new_file(path, len(content), mode_for(tensor_files(job))) as fd:
            write_at(fd, content, 0)
    check_unchanged(job)


def parts_of(outputs: Catalog, most: int) -> Iterator[list[TensorInfo]]:
    """The tensors in their order, as many at a time as have room together."""
    part: list[TensorInfo] = []
    size = 0
    for info in outputs.values():
        if part and size + info.nbytes > most:
            yield part
            part, size = [], 0
        part.append(info)
        size += info.nbytes
    yield part


def check_folder(folder: str, job: Job, own: re.Pattern[str]) -> None:
    """Raises OutputError where the folder can't take a checkpoint whose files have names like
    `own`: it holds one, or an input, or what would be mixed up with it.
    """
    there = _names_in(folder)
    for name in there:
        refuse_inputs(os.path.join(folder, name), job)
    taken = [name for name in there if name.endswith(_OF_CHECKPOINTS)]
    if stray := [name for name in taken if not own.fullmatch(name)]:
        raise OutputError(
            folder,
            f"holds `{stray[0]}`, which would be taken for a part of this checkpoint",
            "give another folder",
        )
    if taken and not job.replace:
        raise OutputError(
            folder, f"holds `{taken[0]}` already", "`--force` replaces the checkpoint in it"
        )


def _names_in(folder: str) -> list[str]:
    """What is in the folder, sorted; nothing where it is still to be made."""
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    except OSError as error:
        fact = f"can't be made: {(error.strerror or str(error)).lower()}"
        raise OutputError(folder, fact) from None


def index_of(parts: Mapping[str, Sequence[TensorInfo]]) -> bytes:
    """The text that says which file each tensor is in."""
    total = sum(info.nbytes for part in parts.values() for info in part)
    weight_map = {info.key: name for name, part in parts.items() for info in part}
    return (
        json.dumps(
            {"metadata": {"total_size": total}, "weight_map": weight_map},
            indent=2,
            ensure_ascii=False,
        ).encode()
        + b"\n"
    )


def _work_of(job: Job) -> str:
    """A digest of what a job reads and does: the plan, and of each input its size, and checksums
    or some of its bytes.
    """
    from hashlib import sha256

    digest = sha256(repr(list(job.plan.outputs.values())).encode())
    for step in job.plan.steps:
        digest.update(repr((step.inputs, step.outputs, step.ops)).encode())
    for side in filter(None, (job.source, job.target)):
        for file in side.files:
            digest.update(repr((os.path.basename(file.path), file.size)).encode())
        for key in side.catalog:
            digest.update(repr((key, *map(sample_of, side.extents(key)))).encode())
    return digest.hexdigest()
