"""Which boxes of a live tensor this process has, and where they lie in its memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from ckpt_tool.regions import Region
from ckpt_tool.torch_bridge import is_distributed, local_part

if TYPE_CHECKING:
    import torch
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor.placement_types import Placement

Run = tuple[int, int, int]
"""Where indices that follow each other begin in the tensor and in this process's part of it, and
how many there are.
"""


@dataclass(frozen=True, slots=True)
class LocalPart:
    """A box of a tensor, and the memory of this process that it belongs into."""

    region: Region
    memory: torch.Tensor

    @property
    def is_on_gpu(self) -> bool:
        """Whether pinned memory is copied to it without waiting."""
        return self.memory.is_cuda

    def copy(self, value: torch.Tensor) -> None:
        """Copies a value of this box into it, on a GPU in its stream's order."""
        import torch

        with torch.inference_mode() if self.memory.is_inference() else nullcontext():
            self.memory.copy_(value, non_blocking=self.is_on_gpu)

    def cut(self, region: Region) -> LocalPart:
        """The part of it that belongs to a smaller box."""
        starts = zip(region.offsets, self.region.offsets, strict=True)
        inside = Region(tuple(start - first for start, first in starts), region.shape)
        return LocalPart(region, self.memory[inside.slices])


def local_parts(tensor: torch.Tensor, memory: torch.Tensor | None = None) -> list[LocalPart]:
    """The boxes with elements that this process has of a tensor; `memory`, where it is given, is to
    be in the place of the tensor's own (of its local part, for a distributed one).

    Of a tensor of FSDP2 or tensor parallelism, the boxes are those that `distribute_tensor` would
    send here: its placements cut a dimension one after the other, each as `torch.chunk` does.
    """
    own = local_part(tensor).detach() if memory is None else memory
    if not is_distributed(tensor):
        return [LocalPart(Region.whole(tuple(tensor.shape)), own)] if tensor.numel() else []
    runs = [
        _runs(size, axis, tensor.dim(), tensor.device_mesh, tensor.placements)  # type: ignore[attr-defined]
        for axis, size in enumerate(tensor.shape)
    ]
    return list(_boxes(own, runs))


def _boxes(own: torch.Tensor, runs: Sequence[Sequence[Run]]) -> Iterator[LocalPart]:
    for some in product(*runs):
        region = Region(tuple(run[0] for run in some), tuple(run[2] for run in some))
        here = tuple(slice(start, start + count) for _, start, count in some)
        yield LocalPart(region, own[here])


def _runs(
    size: int, axis: int, rank: int, mesh: DeviceMesh, placements: Sequence[Placement]
) -> Sequence[Run]:
    """The indices of one dimension that this process has, as runs."""
    import torch

    where = mesh.get_coordinate()
    assert where is not None
    indices = None
    for at, placement in enumerate(placements):
        dim = getattr(placement, "dim", None)  # of `Shard` and `_StridedShard`
        if dim is not None and dim % rank == axis:
            if indices is None:
                indices = torch.arange(size).reshape((1,) * axis + (size,))
            parts, _ = placement._split_tensor(  # type: ignore[attr-defined]
                indices, mesh.size(at), with_padding=False, contiguous=True
            )
            indices = parts[where[at]]
    if indices is None:
        return [(0, 0, size)] if size else []
    return _followed(indices.flatten())


def _followed(indices: torch.Tensor) -> list[Run]:
    if not len(indices):
        return []
    breaks = (indices.diff() != 1).nonzero().flatten() + 1
    starts = [0, *breaks.tolist()]
    ends = [*starts[1:], len(indices)]
    firsts = indices[starts].tolist()
    return [
        (first, start, end - start) for first, start, end in zip(firsts, starts, ends, strict=True)
    ]
