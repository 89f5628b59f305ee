"""The calls that make tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ckpt_tool.formats.pickle.arrays import (
    element_type,
)
from ckpt_tool.formats.pickle.descriptions import describe
from ckpt_tool.formats.pickle.storages import STORAGE_TYPES, check_location
from ckpt_tool.formats.pickle.tensor_states import (
    as_parameter,
    check_gradient,
    has_plain_attributes,
    with_attributes,
    with_lazy_bits,
)
from ckpt_tool.formats.pickle.unreadable import (
    claimed_size,
    of_subclass,
    rebuild_nested,
    rebuild_quantised,
    rebuild_sparse,
    rebuild_without_data,
    torch_type_name,
)
from ckpt_tool.formats.pickle.values import (
    ArrayRef,
    Global,
    Opaque,
    OpaqueTensor,
    PickleFault,
    StorageRef,
    TensorRef,
)
from ckpt_tool.tensors import DType
from ckpt_tool.torch_bridge import DTYPES

Args = tuple[object, ...]
Call = Callable[[Args], object]


def rebuild_tensor(args: Args) -> object:
    """`_rebuild_tensor`: (storage, offset, size, stride)."""
    storage, offset, size, stride = args
    if type(storage) is not StorageRef or storage.dtype is None:
        return without_storage(storage)
    return TensorRef(storage, storage.dtype, size, stride, offset)


def rebuild_tensor_v2(args: Args) -> object:
    """(storage, offset, size, stride, requires_grad, hooks[, lazy bits])."""
    flag, _, *bits = args[4:]
    made = rebuild_tensor(args[:4])
    return _checked(made, flag, bits)


def rebuild_tensor_v3(args: Args) -> object:
    """(untyped storage, offset, size, stride, requires_grad, hooks, dtype[, lazy bits])."""
    storage, offset, size, stride, flag, _, kind, *bits = args
    if type(storage) is not StorageRef:
        return without_storage(storage)
    name = torch_type_name(kind)
    dtype = DTYPES.get(name)
    if dtype is None or (
        dtype is DType.F4 and size == ()
    ):  # two elements without a dimension to count them in
        return OpaqueTensor("other", f"{name} {claimed_size(size)}", size)
    return _checked(TensorRef(storage, dtype, size, stride, offset), flag, bits)


def _checked(made: object, flag: object, bits: list[object]) -> object:
    """The tensor with its flag and bits looked at, as torch looks at them."""
    if len(bits) > 1:
        raise PickleFault("makes a tensor of more than torch does")
    if type(made) is TensorRef:
        check_gradient(made.dtype, flag)
        with_lazy_bits(made, bits[0] if bits else None)
    return made


def without_storage(storage: object) -> object:
    """A tensor in what an unknown call would have made. Raises PickleFault for all else."""
    if type(storage) is Opaque:
        return OpaqueTensor("other", f"a tensor in what {storage.type_name} would have made")
    raise PickleFault("has a tensor without a storage")


def rebuild_parameter(args: Args) -> object:
    """`_rebuild_parameter`: (tensor, requires_grad, hooks)."""
    data, flag, _ = args
    return as_parameter(data, flag)


def rebuild_parameter_with_state(args: Args) -> object:
    """(tensor, requires_grad, hooks, attributes)."""
    return with_attributes(rebuild_parameter(args[:3]), *args[3:])


def parameter(args: Args) -> object:
    """`torch.nn.Parameter()`, or of (tensor[, requires_grad]): the class itself."""
    if not args:
        return new_tensor(DType.F32, "flags")
    data, *flag = args
    if len(flag) > 1:
        raise PickleFault("makes a Parameter of more than torch does")
    return as_parameter(data, flag[0] if flag else True)


def variable(args: Args) -> object:
    """A Variable of torch 0.3, or a Buffer: (tensor, ..)."""
    return as_parameter(args[0], False)


def rebuild_from_type(args: Args) -> object:
    """(function, class, arguments, state): a tensor of a subclass, or one with attributes.

    One of a class that is not known is read as plain where it has nothing but plain attributes;
    else it is only listed.
    """
    function, kind, inner, state = args
    rebuild = _known_call(function)
    if rebuild is None or rebuild not in PLAIN_TENSORS or type(inner) is not tuple:
        return of_subclass(kind, function, inner, state)
    made, known = rebuild(inner), _known_call(kind)
    if known is any_tensor:
        return with_attributes(made, state)
    if known is parameter:
        return with_attributes(_taking_flags(made), state)
    if type(made) is not TensorRef or type(kind) is not Global or known is not None:
        raise PickleFault("makes a tensor of a class that is not a tensor's")
    if has_plain_attributes(state):
        return with_attributes(made, state)
    return of_subclass(kind, function, inner, state)


def _taking_flags(made: object) -> object:
    """The tensor as one to which BUILD may still give a Parameter's flags."""
    return replace(made, takes="flags") if type(made) is TensorRef else made


def _known_call(value: object) -> Call | None:
    return value.known if type(value) is Global else None


def rebuild_from_array(args: Args) -> object:
    """(array or tensor, dtype, device, requires_grad): tensors of XLA and other devices; torch
    casts them to the dtype.

    Before torch 1.12 those of BF16 were arrays of F32 (torch/_tensor.py, `_reduce_ex_internal`).
    """
    data, kind, place, flag = args
    wanted = DTYPES.get(torch_type_name(kind))
    if place == "meta":
        return OpaqueTensor("meta", f"without data, {describe(data)}")
    check_location(place)
    if isinstance(data, ArrayRef):
        given, _ = element_type(data.type_text) or (None, False)
    elif isinstance(data, TensorRef):
        given = data.dtype
    else:
        return data
    if wanted:
        check_gradient(wanted, flag)
    if given and given is wanted:
        return replace(data, takes="", attributes=()) if type(data) is TensorRef else data
    return OpaqueTensor(
        "cast",
        f"{describe(data)}, which becomes {torch_type_name(kind)} on loading",
        data.shape,
        (data,),
    )


def legacy_tensor(name: str) -> Call:
    """`torch.FloatTensor` of torch 0.2 and 0.3, whose place follows as its state; of numbers or
    sizes, a tensor that is not read.
    """
    dtype = STORAGE_TYPES[name.removesuffix("Tensor") + "Storage"]
    return lambda args: (
        new_tensor(dtype, "place")
        if not args
        else OpaqueTensor("other", f"made by calling torch.{name}", None, args)
    )


def any_tensor(args: Args) -> object:
    """`torch.Tensor`, the class itself."""
    return (
        new_tensor(DType.F32, "place")
        if not args
        else OpaqueTensor("other", "made by calling torch.Tensor", None, args)
    )


def new_tensor(dtype: DType, takes: str) -> TensorRef:
    """A tensor of no element in a storage of its own."""
    storage = StorageRef("", "", dtype, dtype.itemsize, 0, content=b"")
    storage.key = f"inside {id(storage)}"
    return TensorRef(storage, dtype, (0,), (1,), 0, takes=takes)


PLAIN_TENSORS: frozenset[Call | None] = frozenset((
    rebuild_tensor, rebuild_tensor_v2, rebuild_tensor_v3, rebuild_parameter,
    rebuild_parameter_with_state, parameter, rebuild_from_array,
    rebuild_quantised, rebuild_sparse, rebuild_without_data, rebuild_nested, any_tensor,
))  # fmt: skip
"""What makes tensors of torch's own classes."""
