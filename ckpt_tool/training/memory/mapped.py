"""Tensors that are a file's own bytes, mapped into memory: read when they are used."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Sequence
from mmap import ACCESS_COPY, mmap
from typing import TYPE_CHECKING

from ckpt_tool.torch_bridge import torch_dtype

if TYPE_CHECKING:
    import torch

    from ckpt_tool.formats import Checkpoint, Extent
    from ckpt_tool.mapping.plan import Step
    from ckpt_tool.training.memory.filling import LiveTensors


class MappedFiles:
    """Files whose tensors take the place of a model's: what is changed is this process's own copy,
    page by page.
    """

    def __init__(self, source: Checkpoint) -> None:
        self._source = source
        self._maps: dict[str, mmap] = {}
        self._given: dict[str, list[tuple[int, int]]] = defaultdict(list)
        """The byte ranges of each file that a tensor has already, sorted: two tensors that share
        bytes would change together.
        """
        self.count = 0
        """How many of the model's tensors are mapped."""

    def give(self, step: Step, tensors: LiveTensors, key: str) -> bool:
        """Puts a mapped tensor in the place of one of the model's; False where it has to be read:
        it is computed, cast, sharded, not on the CPU, or lies unaligned or in several places.
        """
        extent = None if step.ops else self._source.extent(step.inputs[0])
        info = self._source.catalog[step.inputs[0]]
        if extent is None or not extent.file.has_descriptor or not info.nbytes:
            return False
        if extent.offset % max(info.dtype.itemsize, 1) or not info.dtype.itemsize:
            return False
        taken, place = self._given[extent.file.path], (extent.offset, extent.offset + extent.length)
        if _overlaps(place, taken):
            return False
        dtype = torch_dtype(info.dtype)
        if not tensors.can_adopt(key, dtype):
            return False
        tensors.adopt(key, self._mapped(extent).view(dtype).reshape(info.shape))
        insort(taken, place)
        self.count += 1
        return True

    def _mapped(self, extent: Extent) -> torch.Tensor:
        import torch

        file = extent.file
        if file.path not in self._maps:
            self._maps[file.path] = mmap(file.fd, 0, access=ACCESS_COPY)
        return torch.frombuffer(
            self._maps[file.path], dtype=torch.uint8, count=extent.length, offset=extent.offset
        )


def _overlaps(place: tuple[int, int], taken: Sequence[tuple[int, int]]) -> bool:
    """Whether a byte range shares bytes with one of some that share none, sorted."""
    at = bisect_left(taken, place)
    return any(start < place[1] and end > place[0] for start, end in taken[max(at - 1, 0) : at + 1])
