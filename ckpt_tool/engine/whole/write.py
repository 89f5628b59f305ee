"""Writes a whole training checkpoint: the source's pickle with the state dicts that a plan makes,
and all else as it is.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ckpt_tool.engine.durable.file import atomic_output
from ckpt_tool.engine.filling import Job, OutputFile, fill
from ckpt_tool.engine.inputs import mode_for
from ckpt_tool.engine.layouts.layout import OutputTensor
from ckpt_tool.engine.layouts.torch_zip import check_type
from ckpt_tool.engine.run import Written, check_unchanged, refuse_inputs, tensor_files
from ckpt_tool.engine.sharing import members_of
from ckpt_tool.engine.sources import ByteSource, computed_tensors, moved_tensors
from ckpt_tool.engine.whole.archive import WholeLayout, source_storages
from ckpt_tool.engine.whole.optimizer import OptimizerPart
from ckpt_tool.engine.whole.outline import Outline, OutlineFault
from ckpt_tool.engine.whole.proof import NotProven, prove
from ckpt_tool.engine.whole.removing import removal
from ckpt_tool.engine.whole.splicing import Edit, Splicer, spliced
from ckpt_tool.engine.whole.state_dict import edit_of
from ckpt_tool.engine.whole.weights import Part
from ckpt_tool.errors import OutputError
from ckpt_tool.formats.files import sha256_of
from ckpt_tool.tensors import TensorInfo

if TYPE_CHECKING:
    from ckpt_tool.formats import Checkpoint
    from ckpt_tool.formats.torch_files.contents import ReadPickle


AnyPart = Part | OptimizerPart
_ALONE = "write the weights alone, --only-weights"


@dataclass(frozen=True, slots=True)
class NewStorage:
    """A storage that the source has not: what lies in it, and where it comes from."""

    part: AnyPart
    info: TensorInfo


@dataclass(frozen=True, slots=True)
class Whole:
    """A training checkpoint with what changes in it: the state dicts and optimizers of `parts`, and
    the entries to which the names of `removed` lead, which go. `read` is the pickle of `source`.
    """

    source: Checkpoint
    read: ReadPickle
    parts: Sequence[AnyPart]
    removed: Sequence[tuple[str, ...]] = ()


@dataclass(frozen=True, slots=True)
class LaidOut:
    """A file that is to be written: where everything lies, and where storages come from that are
    not computed.
    """

    file: OutputFile
    origins: Mapping[str, ByteSource]
    new: Mapping[str, NewStorage]

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.file.layout.size

    def fill(self, job: Job, fd: int) -> None:
        """Fills the open file."""
        fill(job, self.origins, [(fd, self.file)], lambda wanted: _computed(self.new, wanted))


def write_whole(job: Job, whole: Whole, path: str) -> Written:
    """Writes a training checkpoint with what changes in it, complete or not at all.

    Raises OutputError where its pickle is written in a way that can't be kept.
    """
    refuse_inputs(path, job)
    laid_out = lay_out_whole(job, whole, path)
    size = laid_out.size
    with atomic_output(path, size, job.replace, mode_for(tensor_files(job))) as fd:
        laid_out.fill(job, fd)
        check_unchanged(job)
        sums = {os.path.basename(path): sha256_of(fd, size, path)} if job.checksum else {}
    return Written(path, "torch", len(job.plan.outputs), size, (), sums, is_whole=True)


def lay_out_whole(job: Job, whole: Whole, path: str) -> LaidOut:
    """Where everything lies in the file `path`. Raises OutputError."""
    storages = source_storages(whole.source.files[0], whole.read, path)
    parts, new = _with_storages(job, whole.parts, storages.highest, path)
    stream = new_pickle(replace(whole, parts=parts), path)
    kept = storages.as_tensors(key for key in stream.storages if key not in new)
    return LaidOut(_lay_out(stream, new, kept, path), _origins(new, kept), new)


def new_pickle(whole: Whole, path: str) -> Splicer:
    """The pickle with what changes in it, for the output `path`. Raises OutputError where it is
    written in a way that can't be kept.
    """
    try:
        outline = Outline(whole.read.data)
        edits = [edit for part in whole.parts for edit in _edits(outline, part)]
        edits += [removal(outline, names) for names in whole.removed]
        made = spliced(outline, edits)
        prove(whole.read.root, made.content, whole.parts, whole.removed)
    except OutlineFault as fault:
        fact = f"can't be the whole of `{whole.source.path}`, whose pickle {fault}"
        raise OutputError(path, fact, _ALONE) from None
    except NotProven as fault:
        fact = f"can't be the whole of `{whole.source.path}`: the new pickle {fault}"
        raise OutputError(path, fact, _ALONE) from None
    return made


def _edits(outline: Outline, part: AnyPart) -> list[Edit]:
    return [edit_of(outline, part)] if isinstance(part, Part) else part.edits(outline)


def _with_storages(
    job: Job, parts: Sequence[AnyPart], number: int, path: str
) -> tuple[list[AnyPart], dict[str, NewStorage]]:
    """The parts with new storages, of numbers above `number`, for what does not move; what is one
    tensor has one.
    """
    new: dict[str, NewStorage] = {}
    made: list[AnyPart] = []
    for part in parts:
        keys: dict[str, str] = {}
        moved = part.moved
        whole = replace(job, plan=part.plan, source=part.source, target=part.target)
        origins = moved_tensors(part.plan, part.source, part.target)
        for member in members_of(whole, part.plan.outputs, origins):
            key = member.info.key
            if key in moved:
                continue
            if part.shares_tensors and member.tied_to in keys:
                keys[key] = keys[member.tied_to]
                continue
            check_type(member.info, path)
            number += 1
            keys[key] = str(number)
            new[str(number)] = NewStorage(part, member.info)
        made.append(replace(part, storages=keys))
    return made, new


def _lay_out(
    stream: Splicer, new: Mapping[str, NewStorage], kept: Checkpoint, path: str
) -> OutputFile:
    stored = [
        replace(new[key].info, key=key) if key in new else kept.catalog[key]
        for key in stream.storages
    ]
    members = [OutputTensor(info) for info in stored]
    return OutputFile("torch", members, WholeLayout(stream.content, stored, path))


def _by_part(new: Mapping[str, NewStorage]) -> Iterator[tuple[AnyPart, dict[str, str]]]:
    """Each part with the keys of its new storages, by its outputs."""
    for part in {id(storage.part): storage.part for storage in new.values()}.values():
        yield part, {one.info.key: key for key, one in new.items() if one.part is part}


def _origins(new: Mapping[str, NewStorage], kept: Checkpoint) -> dict[str, ByteSource]:
    """Where the bytes of storages come from that are not computed."""
    origins = {key: ByteSource(kept, key) for key in kept.catalog}
    for part, keys in _by_part(new):
        found = moved_tensors(part.plan, part.source, part.target)
        origins |= {key: found[output] for output, key in keys.items() if output in found}
    return origins


def _computed(
    new: Mapping[str, NewStorage], wanted: Collection[str]
) -> Iterator[tuple[str, memoryview]]:
    """The bytes of new storages, part by part."""
    for part, keys in _by_part(new):
        outputs = {output: key for output, key in keys.items() if key in wanted}
        for output, content in computed_tensors(part.plan, part.source, part.target, outputs):
            yield outputs[output], content
