"""A folder that a training library writes: the weights under their new names, the optimizer that
follows, and every other file as it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ckpt_tool.engine.copying import copy_extent, write_at
from ckpt_tool.engine.durable.folder import atomic_folder, new_file
from ckpt_tool.engine.filling import Job, OutputFile
from ckpt_tool.engine.folders.shards import check_folder, index_of, parts_of, write_files
from ckpt_tool.engine.inputs import mode_for
from ckpt_tool.engine.run import Written, check_unchanged, lay_out_file, tensor_files
from ckpt_tool.engine.sources import moved_tensors
from ckpt_tool.engine.whole.write import LaidOut, Whole, lay_out_whole
from ckpt_tool.errors import FormatError, OutputError
from ckpt_tool.formats import Extent
from ckpt_tool.formats.files import SourceFile, sha256_of
from ckpt_tool.tensors import Catalog

if TYPE_CHECKING:
    from ckpt_tool.formats import Checkpoint

_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}\.safetensors", re.DOTALL)


@dataclass(frozen=True, slots=True)
class WholeFolder:
    """A folder with what changes in it: the weights of `source`, and the files of `changed`; those
    of `copied` are copied.
    """

    source: Checkpoint
    copied: Mapping[str, SourceFile]
    changed: Mapping[str, Whole]


def write_whole_folder(job: Job, whole: WholeFolder, folder: str) -> Written:
    """Writes the folder, which gets all of its files at once, or stays as it is.

    Weights of one file stay one, and shards are at most as large as the source's. Raises
    OutputError.
    """
    plan = _FolderPlan.of(job, whole, folder)
    check_folder(folder, replace(job, others=plan.inputs), plan.own)
    with atomic_folder(folder, plan.size, plan.own, job.replace) as stage:
        sums = plan.fill(job, stage)
        _check_unchanged(job, whole)
    return Written(
        folder,
        plan.kind,
        len(job.plan.outputs),
        plan.size,
        (),
        sums,
        tuple(plan.names),
        is_whole=True,
    )


@dataclass(frozen=True, slots=True)
class _FolderPlan:
    """What lies where in the folder's new files."""

    whole: WholeFolder
    weights: Mapping[str, OutputFile]
    optimizers: Mapping[str, LaidOut]
    index: Mapping[str, bytes]
    replaced: Sequence[str]
    inputs: tuple[str, ...]

    @staticmethod
    def of(job: Job, whole: WholeFolder, folder: str) -> _FolderPlan:
        """Raises OutputError."""
        names = _weights_files(whole.source)
        weights = _layouts(job, whole, folder, names)
        infos = {name: [one.info for one in file.members] for name, file in weights.items()}
        index = {f"{_stem(names)}.safetensors.index.json": index_of(infos)} if _stem(names) else {}
        laid_out = {name: lay_out_whole(job, one, name) for name, one in whole.changed.items()}
        read = [*whole.copied.values(), *(one.source.files[0] for one in whole.changed.values())]
        inputs = (*job.others, *(file.path for file in read))
        return _FolderPlan(whole, weights, laid_out, index, names, inputs)

    @property
    def kind(self) -> str:
        """The format of the weights."""
        return _kind(self.replaced)

    @property
    def names(self) -> list[str]:
        """Those of all new files."""
        return sorted({*self.weights, *self.optimizers, *self.index, *self.whole.copied})

    @property
    def own(self) -> re.Pattern[str]:
        """The names of files that these take the place of."""
        return re.compile("|".join(map(re.escape, sorted({*self.names, *self.replaced}))))

    @property
    def size(self) -> int:
        """Bytes of all new files."""
        layouts = [*self.weights.values(), *(one.file for one in self.optimizers.values())]
        return (
            sum(file.layout.size for file in layouts)
            + sum(map(len, self.index.values()))
            + sum(file.size for file in self.whole.copied.values())
        )

    def fill(self, job: Job, stage: str) -> dict[str, str]:
        """Makes the files; gives the SHA-256 of those that are not copies, where it is asked
        for.
        """
        origins = moved_tensors(job.plan, job.source, job.target)
        sums = write_files(job, stage, self.weights, origins)
        for name, content in self.index.items():
            with new_file(os.path.join(stage, name), len(content), _mode(job)) as fd:
                write_at(fd, content, 0)
        for name, one in self.optimizers.items():
            mode, size = mode_for([self.whole.changed[name].source.files[0].path]), one.size
            with new_file(os.path.join(stage, name), size, mode) as fd:
                one.fill(job, fd)
                sums |= {name: sha256_of(fd, size, name)} if job.checksum else {}
        for name, file in self.whole.copied.items():
            _copy(file, os.path.join(stage, name))
        return sums


def _mode(job: Job) -> int:
    return mode_for(tensor_files(job))


def _weights_files(source: Checkpoint) -> list[str]:
    """The names of the files that the weights are in. Raises OutputError for several torch
    files.
    """
    names = [os.path.basename(file.path) for file in source.files]
    names = [name for name in names if not name.endswith(".json")]
    if len(names) > 1 and not all(_SHARD.fullmatch(name) for name in names):
        raise OutputError(
            source.path,
            "has its weights in several files that are not safetensors shards",
            "write the weights alone: end the output's name in .safetensors",
        )
    return names


def _kind(names: Sequence[str]) -> str:
    return "safetensors" if names[0].endswith(".safetensors") else "torch"


def _layouts(job: Job, whole: WholeFolder, folder: str, names: list[str]) -> dict[str, OutputFile]:
    """The files of the weights."""
    origins = moved_tensors(job.plan, job.source, job.target)
    if len(names) == 1 and not _SHARD.fullmatch(names[0]):
        path = os.path.join(folder, names[0])
        return {names[0]: lay_out_file(job, path, _kind(names), job.plan.outputs, origins)}
    parts = list(parts_of(job.plan.outputs, max(file.size for file in whole.source.files)))
    stem = _stem(names)
    made = {}
    for number, part in enumerate(parts, 1):
        name = f"{stem}-{number:05d}-of-{len(parts):05d}.safetensors"
        path = os.path.join(folder, name)
        made[name] = lay_out_file(job, path, "safetensors", Catalog(part), origins)
    return made


def _stem(names: Sequence[str]) -> str:
    """What the names of shards begin with; nothing where there are none."""
    found = _SHARD.fullmatch(names[0])
    return found[1] if found else ""


def _copy(file: SourceFile, path: str) -> None:
    with new_file(path, file.size, mode_for([file.path])) as fd:
        if file.size:
            copy_extent(Extent(file, 0, file.size), fd, 0)


def _check_unchanged(job: Job, whole: WholeFolder) -> None:
    """Raises FormatError where any file of the source is no longer what was opened."""
    check_unchanged(job)
    for file in (*whole.copied.values(), *(one.source.files[0] for one in whole.changed.values())):
        if file.has_changed():
            raise FormatError(
                file.path, "changed while it was read", "nothing was written; try again"
            )
