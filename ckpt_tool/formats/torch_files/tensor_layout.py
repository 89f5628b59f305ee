"""From a tensor's description in a pickle to where its bytes lie, with every number of the file
checked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.limits import DIMENSIONS, TENSOR_BYTES
from ckpt_tool.formats.pickle.arrays import element_type
from ckpt_tool.formats.pickle.values import ArrayRef, StorageRef, TensorRef
from ckpt_tool.formats.placements.assembled import Placement
from ckpt_tool.formats.placements.byte_ranges import Extent, Inflated, Storage
from ckpt_tool.formats.placements.views import View
from ckpt_tool.tensors import DType, Shape, TensorInfo, nbytes_of
from ckpt_tool.torch_bridge import unpacked_shape

MAX_SIZE = 1 << 63
"""Sizes and strides are below it, as torch's 64-bit integers are."""
Locate = Callable[[StorageRef], Storage]


@dataclass(slots=True, eq=False)
class Measured:
    """A tensor by its description alone: what the catalog says of it, and which bytes of its
    storage it needs.

    `tensor` is None for an array, whose bytes are inside the pickle: `placement` says where.
    """

    info: TensorInfo
    tensor: TensorRef | None
    start: int = 0
    end: int = 0
    is_contiguous: bool = False
    placement: Placement | None = None


KnownExtents = dict[tuple[int, int, object, DType], tuple[int, int, bool]]
"""What was measured of a shape and a stride (by the objects' ids), an offset and an element type.
"""


def measure_tensor(
    tensor: TensorRef | ArrayRef, key: str, path: str, known: KnownExtents
) -> Measured:
    """Raises FormatError for a tensor that can't be. `known` is good as long as the tensors
    live.
    """
    if type(tensor) is ArrayRef:
        return _measure_array(tensor, key, path)
    assert type(tensor) is TensorRef
    dtype, shape, offset = tensor.dtype, tensor.shape, tensor.offset
    name = (id(shape), id(tensor.stride), offset, dtype)
    found = known.get(name) if type(offset) is int else None
    if found is None:
        found = known[name] = _measure_checked(tensor, key, path)
    numel, last, is_contiguous = found
    unpacked = unpacked_shape(dtype, shape) if dtype is DType.F4 else shape  # type: ignore[arg-type]
    if not numel:
        return Measured(TensorInfo(key, dtype, unpacked), tensor, 0, 0, True)  # type: ignore[arg-type]
    is_plain = is_contiguous and not (tensor.conjugate or tensor.negative)
    size = _stored_size(dtype)
    span = offset * size, (last + 1) * size  # type: ignore[operator]
    info = TensorInfo(key, dtype, unpacked, span=span)  # type: ignore[arg-type]
    return Measured(info, tensor, *span, is_plain)


def _stored_size(dtype: DType) -> int:
    """The bytes of what torch counts; its F4 type counts bytes, which hold two elements each."""
    return dtype.itemsize or 1


def _measure_checked(tensor: TensorRef, key: str, path: str) -> tuple[int, int, bool]:
    """What `_measure` gives. Raises FormatError for more bytes than any tensor has, too."""
    found = _measure(tensor.shape, tensor.stride, tensor.offset, key, path)
    if found[0] * _stored_size(tensor.dtype) > TENSOR_BYTES:
        raise FormatError(path, f"declares a tensor of {found[0]} elements", None, _name(key))
    return found


def check_inside(measured: Measured, path: str, size_of: Callable[[StorageRef], int]) -> None:
    """Raises FormatError for a tensor outside its storage."""
    if measured.tensor is None:
        return
    storage = measured.tensor.storage
    length = size_of(storage) if storage.content is None else len(storage.content)
    if measured.end > length:
        raise FormatError(
            path,
            f"needs {measured.end} bytes of a storage that has {length}",
            None,
            _name(measured.info.key),
        )


def lay_out_tensor(
    measured: Measured, path: str, locate: Locate, is_big_endian: bool = False
) -> Placement:
    """Where the bytes of a tensor inside its storage lie in a file."""
    tensor, end = measured.tensor, measured.end
    if tensor is None:
        assert measured.placement is not None
        return measured.placement
    content = tensor.storage.content
    storage = locate(tensor.storage) if content is None else Inflated(content)
    is_swapped = is_big_endian and tensor.dtype.itemsize > 1
    if type(storage) is not Extent:
        return _view(tensor, storage, tensor.offset, is_swapped)
    part = narrow(storage, measured.start, end)
    if not end or (measured.is_contiguous and not is_swapped):
        return part
    return _view(tensor, part, 0, is_swapped)


def _view(tensor: TensorRef, storage: Storage, offset: object, is_swapped: bool) -> View:
    return View(storage, offset, tensor.stride, is_swapped, tensor.conjugate, tensor.negative)  # type: ignore[arg-type]


def _measure(
    shape: object, stride: object, offset: object, key: str, path: str
) -> tuple[int, int, bool]:
    """(number of elements, index of the last one in the storage, whether they are contiguous).
    Raises FormatError.
    """
    if type(shape) is not tuple or type(stride) is not tuple or type(offset) is not int:
        raise _impossible(key, path, "shape, stride or offset")
    if len(shape) != len(stride) or offset < 0:
        raise _impossible(key, path, "shape, stride or offset")
    if len(shape) > DIMENSIONS:
        fact = f"has a tensor of {len(shape)} dimensions; at most {DIMENSIONS} are read"
        raise FormatError(path, fact, None, _name(key))
    numel, last, is_contiguous = 1, offset, True
    for extent, step in zip(reversed(shape), reversed(stride), strict=True):
        _check_sizes(extent, step, key, path)
        if extent != 1:
            is_contiguous = is_contiguous and step == numel
            last += (extent - 1) * step
            numel *= extent
    return numel, last, is_contiguous


def _check_sizes(extent: object, step: object, key: str, path: str) -> None:
    if not (_is_size(extent) and _is_size(step)):
        raise _impossible(key, path, "shape or stride")


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < MAX_SIZE


def _impossible(key: str, path: str, what: str) -> FormatError:
    return FormatError(path, f"has a tensor with an impossible {what}", None, _name(key))


def _measure_array(array: ArrayRef, key: str, path: str) -> Measured:
    """The same for a numpy array, whose bytes are inside the pickle."""
    kind = element_type(array.type_text)
    if kind is None:
        raise FormatError(
            path, f"has an array of {array.type_text or 'structures'}", None, _name(key)
        )
    dtype, is_swapped = kind
    if nbytes_of(dtype, array.shape) != len(array.content):
        raise FormatError(
            path,
            f"has an array of {array.type_text} with {len(array.content)} bytes",
            None,
            _name(key),
        )
    stride = (
        contiguous_stride(array.shape[::-1])[::-1]
        if array.is_fortran
        else contiguous_stride(array.shape)
    )
    return Measured(
        TensorInfo(key, dtype, array.shape),
        None,
        placement=View(Inflated(array.content), 0, stride, is_swapped),
    )


def narrow(storage: Extent, start: int, end: int) -> Extent:
    """A part of a storage; only the whole of it keeps its checksum."""
    if start == 0 and end == storage.length:
        return storage
    return Extent(storage.file, storage.offset + start, end - start)


def contiguous_stride(shape: Shape) -> tuple[int, ...]:
    """The strides, in elements, of a tensor in row-major order."""
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))


def _name(key: str) -> str:
    return f"`{key}`"
