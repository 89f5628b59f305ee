"""The weights of a ZeRO checkpoint out of the flat partitions of all ranks.

The law is that of deepspeed/utils/zero_to_fp32.py. Stages 1 and 2: the ranks' partitions of a group
are one vector when they stand one after the other, and it has the parameters in the order of
`param_shapes`. Stage 3: each parameter is cut into as many equal parts as there are ranks, the last
ones padded; a rank's groups are one vector of its parts.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.checkpoint import Extra
from ckpt_tool.formats.distributed.rank_files import locate, refuse_missing
from ckpt_tool.formats.distributed.zero.flat import Flat, Vector, flat_part
from ckpt_tool.formats.distributed.zero.float_buffers import as_float, becomes_float
from ckpt_tool.formats.distributed.zero.names import ZeroNames, optimizer_names
from ckpt_tool.formats.distributed.zero.states import ModelStates, Partition, model_states
from ckpt_tool.formats.folder import Folder
from ckpt_tool.formats.placements.assembled import Placement, join
from ckpt_tool.formats.placements.byte_ranges import Extent, Inflated
from ckpt_tool.formats.placements.views import View
from ckpt_tool.formats.torch_files.contents import PickledFile
from ckpt_tool.tensors import DType, Shape, TensorInfo, counted, shape_text

Makers = dict[str, Callable[[], Placement]]
Cuts = Iterator[tuple[str, Shape, Callable[[], Placement]]]
"""Of each parameter the name, the shape, and where its parts lie."""


@dataclass(frozen=True, slots=True)
class Run:
    """The optimizer's parts of all ranks."""

    names: ZeroNames
    parts: tuple[Partition, ...]

    @property
    def folder(self) -> Folder:
        """Where their files lie."""
        return self.names.folder

    @property
    def stage(self) -> int:
        """The stage of ZeRO, the same in each part."""
        return self.parts[0].stage

    @property
    def ranks(self) -> int:
        """How many there are."""
        return len(self.parts)

    def check(self) -> None:
        """Raises FormatError where the parts are not those of one run, or some are missing."""
        first = self.parts[0]
        for one in self.parts:
            for name, own, others in (
                ("zero_stage", one.stage, first.stage),
                ("partition_count", list(one.counts), list(first.counts)),
                ("number of groups", len(one.groups), len(first.groups)),
                ("param_alignment_paddings", one.paddings, first.paddings),
            ):
                if own != others:
                    fact = f"its {name} is {own}; that of {first.path} is {others}"
                    raise FormatError(one.path, fact, "they are of different runs or steps")
        self._check_count(first)
        if self.stage <= 2:
            self._check_lengths()

    def _check_lengths(self) -> None:
        """Raises FormatError where a part is shorter than those behind it: only the end of a group
        can be short.
        """
        for group in zip(*(one.groups for one in self.parts), strict=True):
            for one, part, after in zip(self.parts, group, group[1:], strict=False):
                if part.count < after.count:
                    fact = f"has {part.count} elements of a group, and the rank after it has "
                    fact += str(after.count)
                    raise FormatError(one.path, fact, "were files of ranks exchanged?")

    def _check_count(self, first: Partition) -> None:
        counts = sorted(set(first.counts))
        if len(counts) > 1:
            text = " and ".join(map(str, counts))
            raise FormatError(
                first.path,
                f"has groups in {text} parts: experts are spread over some of the ranks",
                "DeepSpeed's ds_to_universal.py joins them",
            )
        names = optimizer_names(self.names, counts[0])
        missing = [name for name in names if name not in self.names.optimizer]
        refuse_missing(self.folder, missing, counts[0])
        if counts[0] != self.ranks:
            fact = f"its partition_count is {counts[0]}; there are files of {self.ranks} ranks"
            raise FormatError(first.path, fact, "keep the files of one run in the folder")

    @property
    def dtype(self) -> DType:
        """The one type of the flat groups. Raises FormatError."""
        return _one_type("groups", [one.groups for one in self.parts], self.folder)


@dataclass(slots=True)
class Joined:
    """Tensors by name, as they are joined; a name that comes twice is refused."""

    folder: Folder
    infos: dict[str, TensorInfo] = field(default_factory=dict)
    makers: Makers = field(default_factory=dict)
    notes: list[Extra] = field(default_factory=list)

    def add(self, info: TensorInfo, make: Callable[[], Placement]) -> None:
        """One more."""
        if info.key in self.infos:
            raise FormatError(self.folder.path, f"has two tensors named `{info.key[:200]}`")
        self.infos[info.key], self.makers[info.key] = info, make


def join_weights(states: ModelStates, models: Sequence[PickledFile], run: Run) -> Joined:
    """The float32 weights, and what is stored by itself. Raises FormatError."""
    joined = Joined(run.folder)
    add_buffers(joined, states, models[0])
    add_frozen(joined, states, models, run.stage)
    for name, shape, make in _cuts(states, [one.groups for one in run.parts], run):
        joined.add(TensorInfo(name, run.dtype, shape), make)
    add_shared(joined, states, models[0])
    return joined


def join_slots(states: ModelStates, run: Run) -> Joined:
    """The optimizer's state under the names that torch flattens it to: `state.NAME.SLOT`."""
    joined = Joined(run.folder)
    slots = [slot for slot in run.parts[0].slots if all(slot in one.slots for one in run.parts)]
    if not slots:
        raise FormatError(
            run.folder.path, "has no optimizer's state that is cut as the weights are", "take those"
        )
    for slot in slots:
        groups = [one.slots[slot] for one in run.parts]
        dtype = _one_type(slot, groups, run.folder)
        for name, shape, make in _cuts(states, groups, run):
            joined.add(TensorInfo(f"state.{name}.{slot}", dtype, shape), make)
    return joined


def add_steps(joined: Joined, step: float) -> None:
    """The number of steps as torch's optimizers keep it, a float32 for each parameter."""
    view = View(Inflated(struct.pack("<f", step)), 0, ())
    names = [key.removeprefix("state.").rpartition(".")[0] for key in joined.infos]
    for name in dict.fromkeys(names):
        joined.add(TensorInfo(f"state.{name}.step", DType.F32, ()), partial(_same, view))


def _one_type(name: str, groups: Sequence[tuple[Flat, ...]], folder: Folder) -> DType:
    types = {part.dtype for each in groups for part in each}
    if len(types) > 1:
        each = " and ".join(sorted(dtype.value for dtype in types))
        raise FormatError(folder.path, f"its flat `{name[:80]}` are of different types: {each}")
    return next(iter(types), DType.F32)


def add_shared(joined: Joined, states: ModelStates, model: PickledFile) -> None:
    """The names that are copies of others. Raises FormatError for one of what isn't there."""
    for name, of in states.shared.items():
        info = joined.infos.get(of)
        if info is None:
            fact = f"its `shared_params` ties `{name[:80]}` to `{of[:80]}`, which isn't there"
            raise FormatError(model.path, fact)
        first = info.tied_to or of
        joined.add(TensorInfo(name, info.dtype, info.shape, first, first), joined.makers[of])


def add_buffers(joined: Joined, states: ModelStates, model: PickledFile) -> None:
    """Those of real numbers as float32, which is what zero_to_fp32.py makes of them."""
    changed = []
    for name, tensor in states.buffers.items():
        measured, placement = locate(tensor, name, model)
        info = measured.info
        if becomes_float(info.dtype):
            assert isinstance(placement, Extent | View)
            changed.append(f"`{name[:80]}` ({info.dtype.value})")
            joined.add(
                replace(info, dtype=DType.F32), partial(as_float, placement, info, model.path)
            )
        else:
            joined.add(info, partial(_same, placement))
    if changed:
        more = f" and {len(changed) - 8} more" if len(changed) > 8 else ""
        text = (
            f"buffers are float32 here, as zero_to_fp32.py makes them: {', '.join(changed[:8])}"
            f"{more}"
        )
        joined.notes.append(Extra("", "note", text))


def _same(placement: Placement) -> Placement:
    return placement


def add_frozen(
    joined: Joined, states: ModelStates, models: Sequence[PickledFile], stage: int
) -> None:
    """Each in the type that it has, which zero_to_fp32.py leaves, too."""
    if not states.frozen_shapes:
        return
    each = [states, *(model_states(model) for model in models[1:])]
    for name, shape in states.frozen_shapes.items():
        for one, model in zip(each, models, strict=True):
            if name not in one.frozen:
                fact = f"its `frozen_param_fragments` lacks `{name[:200]}`"
                raise FormatError(model.path, fact)
        if stage < 3:
            _add_whole(joined, name, shape, states, models[0])
        else:
            _add_fragments(joined, name, shape, each, models)


def _add_whole(
    joined: Joined, name: str, shape: Shape, states: ModelStates, model: PickledFile
) -> None:
    measured, placement = locate(states.frozen[name], name, model)
    if measured.info.shape != shape:
        fact = (
            f"the frozen `{name[:200]}` is {shape_text(measured.info.shape)}; "
            f"its shape is said to be {shape_text(shape)}"
        )
        raise FormatError(model.path, fact)
    joined.add(measured.info, partial(_same, placement))


def _add_fragments(
    joined: Joined,
    name: str,
    shape: Shape,
    states: Sequence[ModelStates],
    models: Sequence[PickledFile],
) -> None:
    share = -(-prod(shape) // len(models))
    parts = [
        flat_part(one.frozen[name], name, model) for one, model in zip(states, models, strict=True)
    ]
    for part, model in zip(parts, models, strict=True):
        if part.count != share or part.dtype is not parts[0].dtype:
            fact = (
                f"its part of the frozen `{name[:200]}` has {part.count:,} elements of "
                f"{part.dtype.value}; {share:,} of {parts[0].dtype.value} are a rank's share"
            )
            raise FormatError(model.path, fact)
    vectors = [Vector([part]) for part in parts]
    joined.add(
        TensorInfo(name, parts[0].dtype, shape), partial(_across, vectors, 0, share, prod(shape))
    )


def _cuts(states: ModelStates, groups: Sequence[tuple[Flat, ...]], run: Run) -> Cuts:
    """Each parameter's name and shape, and where its parts lie in the ranks' flat groups."""
    yield from (
        _cuts_of_each(states, groups, run) if run.stage == 3 else _cuts_of_all(states, groups, run)
    )


def _cuts_of_all(states: ModelStates, groups: Sequence[tuple[Flat, ...]], run: Run) -> Cuts:
    """Stages 1 and 2."""
    if len(states.groups) != len(groups[0]):
        fact = (
            f"`param_shapes` has {counted(len(states.groups), 'group')}, "
            f"the optimizer's files have {len(groups[0])}"
        )
        raise FormatError(run.folder.path, fact, "they are of different runs")
    for at, shapes in enumerate(states.groups):
        vector, offset = Vector(each[at] for each in groups), 0
        paddings = _paddings(at, len(shapes), run)
        needed = sum(map(prod, shapes.values())) + sum(paddings)
        _check_group(at, needed, paddings[-1] if paddings else 0, vector.count, run)
        for (name, shape), padding in zip(shapes.items(), paddings, strict=True):
            count = prod(shape)
            yield name, shape, partial(_from_one, vector, offset, count)
            offset += count + padding


def _paddings(at: int, count: int, run: Run) -> tuple[int, ...]:
    """What stands behind each parameter of a group, none where the files note nothing."""
    every = run.parts[0].paddings
    if not every:
        return (0,) * count
    given = every[at] if at < len(every) else ()
    if len(given) != count:
        fact = (
            f"its `param_alignment_paddings` has {len(given)} numbers for group {at} of "
            f"{counted(count, 'parameter')}"
        )
        raise FormatError(run.parts[0].path, fact, "the files are of different runs")
    return given


def _check_group(at: int, needed: int, last: int, given: int, run: Run) -> None:
    """Raises FormatError unless the partitions are as long as the parameters but for the padding,
    which brings them to a multiple of two for each rank. Of the `last` one's own the end may be
    left out.
    """
    multiple = 2 * run.ranks
    if needed - last <= given and -(-needed // multiple) == -(-given // multiple):
        return
    fact = (
        f"the parameters of group {at} have {needed:,} elements, the partitions of its "
        f"{counted(run.ranks, 'rank')} have {given:,}; "
        f"they differ by padding to a multiple of {multiple} at most"
    )
    raise FormatError(run.folder.path, fact, "the files are of different runs")


def _cuts_of_each(states: ModelStates, groups: Sequence[tuple[Flat, ...]], run: Run) -> Cuts:
    """Stage 3."""
    vectors, offset = [Vector(each) for each in groups], 0
    needed = sum(-(-prod(shape) // run.ranks) for shape in states.shapes.values())
    for vector, one in zip(vectors, run.parts, strict=True):
        if vector.count != needed:
            fact = (
                f"its flat groups have {vector.count:,} elements; a rank's share of the "
                f"parameters is {needed:,}"
            )
            raise FormatError(one.path, fact, "the files are of different runs")
    for shapes in states.groups:
        for name, shape in shapes.items():
            share = -(-prod(shape) // run.ranks)
            yield name, shape, partial(_across, vectors, offset, share, prod(shape))
            offset += share


def _from_one(vector: Vector, offset: int, count: int) -> Placement:
    return join(vector.cut(offset, count))


def _across(vectors: Sequence[Vector], offset: int, share: int, count: int) -> Placement:
    """`count` elements, `share` of them from each vector as long as there are some left."""
    return join(
        extent
        for at, vector in enumerate(vectors)
        for extent in vector.cut(offset, max(0, min(share, count - at * share)))
    )
