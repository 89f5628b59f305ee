"""Tensors whose values are not read: quantised, sparse, nested, without data, or of a class of
their own. Their descriptions are checked.

The one that is read after all is a DTensor whose local part is the whole of it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ckpt_tool.formats.pickle.values import (
    Global,
    Opaque,
    OpaqueTensor,
    PickleFault,
    StorageRef,
    TensorRef,
)
from ckpt_tool.tensors import DType, Shape, shape_text
from ckpt_tool.torch_bridge import DTYPES

Args = tuple[object, ...]

_QUANTISED = {"QInt8Storage": (DType.I8, 1), "QUInt8Storage": (DType.U8, 1),
"QInt32Storage": (DType.I32, 1),
              "QUInt4x2Storage": (DType.U8, 2), "QUInt2x4Storage": (DType.U8, 4)}  # fmt: skip
"""A type of the same size for each quantised one, and how many elements share it."""
_CHANNELS = ("per_channel_affine", "per_channel_affine_float_qparams")
_COORDINATES = "torch.sparse_coo"
_BLOCKS = ("torch.sparse_bsr", "torch.sparse_bsc")
_BY_ROWS = ("torch.sparse_csr", "torch.sparse_bsr")
WHOLE_PLACEMENTS = frozenset(("Replicate", "Shard", "_StridedShard"))
"""Under these a part of the shape of the whole is the whole. A partial sum never is."""


def dimensions(size: object) -> Shape | None:
    """A size as the file has it, where it is one."""
    is_shape = (
        type(size) is tuple
        and len(size) <= 64
        and all(type(one) is int and 0 <= one < 1 << 63 for one in size)
    )
    return size if is_shape else None  # type: ignore[return-value]


def claimed_size(size: object) -> str:
    """A size for people, whatever the file has in its place."""
    is_shape = (
        type(size) is tuple
        and len(size) <= 64
        and all(type(one) is int and abs(one) < 1 << 63 for one in size)
    )
    return shape_text(size) if is_shape else "of an unknown shape"


def torch_type_name(kind: object) -> str:
    """The name of a torch dtype (`float32`). Raises PickleFault for all else."""
    if type(kind) is not Global or kind.module != "torch":
        raise PickleFault("has a tensor of a type that torch does not have")
    return kind.name


def rebuild_quantised(args: Args) -> object:
    """(storage, offset, size, stride, (scheme, scales, zero points[, axis]),
    requires_grad, hooks).
    """
    storage, offset, size, stride, scheme, _, _ = args
    if type(storage) is not StorageRef or storage.type_name not in _QUANTISED:
        raise PickleFault("has a quantised tensor in a storage that is not quantised")
    dtype, share = _QUANTISED[storage.type_name]
    held = TensorRef(storage, dtype, size, stride, offset)
    shape = dimensions(size)
    if share > 1 and shape is not None and type(offset) is int:
        count = 1
        for extent in shape:
            count *= extent
        held = TensorRef(storage, dtype, (-(-count // share),), (1,), offset // share)
    _check_scheme(scheme, shape)
    text = f"quantised {storage.type_name.removesuffix('Storage')} {claimed_size(size)}"
    return OpaqueTensor("quantised", text, size, (held, scheme))


def _check_scheme(scheme: object, shape: Shape | None) -> None:
    """One scale for all, or one for each row along an axis."""
    name, parts = _scheme_parts(scheme)
    if name not in _CHANNELS:
        return
    axis = parts[3] if len(parts) == 4 else None
    if shape is None or type(axis) is not int or not 0 <= axis < len(shape):
        raise PickleFault("has a quantised tensor whose scales are along no axis of it")
    _check_scales(parts, shape[axis])


def _scheme_parts(scheme: object) -> tuple[str, Args]:
    """The name of a scheme, and all of it. Raises PickleFault for what is none of torch's."""
    if type(scheme) is tuple and scheme:
        kind = scheme[0]
        if type(kind) is Global and kind.module == "torch":
            return kind.name, scheme
    raise PickleFault("has a quantised tensor without a scheme")


def _check_scales(scheme: Args, rows: int) -> None:
    """Raises PickleFault unless there is a scale and a zero point for each row."""
    for numbers in scheme[1:3]:
        count = len(numbers) if isinstance(numbers, list) else _length(numbers)
        if count != rows:
            raise PickleFault(
                f"has a quantised tensor with {count} scales or zero points for {rows} rows"
            )


def _length(tensor: object) -> int | None:
    shape = dimensions(tensor.shape) if type(tensor) is TensorRef else None
    return shape[0] if shape is not None and len(shape) == 1 else None


def rebuild_sparse(args: Args) -> object:
    """(layout, (indices, values, size[, coalesced])), or with two index tensors for the compressed
    layouts.
    """
    layout, data = args
    if type(layout) is not str or type(data) is not tuple:
        raise PickleFault("has a sparse tensor as torch never writes it")
    indices, values, size = _sparse_parts(layout, data)
    shapes = [
        dimensions(part.shape) if type(part) is TensorRef else None for part in (*indices, values)
    ]
    whole = dimensions(size)
    if whole is None or None in shapes:
        raise PickleFault("has a sparse tensor whose indices, values or size are invalid")
    fits = _fits_coordinates if layout == _COORDINATES else partial(_fits_compressed, layout)
    if not fits(shapes, whole) or not all(map(_are_indices, indices)):  # type: ignore[arg-type]
        raise PickleFault(
            f"has a sparse tensor of {claimed_size(size)} "
            "whose indices or values have another shape"
        )
    return OpaqueTensor(
        "sparse", f"sparse ({layout}) {claimed_size(size)}", size, (*indices, values)
    )


def _sparse_parts(layout: str, data: Args) -> tuple[Args, object, object]:
    """Indices, values and size. Raises PickleFault for another number of parts."""
    lengths, count = ((3, 4), 1) if layout == _COORDINATES else ((4,), 2)
    if len(data) not in lengths:
        raise PickleFault("has a sparse tensor as torch never writes it")
    return data[:count], data[count], data[count + 1]


def _are_indices(part: object) -> bool:
    return type(part) is TensorRef and part.dtype in (DType.I64, DType.I32)


def _fits_coordinates(shapes: list[Shape], size: Shape) -> bool:
    """Indices are sparse dimensions × entries, values entries × dense dimensions."""
    indices, values = shapes
    if len(indices) != 2 or not values or indices[1] != values[0] or indices[0] > len(size):
        return False
    return size[indices[0] :] == values[1:] and (not indices[1] or all(size[: indices[0]]))


def _fits_compressed(layout: str, shapes: list[Shape], size: Shape) -> bool:
    """One pointer more than rows (or columns), and as many indices as values, behind equal
    batches.
    """
    batch = len(shapes[0]) - 1
    if not _are_batched_alike(shapes, size, batch):
        return False
    pointers, _, values = shapes
    inner = values[batch + 1 :]
    block, dense = (inner[:2], inner[2:]) if layout in _BLOCKS else ((1, 1), inner)
    axis = 0 if layout in _BY_ROWS else 1
    if len(block) != 2 or not block[axis] or size[batch + axis] % block[axis]:
        return False
    return size[batch + 2 :] == dense and pointers[-1] == size[batch + axis] // block[axis] + 1


def _are_batched_alike(shapes: list[Shape], size: Shape, batch: int) -> bool:
    """Whether pointers, indices, values and the whole begin with the same `batch` dimensions."""
    pointers, indices, values = shapes
    if batch < 0 or len(indices) != batch + 1 or len(size) < batch + 2:
        return False
    if pointers[:-1] != indices[:-1] or size[:batch] != indices[:-1]:
        return False
    return values[: batch + 1] == indices


def rebuild_without_data(args: Args) -> object:
    """(dtype, size, stride, requires_grad): on the meta device."""
    kind, size, stride, _ = args
    shape, steps = dimensions(size), dimensions(stride)
    if shape is None or steps is None or len(shape) != len(steps):
        raise PickleFault("has a tensor without data of an impossible shape or stride")
    return OpaqueTensor("meta", f"without data, {torch_type_name(kind)} {claimed_size(size)}", size)


def rebuild_nested(args: Args) -> object:
    """(buffer, sizes, strides, offsets): tensors of several shapes in one; a row of sizes and of
    strides for each.
    """
    shapes = [dimensions(part.shape) if type(part) is TensorRef else None for part in args]
    if len(shapes) != 4 or None in shapes:
        raise PickleFault("has a nested tensor as torch never writes it")
    _, sizes, strides, offsets = shapes
    if sizes != strides or sizes is None or (offsets is not None and sizes[:1] != offsets[:1]):
        raise PickleFault(
            "has a nested tensor whose sizes, strides and offsets don't belong together"
        )
    return OpaqueTensor("nested", "nested", None, args)


def rebuild_unset(args: Args) -> object:
    """A lazy module's parameter: its shape is known after the first batch."""
    return OpaqueTensor(
        "meta", "without data, of a shape that is known later", None, args, takes="flags"
    )


def rebuild_wrapper(args: Args) -> object:
    """(class, dtype, size, stride, offset, layout, device, requires_grad): a tensor whose parts
    follow as its state.
    """
    kind, dtype, size = args[:3]
    if len(args) != 8 or dimensions(size) is None:
        raise PickleFault("has a tensor of a class of its own without a shape")
    return OpaqueTensor(
        _word(kind), f"{_class_name(kind)}, {torch_type_name(dtype)} {claimed_size(size)}", size
    )


def of_subclass(kind: object, function: object, inner: object, state: object) -> object:
    """A tensor of a class that is not torch's, or one that a function makes which is not."""
    if type(function) is Global and function.known is rebuild_wrapper and type(inner) is tuple:
        made = rebuild_wrapper(inner)
        assert type(made) is OpaqueTensor
        return (
            _as_distributed(made, inner, state)
            if made.kind == "DTensor"
            else replace(made, inside=(inner, state))
        )
    word = "nested" if _class_name(kind).startswith("torch.nested.") else _word(kind)
    return OpaqueTensor(word, _class_name(kind), None, (inner, state))


def _class_name(kind: object) -> str:
    return kind.full_name if type(kind) is Global else "a subclass"


def _word(kind: object) -> str:
    """The kind of a class's tensors: those of torch.distributed under their own name."""
    is_known = (
        type(kind) is Global
        and kind.module.startswith("torch.distributed.")
        and kind.name in ("DTensor", "ShardedTensor")
    )
    return kind.name if is_known and type(kind) is Global else "subclass"


def _as_distributed(made: OpaqueTensor, inner: Args, state: object) -> object:
    """A DTensor: its local part, where that is all of it; else what the file says of the whole and
    of the part.
    """
    local, spec = attribute(state, "_local_tensor"), attribute(state, "_spec")
    placements = attribute(spec.state, "placements") if type(spec) is Opaque else None
    if type(local) is not TensorRef or not isinstance(placements, tuple | list):
        return replace(made, inside=(inner, state))
    names = [_placement(one) for one in placements]
    is_plain = (
        DTYPES.get(torch_type_name(inner[1])) is local.dtype
        and dimensions(local.shape) == made.shape
    )
    if is_plain and names and WHOLE_PLACEMENTS.issuperset(names) and _is_of(spec, made.shape):
        return replace(local, takes="", attributes=())
    text = f"{made.text}, of which {claimed_size(local.shape)} is here ({', '.join(names)[:100]})"
    return replace(made, text=text, inside=(inner, state))


def _placement(value: object) -> str:
    """The class of a placement, if it is torch's."""
    kind = value.callee if type(value) is Opaque else None
    return (
        kind.name if type(kind) is Global and kind.module.startswith("torch.distributed.") else "?"
    )


def _is_of(spec: object, shape: object) -> bool:
    """Whether the spec, where it has a shape, has this one."""
    stated = attribute(spec.state, "tensor_meta") if type(spec) is Opaque else None
    return type(stated) is not Opaque or not stated.args or dimensions(stated.args[0]) == shape


def attribute(state: object, name: str) -> object:
    """An attribute in a state: a dict, or a pair of them, the second for what has slots."""
    for part in state if type(state) is tuple else (state,):
        if isinstance(part, dict) and name in part:
            return part[name]
    return None
