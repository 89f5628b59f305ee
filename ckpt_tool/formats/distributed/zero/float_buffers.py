"""Buffers as float32: what DeepSpeed's zero_to_fp32.py makes of them."""

from __future__ import annotations

from ckpt_tool.formats.placements.byte_ranges import Extent, Inflated
from ckpt_tool.formats.placements.views import View, read_view
from ckpt_tool.formats.torch_files.tensor_layout import contiguous_stride
from ckpt_tool.tensors import DType, TensorInfo

_NUMBERS = {DType.F64: "<f8", DType.F16: "<f2"}
"""numpy's names."""


def becomes_float(dtype: DType) -> bool:
    """Whether `as_float` takes it: real numbers of other sizes, but for types below 16 bits.
    DeepSpeed before 0.19 made float32 of integers as well.
    """
    return dtype in _NUMBERS or dtype is DType.BF16


def as_float(stored: Extent | View, info: TensorInfo, path: str) -> View:
    """The tensor's values as float32, rounded as torch rounds them. Costs reading it."""
    import numpy as np

    content = (
        stored.read()
        if isinstance(stored, Extent)
        else read_view(stored, info.dtype, info.shape, path)
    )
    if info.dtype is DType.BF16:
        wide = np.frombuffer(content, "<u2").astype("<u4") << np.uint32(16)
        numbers = wide.view("<f4")
    else:
        numbers = np.frombuffer(content, _NUMBERS[info.dtype]).astype("<f4")
    return View(Inflated(numbers.tobytes()), 0, contiguous_stride(info.shape))
