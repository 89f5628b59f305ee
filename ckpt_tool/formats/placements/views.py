"""Tensors that are not the bytes of their storage as they stand: strides, byte order, torch's lazy
bits.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, TypeAlias

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.limits import EXPANSION
from ckpt_tool.formats.placements.byte_ranges import Storage
from ckpt_tool.frozen import frozen
from ckpt_tool.tensors import DType, Shape
from ckpt_tool.torch_bridge import packed_shape

if TYPE_CHECKING:
    from numpy import unsignedinteger
    from numpy.typing import NBitBase, NDArray

    Elements: TypeAlias = NDArray[unsignedinteger[NBitBase]]


@frozen
class View:
    """A tensor that is not one contiguous little-endian byte range of its storage.

    `offset` and `stride` count elements of `dtype`; strides are not negative. `swapped` marks
    big-endian components; `conjugate` and `negative` are torch's lazy bits, whose effect is not in
    the stored bytes. `skip` bytes of the storage come before its first element (an array's header).
    """

    storage: Storage
    offset: int
    stride: tuple[int, ...]
    swapped: bool = False
    conjugate: bool = False
    negative: bool = False
    skip: int = 0


def read_view(view: View, dtype: DType, shape: Shape, path: str) -> bytes:
    """The contiguous little-endian bytes of a view. Raises FormatError for one that expands without
    bound.
    """
    if dtype is DType.F4:
        dtype, shape = DType.U8, packed_shape(dtype, shape)
    storage = view.storage.read()
    if prod(shape) * dtype.itemsize > len(storage) - view.skip + EXPANSION:
        raise FormatError(
            path,
            f"a tensor of {prod(shape)} elements is a view of {len(storage)} bytes",
            "its values can't be listed",
        )
    if not prod(shape):
        return b""
    return _with_lazy_bits(view, _gathered(view, storage, dtype, shape), dtype).tobytes()


def _gathered(view: View, storage: bytes, dtype: DType, shape: Shape) -> Elements:
    """The elements as little-endian integers; complex ones as two, along the last dimension."""
    import numpy as np

    size = dtype.itemsize
    part = size // 2 if dtype.is_complex else size
    # Dimensions of 1 are left out: numpy has no more than 32, or 64.
    strided = [
        (extent, step * size)
        for extent, step in zip(shape, view.stride, strict=True)
        if extent != 1
    ]
    steps = [*strided, (size // part, part)]
    stored = np.ndarray(
        [extent for extent, _ in steps],
        f"{'>' if view.swapped else '<'}u{part}",
        storage,
        view.skip + view.offset * size,
        [step for _, step in steps],
    )
    return stored.astype(f"<u{part}", order="C")


def _with_lazy_bits(view: View, numbers: Elements, dtype: DType) -> Elements:
    """The elements negated and conjugated: torch's lazy bits are not in the stored bytes."""
    import numpy as np

    if not (view.negative or view.conjugate):
        return numbers
    if not (dtype.is_floating or dtype.is_complex):
        return np.negative(numbers) if view.negative else numbers
    is_flipped = [view.negative]
    if dtype.is_complex:
        is_flipped.append(view.negative != view.conjugate)
    sign = 1 << (8 * numbers.dtype.itemsize - 1)
    return numbers ^ (np.array(is_flipped, numbers.dtype) * numbers.dtype.type(sign))
