"""Flat vectors that several files hold one part after the other, and the tensors that are cut from
them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.distributed.rank_files import locate
from ckpt_tool.formats.pickle.descriptions import describe
from ckpt_tool.formats.pickle.values import TensorRef
from ckpt_tool.formats.placements.byte_ranges import Extent
from ckpt_tool.formats.torch_files.contents import PickledFile
from ckpt_tool.tensors import DType, shape_text


@dataclass(frozen=True, slots=True)
class Flat:
    """One part of a vector: a contiguous one-dimensional tensor of a file."""

    extent: Extent
    dtype: DType
    count: int


class Vector:
    """Parts one after the other, of one type; `count` is the number of elements in all."""

    def __init__(self, parts: Iterable[Flat]) -> None:
        self.parts = tuple(parts)
        self._starts = [0, *accumulate(part.count for part in self.parts)]
        self.count = self._starts[-1]

    def cut(self, start: int, count: int) -> Iterator[Extent]:
        """The byte ranges of some elements, which must be inside."""
        at, end = bisect_right(self._starts, start) - 1, start + count
        while start < end:
            part, first = self.parts[at], self._starts[at]
            taken = min(end, first + part.count) - start
            if taken > 0:
                yield _narrowed(part, start - first, taken)
                start += taken
            at += 1


def _narrowed(part: Flat, start: int, count: int) -> Extent:
    if count == part.count:
        return part.extent
    size = part.dtype.itemsize
    return Extent(part.extent.file, part.extent.offset + start * size, count * size)


def flat_part(value: object, name: str, pickled: PickledFile) -> Flat:
    """What a file calls `name`, as a part of a vector. Raises FormatError for all else."""
    if type(value) is not TensorRef:
        raise FormatError(pickled.path, f"its `{name}` is {describe(value, 80)}, not a tensor")
    measured, placement = locate(value, name, pickled)
    shape = measured.info.shape
    if len(shape) != 1:
        fact = f"its `{name}` is a tensor of {shape_text(shape)}, where a flat one belongs"
        raise FormatError(pickled.path, fact)
    if type(placement) is not Extent or not measured.info.dtype.itemsize:
        fact = f"its `{name}` is not stored as a plain vector of little-endian numbers"
        raise FormatError(pickled.path, fact, "save it again with torch.save")
    return Flat(placement, measured.info.dtype, shape[0])
