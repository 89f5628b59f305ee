"""Boxes of tensors: what a process has of one, what a part of a result needs of its inputs."""

from collections.abc import Iterator
from math import prod

from ckpt_tool.frozen import frozen
from ckpt_tool.tensors import Shape


@frozen
class Region:
    """A box of a tensor: its first index in each dimension, and its shape."""

    offsets: Shape
    shape: Shape

    @classmethod
    def whole(cls, shape: Shape) -> "Region":
        """All of a tensor."""
        return cls((0,) * len(shape), shape)

    @property
    def text(self) -> str:
        """How messages name it: `[4:8, 0:16]`, as an index."""
        ranges = zip(self.offsets, self.shape, strict=True)
        return f"[{', '.join(f'{start}:{start + count}' for start, count in ranges)}]"

    @property
    def slices(self) -> tuple[slice, ...]:
        """The same as an index of a tensor."""
        ranges = zip(self.offsets, self.shape, strict=True)
        return tuple(slice(start, start + count) for start, count in ranges)

    def along(self, axis: int, start: int, count: int) -> "Region":
        """The same but for one dimension."""
        return Region(
            (*self.offsets[:axis], start, *self.offsets[axis + 1 :]),
            (*self.shape[:axis], count, *self.shape[axis + 1 :]),
        )

    def without(self, axis: int) -> "Region":
        """The same less a dimension."""
        return Region(
            self.offsets[:axis] + self.offsets[axis + 1 :],
            self.shape[:axis] + self.shape[axis + 1 :],
        )

    def inserted(self, axis: int, start: int, count: int) -> "Region":
        """The same with one more dimension."""
        return Region(
            (*self.offsets[:axis], start, *self.offsets[axis:]),
            (*self.shape[:axis], count, *self.shape[axis:]),
        )

    def split(self, axis: int, most: int) -> Iterator["Region"]:
        """Parts along one dimension of at most `most` elements, or of one index each."""
        row = prod(self.without(axis).shape)
        count = max(1, most // max(row, 1))
        for start in range(0, self.shape[axis], count):
            some = min(count, self.shape[axis] - start)
            yield self.along(axis, self.offsets[axis] + start, some)

    def bands(self, most: int) -> Iterator["Region"]:
        """Parts of at most `most` elements that follow each other in row-major order; single
        elements at least.
        """
        axis = next((axis for axis, size in enumerate(self.shape) if size > 1), None)
        if prod(self.shape) <= most or axis is None:
            yield self
            return
        for part in self.split(axis, most):
            yield from part.bands(most)


def start_in_order(region: Region, shape: Shape) -> int:
    """The number of its first element, counted through the tensor in row-major order."""
    number = 0
    for offset, extent in zip(region.offsets, shape, strict=True):
        number = number * extent + offset
    return number


def is_one_run(region: Region, shape: Shape) -> bool:
    """Whether its elements stand one after the other in the whole tensor."""
    sizes = list(zip(region.shape, shape, strict=True))
    cut = next((axis for axis, (part, _) in enumerate(sizes) if part != 1), len(sizes))
    return all(part == whole for part, whole in sizes[cut + 1 :])
