"""From a tensor's description in a pickle to where its bytes lie, with every number of the file checked."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.limits import DIMENSIONS, TENSOR_BYTES
from ckpt_tool.formats.pickle_arrays import element_type
from ckpt_tool.formats.pickle_values import ArrayRef, StorageRef, TensorRef
from ckpt_tool.formats.placement import Extent, Inflated, Placement, Storage, View
from ckpt_tool.tensors import DType, Shape, TensorInfo, nbytes_of
from ckpt_tool.torch_bridge import unpacked_shape

MOST = 1 << 63
"""Sizes and strides are below it, as torch's 64-bit integers are."""
Locate = Callable[[StorageRef], Storage]


def lay_out(tensor: TensorRef, key: str, path: str, locate: Locate, is_big_endian: bool = False) -> tuple[TensorInfo, Placement]:
    """What the catalog says of a tensor, and where its bytes lie. Raises FormatError for a tensor outside its storage."""
    dtype, shape, stride, offset = tensor.dtype, tensor.shape, tensor.stride, tensor.offset
    numel, last, is_contiguous = _measure(shape, stride, offset, key, path)
    content = tensor.storage.content
    storage = locate(tensor.storage) if content is None else Inflated(content)
    size = dtype.itemsize or 1  # torch's F4 type counts bytes, which hold two elements each
    start, end = (offset * size, (last + 1) * size) if numel else (0, 0)  # type: ignore[operator]
    if end > storage.length:
        raise FormatError(path, f"needs {end} bytes of a storage that has {storage.length}", None, _name(key))
    if numel * size > TENSOR_BYTES:
        raise FormatError(path, f"declares a tensor of {numel} elements", None, _name(key))
    info = TensorInfo(key, dtype, unpacked_shape(dtype, shape) if dtype is DType.F4 else shape)  # type: ignore[arg-type]
    is_swapped = is_big_endian and size > 1
    if type(storage) is not Extent:
        return info, View(storage, offset, stride, is_swapped, tensor.conjugate, tensor.negative)  # type: ignore[arg-type]
    part = narrow(storage, start, end)
    if not numel or (is_contiguous and not (is_swapped or tensor.conjugate or tensor.negative)):
        return info, part
    return info, View(part, 0, stride, is_swapped, tensor.conjugate, tensor.negative)  # type: ignore[arg-type]


def _measure(shape: object, stride: object, offset: object, key: str, path: str) -> tuple[int, int, bool]:
    """(number of elements, index of the last one in the storage, whether they are contiguous). Raises FormatError."""
    if type(shape) is not tuple or type(stride) is not tuple or len(shape) != len(stride) or type(offset) is not int or offset < 0:
        raise FormatError(path, "has a tensor with an impossible shape, stride or offset", None, _name(key))
    if len(shape) > DIMENSIONS:
        raise FormatError(path, f"has a tensor of {len(shape)} dimensions; at most {DIMENSIONS} are read", None, _name(key))
    numel, last, is_contiguous = 1, offset, True
    for extent, step in zip(reversed(shape), reversed(stride), strict=True):
        if type(extent) is not int or type(step) is not int or extent < 0 or step < 0 or extent >= MOST or step >= MOST:
            raise FormatError(path, "has a tensor with an impossible shape or stride", None, _name(key))
        if extent != 1:
            if step != numel:
                is_contiguous = False
            last += (extent - 1) * step
            numel *= extent
    return numel, last, is_contiguous


def lay_out_array(array: ArrayRef, key: str, path: str) -> tuple[TensorInfo, Placement]:
    """The same for a numpy array, whose bytes are inside the pickle."""
    kind = element_type(array.type_text)
    if kind is None:
        raise FormatError(path, f"has an array of {array.type_text or 'structures'}", None, _name(key))
    dtype, is_swapped = kind
    if nbytes_of(dtype, array.shape) != len(array.content):
        raise FormatError(path, f"has an array of {array.type_text} with {len(array.content)} bytes", None, _name(key))
    stride = contiguous_stride(array.shape[::-1])[::-1] if array.is_fortran else contiguous_stride(array.shape)
    return TensorInfo(key, dtype, array.shape), View(Inflated(array.content), 0, stride, is_swapped)


def narrow(storage: Extent, start: int, end: int) -> Extent:
    """A part of a storage; only the whole of it keeps its checksum."""
    if start == 0 and end == storage.length:
        return storage
    return Extent(storage.file, storage.offset + start, end - start)


def contiguous_stride(shape: Shape) -> tuple[int, ...]:
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _name(key: str) -> str:
    return f"`{key}`"
