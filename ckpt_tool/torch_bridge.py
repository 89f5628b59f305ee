"""Between our values and torch's: the dtype table, bytes to tensors and back. The one module that
knows torch's types.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from mmap import mmap
from typing import TYPE_CHECKING

from ckpt_tool.errors import need_torch
from ckpt_tool.tensors import TORCH_NAMES, DType, Shape, TensorInfo, shape_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import torch

Memory = tuple[str, int]
"""A device and an address on it, or another kind of place and its number."""

DTYPES = {name: dtype for dtype, name in TORCH_NAMES.items()}


def packed_shape(dtype: DType, shape: Shape) -> Shape:
    """The shape that torch gives a tensor: its F4 type holds two elements, so the last dimension is
    halved.
    """
    if dtype is not DType.F4:
        return shape
    if not shape or shape[-1] % 2:
        raise ValueError(
            f"torch can't hold F4 of shape {list(shape)}: two elements share a byte along "
            "the last dimension"
        )
    return (*shape[:-1], shape[-1] // 2)


def unpacked_shape(dtype: DType, torch_shape: Shape) -> Shape:
    """The number of elements along each dimension: the inverse of `packed_shape`, and safetensors'
    way of counting.
    """
    return (
        (*torch_shape[:-1], torch_shape[-1] * 2)
        if dtype is DType.F4 and torch_shape
        else torch_shape
    )


def torch_dtype(dtype: DType) -> torch.dtype:
    """torch's own type for one of ours. Raises ValueError where this torch has none."""
    import torch

    name = TORCH_NAMES.get(dtype)
    if name is None or not hasattr(torch, name):
        raise ValueError(f"torch {torch.__version__} has no type for {dtype.value}")
    found: torch.dtype = getattr(torch, name)
    return found


def to_tensor(
    raw: bytes | bytearray | memoryview | mmap, dtype: DType, shape: Shape
) -> torch.Tensor:
    """A tensor of its own memory, from contiguous little-endian bytes. Raises InputError where
    torch isn't installed.
    """
    need_torch()
    import torch

    torch_shape = packed_shape(dtype, shape)
    if not len(raw):
        return torch.empty(torch_shape, dtype=torch_dtype(dtype))
    writable = raw if isinstance(raw, bytearray | mmap) else bytearray(raw)
    flat = torch.frombuffer(writable, dtype=torch.uint8)
    return flat.view(torch_dtype(dtype)).reshape(torch_shape)


def shown(raw: bytes | memoryview, dtype: DType) -> torch.Tensor:
    """The numbers of contiguous little-endian bytes, one after the other; only to be read, and only
    while the bytes are there.
    """
    import torch

    writable = bytearray(raw) if isinstance(raw, bytes) or raw.readonly else raw
    return torch.frombuffer(writable, dtype=torch.uint8).view(torch_dtype(dtype))


def to_bytes(tensor: torch.Tensor) -> memoryview:
    """The contiguous little-endian bytes of a tensor, in C order."""
    import ctypes

    import torch

    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    # Not reshape(-1): it keeps the odd stride of a single element, which can't be viewed as bytes.
    flat = plain.as_strided((plain.numel(),), (1,)).view(torch.uint8)
    # Not flat.numpy(): torch runs without numpy. The array keeps the tensor, whose memory it shows,
    # alive.
    window = (
        (ctypes.c_ubyte * flat.numel()).from_address(flat.data_ptr())
        if flat.numel()
        else (ctypes.c_ubyte * 0)()
    )
    window.tensor = flat  # type: ignore[attr-defined]
    return memoryview(window).cast("B")


def writable_bytes(tensor: torch.Tensor) -> memoryview:
    """The memory of a contiguous tensor on the CPU, to be filled: what is written there is in the
    tensor. torch doesn't see it (`torch.autograd.graph.increment_version` says so).
    """
    import ctypes

    if not tensor.nbytes:
        return memoryview(bytearray())
    window = (ctypes.c_ubyte * tensor.nbytes).from_address(tensor.data_ptr())
    window.tensor = tensor  # type: ignore[attr-defined]
    return memoryview(window).cast("B")


def same_bytes(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors of one dtype hold the same bytes, NaNs and signs of zero too."""
    import torch

    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return not one.numel() or torch.equal(
        shown(to_bytes(one), DType.U8), shown(to_bytes(other), DType.U8)
    )


def tensor_info(
    key: str,
    tensor: torch.Tensor,
    shared_storage_with: str | None = None,
    tied_to: str | None = None,
) -> TensorInfo:
    """What a catalog says of a live tensor. Raises ValueError where it has no plain bytes (sparse,
    quantised).
    """
    if odd_kind(tensor):
        raise ValueError(
            f"`{key}` is a {tensor.layout} tensor of {tensor.dtype}, which has no plain bytes"
        )
    return _plain_info(key, tensor, shared_storage_with, tied_to)


def _plain_info(
    key: str,
    tensor: torch.Tensor,
    shared_storage_with: str | None = None,
    tied_to: str | None = None,
    span: tuple[int, int] | None = None,
) -> TensorInfo:
    dtype = dtype_of(tensor)
    assert dtype is not None
    shape = unpacked_shape(dtype, tuple(tensor.shape))
    return TensorInfo(key, dtype, shape, shared_storage_with, tied_to, span)


def tensor_infos(tensors: Mapping[str, torch.Tensor]) -> list[TensorInfo]:
    """What a catalog says of a state dict of tensors with plain bytes, see `odd_kind`; those that
    lie in one memory, or are one, name the first of them.
    """
    first: dict[object, str] = {}
    infos = []
    places = memories(tensors.values())
    counts = Counter(places)
    for (key, tensor), memory in zip(tensors.items(), places, strict=True):
        if memory is None or counts[memory] == 1:
            infos.append(_plain_info(key, tensor))
            continue
        owner, twin = first.setdefault(memory, key), first.setdefault(identity_of(tensor), key)
        shares = None if owner == key else owner, None if twin == key else twin
        infos.append(_plain_info(key, tensor, *shares, span=_span_of(tensor)))
    return infos


def _span_of(tensor: torch.Tensor) -> tuple[int, int] | None:
    """Where a tensor begins and ends in memory; None for one that isn't plain, or is empty."""
    if not is_plain(tensor) or not tensor.numel():
        return None
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    last = sum((size - 1) * stride for size, stride in sizes)
    start = tensor.data_ptr()
    return start, start + (last + 1) * tensor.itemsize


def odd_kind(tensor: torch.Tensor) -> str:
    """A word for a tensor without plain bytes, the one that a file's gets; empty for all others."""
    import torch

    if tensor.is_nested:
        return "nested"
    if tensor.layout is not torch.strided:
        return "sparse"
    if tensor.is_quantized:
        return "quantised"
    return "" if _dtype_of(tensor.dtype) else "of a type that is not known"


def odd_info(key: str, tensor: torch.Tensor) -> TensorInfo:
    """What is said of a tensor without plain bytes that only stays where it is: its elements are
    those of its sizes.
    """
    name = _type_name(tensor)
    dtype = DTYPES.get(name) or (
        DType.I8 if name == "qint8" else DType.I32 if name == "qint32" else DType.U8
    )
    return TensorInfo(key, dtype, () if tensor.is_nested else tuple(tensor.shape))


def odd_text(tensor: torch.Tensor) -> str:
    """What it is, as it is said of one in a file."""
    size = "of an unknown shape" if tensor.is_nested else shape_text(tuple(tensor.shape))
    kind = odd_kind(tensor)
    return (
        f"sparse ({tensor.layout}) {size}"
        if kind == "sparse"
        else f"{kind} {_type_name(tensor)} {size}"
    )


def dtype_of(tensor: torch.Tensor) -> DType | None:
    """Our name of its element type; None for one that we don't know."""
    return _dtype_of(tensor.dtype)


@cache
def _dtype_of(dtype: torch.dtype) -> DType | None:
    return DTYPES.get(str(dtype).removeprefix("torch."))


def _type_name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def identity_of(tensor: torch.Tensor) -> object:
    """What two tensors have in common that are one: the same elements of one memory, seen the same
    way.
    """
    place: object
    if is_plain(tensor) and (pointer := tensor.data_ptr()):
        place = "cpu", pointer
    else:
        memory, start = memory_of(tensor), tensor.storage_offset() * tensor.itemsize
        is_address = memory and _has_address(memory)
        place = (memory[0], memory[1] + start) if memory and is_address else (memory, start)
    return place, tensor.shape, tensor.stride(), tensor.dtype, tensor.is_conj(), tensor.is_neg()


def memories(tensors: Iterable[torch.Tensor]) -> list[Memory | None]:
    """The memory of each tensor; of storages that lie over each other, as those of numpy's arrays
    may, the first one's.
    """
    known = []
    ends: dict[Memory, int] = {}
    for tensor in tensors:
        memory = memory_of(tensor)
        known.append(memory)
        if memory and _has_address(memory):
            local = tensor if is_plain(tensor) else local_part(tensor)
            ends[memory] = max(ends.get(memory, 0), memory[1] + local.untyped_storage().nbytes())
    first: dict[Memory, Memory] = {}
    owner, reached = ("", 0), 0
    for memory in sorted(ends):
        if memory[0] != owner[0] or memory[1] >= reached:
            owner, reached = memory, 0
        first[memory] = owner
        reached = max(reached, ends[memory])
    return [first.get(memory, memory) if memory else None for memory in known]


def _has_address(memory: Memory) -> bool:
    return memory[0] not in ("meta", "wrapper")


def memory_of(tensor: torch.Tensor) -> Memory | None:
    """What two tensors have in common that lie in one storage; None for a tensor without any
    memory.

    On the meta device storages have no memory, and are still one or another. A wrapper has memory
    that only its class knows.
    """
    if is_plain(tensor):
        address = tensor.untyped_storage().data_ptr()
        return ("cpu", address) if address else None
    import torch
    from torch.nn.parameter import is_lazy

    if is_lazy(tensor) or tensor.layout is not torch.strided:
        return None
    local = local_part(tensor)
    if is_wrapper(local):
        return "wrapper", id(tensor)
    storage = local.untyped_storage()
    if tensor.device.type == "meta":
        return "meta", int(storage._cdata)
    pointer = storage.data_ptr()
    return (str(tensor.device), pointer) if pointer else None


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether it is what most tensors are: on the CPU, dense, and of torch's own classes."""
    import torch

    return (
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and tensor.is_cpu
        and tensor.layout is torch.strided
    )


def is_wrapper(tensor: torch.Tensor) -> bool:
    """Whether a tensor's class answers torch's calls itself, by tensors that it holds: torchao's
    quantised ones, say.

    A DTensor is one too; what it holds is its local part.
    """
    import torch

    return type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__


def quantised_kind(tensor: torch.Tensor) -> str:
    """What a tensor is whose numbers are codes that mean something with what lies beside them
    (bitsandbytes' `Params4bit`, `Int8Params`); empty for all others.
    """
    is_packed = any(getattr(tensor, name, None) is not None for name in ("quant_state", "SCB"))
    return f"a quantised {type(tensor).__name__}, whose numbers are codes" if is_packed else ""


def is_distributed(tensor: torch.Tensor) -> bool:
    """Whether a tensor lies in parts on several processes: a DTensor, as FSDP2 and tensor
    parallelism make them.
    """
    return hasattr(tensor, "device_mesh")


def local_part(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a tensor that this process has; of most tensors that is all of it."""
    return tensor.to_local() if is_distributed(tensor) else tensor  # type: ignore[attr-defined]


def whole_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor with all of its parts, which all processes must ask for together."""
    return tensor.full_tensor() if is_distributed(tensor) else tensor  # type: ignore[attr-defined]
