"""From a tensor's description in a pickle to where its bytes lie, with every number of the file checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Measured:
    """A tensor by its description alone: what the catalog says of it, and which bytes of its storage it needs.

    `tensor` is None for an array, whose bytes are inside the pickle: `placement` says where.
    """

    info: TensorInfo
    tensor: TensorRef | None
    start: int = 0
    end: int = 0
    is_contiguous: bool = False
    placement: Placement | None = None


def measure(tensor: TensorRef | ArrayRef, key: str, path: str) -> Measured:
    """Raises FormatError for a tensor that can't be."""
    if type(tensor) is ArrayRef:
        return _measure_array(tensor, key, path)
    assert type(tensor) is TensorRef
    dtype, shape, offset = tensor.dtype, tensor.shape, tensor.offset
    numel, last, is_contiguous = _measure(shape, tensor.stride, offset, key, path)
    size = dtype.itemsize or 1  # torch's F4 type counts bytes, which hold two elements each
    if numel * size > TENSOR_BYTES:
        raise FormatError(path, f"declares a tensor of {numel} elements", None, _name(key))
    info = TensorInfo(key, dtype, unpacked_shape(dtype, shape) if dtype is DType.F4 else shape)  # type: ignore[arg-type]
    if not numel:
        return Measured(info, tensor, 0, 0, True)
    is_plain = is_contiguous and not (tensor.conjugate or tensor.negative)
    return Measured(info, tensor, offset * size, (last + 1) * size, is_plain)  # type: ignore[operator]


def lay_out(measured: Measured, path: str, locate: Locate, is_big_endian: bool = False) -> Placement:
    """Where a tensor's bytes lie in a file. Raises FormatError for a tensor outside its storage."""
    tensor, end = measured.tensor, measured.end
    if tensor is None:
        assert measured.placement is not None
        return measured.placement
    content = tensor.storage.content
    storage = locate(tensor.storage) if content is None else Inflated(content)
    if end > storage.length:
        raise FormatError(path, f"needs {end} bytes of a storage that has {storage.length}", None, _name(measured.info.key))
    is_swapped = is_big_endian and tensor.dtype.itemsize > 1
    if type(storage) is not Extent:
        return _view(tensor, storage, tensor.offset, is_swapped)
    part = narrow(storage, measured.start, end)
    if not end or (measured.is_contiguous and not is_swapped):
        return part
    return _view(tensor, part, 0, is_swapped)


def _view(tensor: TensorRef, storage: Storage, offset: object, is_swapped: bool) -> View:
    return View(storage, offset, tensor.stride, is_swapped, tensor.conjugate, tensor.negative)  # type: ignore[arg-type]


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


def _measure_array(array: ArrayRef, key: str, path: str) -> Measured:
    """The same for a numpy array, whose bytes are inside the pickle."""
    kind = element_type(array.type_text)
    if kind is None:
        raise FormatError(path, f"has an array of {array.type_text or 'structures'}", None, _name(key))
    dtype, is_swapped = kind
    if nbytes_of(dtype, array.shape) != len(array.content):
        raise FormatError(path, f"has an array of {array.type_text} with {len(array.content)} bytes", None, _name(key))
    stride = contiguous_stride(array.shape[::-1])[::-1] if array.is_fortran else contiguous_stride(array.shape)
    return Measured(TensorInfo(key, dtype, array.shape), None, placement=View(Inflated(array.content), 0, stride, is_swapped))


def narrow(storage: Extent, start: int, end: int) -> Extent:
    """A part of a storage; only the whole of it keeps its checksum."""
    if start == 0 and end == storage.length:
        return storage
    return Extent(storage.file, storage.offset + start, end - start)


def contiguous_stride(shape: Shape) -> tuple[int, ...]:
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _name(key: str) -> str:
    return f"`{key}`"
