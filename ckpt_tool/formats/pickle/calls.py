"""The calls that pickles of checkpoints make, and what each makes: a table of descriptions. Nothing
here calls what it names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ckpt_tool.formats.pickle.arrays import (
    element_type,
    make_array,
    make_from_buffer,
    make_scalar,
    make_type,
)
from ckpt_tool.formats.pickle.graph import describe
from ckpt_tool.formats.pickle.storages import STORAGE_TYPES, check_location, storage_from_bytes
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
    rebuild_unset,
    rebuild_without_data,
    rebuild_wrapper,
    torch_type_name,
)
from ckpt_tool.formats.pickle.values import (
    ArrayRef,
    Global,
    ObjectDict,
    Opaque,
    OpaqueTensor,
    PickleFault,
    SetValue,
    StorageRef,
    TensorRef,
    set_items,
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
    rebuild = function.known if type(function) is Global else None
    if rebuild not in PLAIN_TENSORS or rebuild is None or type(inner) is not tuple:
        return of_subclass(kind, function, inner, state)
    made = rebuild(inner)
    if type(kind) is Global and kind.known in (any_tensor, parameter):
        flags = (
            replace(made, takes="flags")
            if type(made) is TensorRef and kind.known is parameter
            else made
        )
        return with_attributes(flags, state)
    if type(made) is not TensorRef or type(kind) is not Global or kind.known is not None:
        raise PickleFault("makes a tensor of a class that is none of tensors")
    return (
        with_attributes(made, state)
        if has_plain_attributes(state)
        else of_subclass(kind, function, inner, state)
    )


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


def ordered_dict(args: Args) -> object:
    """`OrderedDict()`, `Counter(dict)`, or Python 2's `OrderedDict([[key, value], ..])`."""
    made = ObjectDict()
    if not args:
        return made
    pairs = args[0]
    if type(pairs) is dict:
        made.update(pairs)
        return made
    if type(pairs) is not list:
        return NotImplemented
    for key, value in pairs:
        set_items(made, [key, value])
    return made


def default_dict(args: Args) -> object:
    """`defaultdict(factory, dict)`; the factory is left out."""
    return ObjectDict() if len(args) < 2 else ordered_dict(args[1:])


def encode(args: Args) -> object:
    """`_codecs.encode(text, 'latin1')`: how protocol 2 writes bytes."""
    content, codec = args
    return (
        content.encode("latin-1")
        if type(content) is str and codec in ("latin1", "latin-1")
        else NotImplemented
    )


def plain_bytes(args: Args) -> object:
    """`bytes` or `bytearray`: of nothing, of bytes, or of (text, 'latin1')."""
    if not args:
        return b""
    if type(args[0]) is str:
        return encode(args)
    return args[0] if isinstance(args[0], bytes) and len(args) == 1 else NotImplemented


def bag(args: Args) -> object:
    """`set` or `frozenset` of a list; members are not hashed."""
    members = args[0] if args else []
    return SetValue(list(members)) if isinstance(members, list | tuple) else NotImplemented


def complex_number(args: Args) -> object:
    """`complex(real, imaginary)`."""
    real, imaginary = args
    return (
        complex(real, imaginary)
        if isinstance(real, int | float) and isinstance(imaginary, int | float)
        else NotImplemented
    )


def first(args: Args) -> object:
    """The first argument as it is: a call that changes nothing."""
    return args[0]


def size(args: Args) -> object:
    """`torch.Size` as a tuple."""
    return (
        tuple(args[0])
        if args and isinstance(args[0], list | tuple)
        else ()
        if not args
        else NotImplemented
    )


def device(args: Args) -> object:
    """`torch.device` as its text."""
    return ":".join(str(part)[:40] for part in args if isinstance(part, str | int))


def reconstruct(args: Args) -> object:
    """`copyreg._reconstructor(class, base, state)`: protocol 0 and 1's way to make an object of a
    class.
    """
    kind = args[0]
    return (
        made
        if type(kind) is Global and kind.known and (made := kind.known(())) is not NotImplemented
        else Opaque(kind)
    )


PLAIN_TENSORS: frozenset[Call | None] = frozenset((
    rebuild_tensor, rebuild_tensor_v2, rebuild_tensor_v3, rebuild_parameter,
    rebuild_parameter_with_state, parameter, rebuild_from_array,
    rebuild_quantised, rebuild_sparse, rebuild_without_data, rebuild_nested, any_tensor,
))  # fmt: skip
"""What makes tensors of torch's own classes."""

COPYING: frozenset[Call | None] = frozenset((
    ordered_dict, default_dict, encode, plain_bytes, bag, size, storage_from_bytes, make_scalar,
    make_from_buffer,
))  # fmt: skip
"""Those that make something anew of all that they are given."""

KNOWN: dict[tuple[str, str], Call] = {
    ("torch._utils", "_rebuild_tensor"): rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor_v2,
    ("torch._utils", "_rebuild_tensor_v3"): rebuild_tensor_v3,
    ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): rebuild_parameter_with_state,
    ("torch.nn.parameter", "Parameter"): parameter,
    ("torch.nn.parameter", "Buffer"): variable,
    ("torch.nn.parameter", "UninitializedParameter"): rebuild_unset,
    ("torch.nn.parameter", "UninitializedBuffer"): rebuild_unset,
    ("torch.autograd.variable", "Variable"): variable,
    ("torch", "Tensor"): any_tensor,
    ("torch._tensor", "_rebuild_from_type_v2"): rebuild_from_type,
    ("torch._utils", "_rebuild_qtensor"): rebuild_quantised,
    ("torch._utils", "_rebuild_sparse_tensor"): rebuild_sparse,
    ("torch._utils", "_rebuild_sparse_csr_tensor"): rebuild_sparse,
    ("torch._utils", "_rebuild_meta_tensor_no_storage"): rebuild_without_data,
    ("torch._utils", "_rebuild_nested_tensor"): rebuild_nested,
    ("torch._utils", "_rebuild_wrapper_subclass"): rebuild_wrapper,
    ("torch._utils", "_rebuild_device_tensor_from_numpy"): rebuild_from_array,
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): rebuild_from_array,
    ("torch._utils", "_rebuild_xla_tensor"): rebuild_from_array,
    ("torch.serialization", "_get_layout"): first,
    ("torch.storage", "_load_from_bytes"): storage_from_bytes,
    ("torch", "Size"): size,
    ("torch", "device"): device,
    ("collections", "OrderedDict"): ordered_dict,
    ("collections", "Counter"): ordered_dict,
    ("collections", "defaultdict"): default_dict,
    ("_codecs", "encode"): encode,
    ("copyreg", "_reconstructor"): reconstruct,
    ("copy_reg", "_reconstructor"): reconstruct,
    ("numpy", "dtype"): make_type,
}
"""By module and name."""

for _module in ("builtins", "__builtin__"):
    KNOWN |= {
        (_module, "set"): bag, (_module, "frozenset"): bag,
        (_module, "complex"): complex_number, (_module, "dict"): ordered_dict,
        (_module, "bytearray"): plain_bytes, (_module, "bytes"): plain_bytes,
    }  # fmt: skip
for _module in ("numpy.core", "numpy._core"):
    KNOWN |= {
        (f"{_module}.multiarray", "_reconstruct"): make_array,
        (f"{_module}.multiarray", "scalar"): make_scalar,
        (f"{_module}.numeric", "_frombuffer"): make_from_buffer,
    }  # fmt: skip
for _storage in STORAGE_TYPES:
    _tensor = _storage.removesuffix("Storage") + "Tensor"
    KNOWN |= {(_module, _tensor): legacy_tensor(_tensor) for _module in ("torch", "torch.cuda")}
