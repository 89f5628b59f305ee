"""A tensor of an open checkpoint that is read when it is asked for: all of it, or some rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckpt_tool.tensors import DType, Shape, nbytes_of, shape_text
from ckpt_tool.torch_bridge import to_tensor

if TYPE_CHECKING:
    import torch

    from ckpt_tool.formats import Checkpoint, Extent


class LazyTensor:
    """One tensor on disk: its `key`, `shape`, `dtype` and `nbytes` are known, its values are read
    by `read()` or by an index.

    An index reads no more than the rows (dimension 0) that it asks for, where these lie in one run
    of bytes; then no checksum of the whole tensor is looked at.

    >>> import ckpt_tool, torch
    >>> torch.save({"conv1.weight": torch.ones(64, 3, 7, 7)}, "model.pth")
    >>> with ckpt_tool.open("model.pth") as checkpoint:
    ...     weight = checkpoint["conv1.weight"]
    ...     weight.shape, weight[:8].shape, float(weight[0, 0, 0, 0])
    ((64, 3, 7, 7), torch.Size([8, 3, 7, 7]), 1.0)
    """

    __slots__ = ("_checkpoint", "dtype", "key", "nbytes", "shape")

    def __init__(self, checkpoint: Checkpoint, key: str) -> None:
        info = checkpoint.catalog[key]
        self._checkpoint = checkpoint
        self.key: str = key
        self.dtype: DType = info.dtype
        self.shape: Shape = info.shape
        self.nbytes: int = info.nbytes

    def __repr__(self) -> str:
        return f"LazyTensor({self.key!r}, {self.dtype.value} {shape_text(self.shape)})"

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a scalar")
        return self.shape[0]

    def read(self) -> torch.Tensor:
        """All of it, in memory of its own. Raises FormatError where a checksum is wrong."""
        return self._checkpoint.read(self.key)

    def __getitem__(self, index: object) -> torch.Tensor:
        """What torch gives for this index of the whole tensor."""
        if isinstance(index, tuple) and not index:
            return self.read()
        first, *more = index if isinstance(index, tuple) else (index,)
        extent = self._checkpoint.extent(self.key)
        row = nbytes_of(self.dtype, self.shape[1:]) if self.shape else 0
        if extent is None or not row or row * self.shape[0] != self.nbytes:
            return self.read()[index]  # type: ignore[index]
        if type(first) is int and -len(self) <= first < len(self):
            at = first % len(self)
            return self._rows(extent, row, at, at + 1)[(0, *more)]
        if isinstance(first, slice) and first.step in (None, 1):
            start, stop, _ = first.indices(len(self))
            return self._rows(extent, row, start, max(start, stop))[(slice(None), *more)]
        return self.read()[index]  # type: ignore[index]

    def _rows(self, extent: Extent, row: int, start: int, stop: int) -> torch.Tensor:
        """Rows `start` to `stop` of `row` bytes each."""
        content = extent.file.read(extent.offset + start * row, (stop - start) * row)
        return to_tensor(content, self.dtype, (stop - start, *self.shape[1:]))
