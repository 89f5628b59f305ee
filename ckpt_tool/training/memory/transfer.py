"""A step's results into the memory that they belong into: what moves as it is, by reading into that
very memory; what is computed, in pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ckpt_tool.formats import Checkpoint
from ckpt_tool.formats.placements.parts import read_size
from ckpt_tool.ops.chain import leaves_of, needed_part, run_part
from ckpt_tool.ops.op import Leaf, Part, TensorForm
from ckpt_tool.torch_bridge import dtype_of, is_plain, packed_shape, torch_dtype, writable_bytes
from ckpt_tool.training.memory.values import step_values

if TYPE_CHECKING:
    import torch

    from ckpt_tool.formats import Extent
    from ckpt_tool.mapping.plan import Step
    from ckpt_tool.regions import Region
    from ckpt_tool.tensors import DType
    from ckpt_tool.training.live import LiveState
    from ckpt_tool.training.memory.filling import LiveTensors
    from ckpt_tool.training.memory.local_parts import LocalPart
    from ckpt_tool.training.memory.reads import Reads

PIECE = 1 << 20
"""Elements that are computed at a time."""
MAX_MORE = 1.5
"""Pieces may read so many times what the whole box takes; else it is computed at once."""


def transfer(
    step: Step,
    source: Checkpoint | LiveState,
    tensors: LiveTensors,
    wanted: Sequence[str],
    reads: Reads,
) -> None:
    """Fills those outputs of a step that are wanted, this process's parts of them; what is only
    read is there when `reads` are done.
    """
    if not step.ops and isinstance(source, Checkpoint):
        [key], current = step.inputs, tensors[wanted[0]]
        extent = source.extent(key)
        if extent is not None and _is_read(extent, source.catalog[key].dtype, current, reads):
            return
    places = {step.outputs.index(key): tensors.destinations(tensors[key]) for key in wanted}
    left = places
    if isinstance(source, Checkpoint) and all(source.has_parts(key) for key in step.inputs):
        inputs = StepInputs(step, source)
        left = {
            output: some
            for output, parts in places.items()
            if (some := [part for part in parts if not inputs.fill(output, part)])
        }
    if any(left.values()):
        values = step_values(step, source, tensors)
        for output, parts in left.items():
            for part in parts:
                part.copy(values[output][part.region.slices])


def _is_read(extent: Extent, dtype: DType, current: torch.Tensor, reads: Reads) -> bool:
    """Reads what most tensors are, one range of bytes in a file, into what most parameters are, the
    same bytes in memory; False for all others.
    """
    if not (is_plain(current) and _holds(current, dtype) and extent.length == current.nbytes > 0):
        return False
    from torch.autograd.graph import increment_version

    reads.add(extent.file, writable_bytes(current), extent.offset)
    if not current.is_inference():
        increment_version(current)
    return True


def _holds(memory: torch.Tensor, dtype: DType) -> bool:
    """Whether memory that can be filled from outside holds the bytes that a file has."""
    return (
        memory.is_cpu
        and memory.is_contiguous()
        and dtype_of(memory) is dtype
        and not (memory.is_conj() or memory.is_neg())
    )


@dataclass(frozen=True, slots=True)
class StepInputs:
    """What a step reads, box by box."""

    step: Step
    source: Checkpoint

    def fill(self, output: int, place: LocalPart) -> bool:
        """Fills a part of one of the step's outputs; False where that needs all of its inputs."""
        part = self.needed(output, place.region)
        if part is None:
            return False
        if self._is_straight(part, place):
            assert isinstance(part, Leaf)
            self._read_into(part, place.memory)
            return True
        for piece in self._pieces(output, place.region, part):
            some = self.needed(output, piece)
            assert some is not None
            place.cut(piece).copy(run_part(some, partial(self.read, is_pinned=place.is_on_gpu)))
        return True

    def needed(self, output: int, region: Region) -> Part | None:
        """What a box of an output needs of the inputs; None where it may need all of them."""
        if not self.step.ops:
            return Leaf(output, region)
        infos = [self.source.catalog[key] for key in self.step.inputs]
        forms = [TensorForm(info.dtype, info.shape) for info in infos]
        return needed_part(self.step.ops, forms, output, region)

    def read(self, leaf: Leaf, is_pinned: bool = False) -> torch.Tensor:
        """A box of an input; in pinned memory for a copy to a GPU, which torch then makes while
        the next box is read (its allocator keeps the memory until the copy is done).
        """
        import torch

        dtype = self.source.catalog[self.step.inputs[leaf.input]].dtype
        made = torch.empty(
            packed_shape(dtype, leaf.region.shape),
            dtype=torch_dtype(dtype),
            device="cpu",
            pin_memory=is_pinned,
        )
        self._read_into(leaf, made)
        return made

    def _read_into(self, leaf: Leaf, memory: torch.Tensor) -> None:
        from torch.autograd.graph import increment_version

        key = self.step.inputs[leaf.input]
        self.source.read_part(key, leaf.region, writable_bytes(memory))
        if not memory.is_inference():
            increment_version(memory)

    def _is_straight(self, part: Part, place: LocalPart) -> bool:
        """Whether the bytes of a file are those of the memory."""
        if not isinstance(part, Leaf):
            return False
        dtype = self.source.catalog[self.step.inputs[part.input]].dtype
        return _holds(place.memory, dtype)

    def _pieces(self, output: int, region: Region, part: Part) -> Sequence[Region]:
        """The box in pieces along the dimension in which they cost least to read, or as it is."""
        cost = self._read_size(part)
        best, least = [region], MAX_MORE * cost
        for axis, size in enumerate(region.shape):
            pieces = list(region.split(axis, PIECE))
            if size == 1 or len(pieces) == 1:
                continue
            parts = [self.needed(output, piece) for piece in pieces]
            read = sum(self._read_size(each) for each in parts if each is not None)
            if None not in parts and read < least:
                best, least = pieces, read
        return best

    def _read_size(self, part: Part) -> int:
        infos = [
            (self.source.catalog[self.step.inputs[leaf.input]], leaf) for leaf in leaves_of(part)
        ]
        return sum(read_size(leaf.region, info.shape, info.dtype.itemsize) for info, leaf in infos)
