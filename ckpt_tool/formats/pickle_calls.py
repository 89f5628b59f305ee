"""The calls that pickles of checkpoints make, and what each makes: a table of descriptions. Nothing here calls what it names."""

from __future__ import annotations

from collections.abc import Callable

from ckpt_tool.formats.pickle_arrays import element_type, make_array, make_from_buffer, make_scalar, make_type
from ckpt_tool.formats.pickle_graph import describe
from ckpt_tool.formats.pickle_values import ArrayRef, Bag, Global, ObjectDict, OddTensor, Opaque, PickleFault, StorageRef, TensorRef
from ckpt_tool.tensors import DType, shape_text
from ckpt_tool.torch_bridge import DTYPES

Args = tuple[object, ...]
Call = Callable[[Args], object]

STORAGE_TYPES = {
    "DoubleStorage": DType.F64, "FloatStorage": DType.F32, "HalfStorage": DType.F16, "BFloat16Storage": DType.BF16,
    "LongStorage": DType.I64, "IntStorage": DType.I32, "ShortStorage": DType.I16, "CharStorage": DType.I8,
    "ByteStorage": DType.U8, "BoolStorage": DType.BOOL, "ComplexDoubleStorage": DType.C128, "ComplexFloatStorage": DType.C64,
}  # fmt: skip
"""torch's storage classes and their element types."""

ODD_STORAGE_SIZES = {
    "QInt8Storage": 1, "QUInt8Storage": 1, "QInt32Storage": 4, "QUInt4x2Storage": 1, "QUInt2x4Storage": 1, "UntypedStorage": 1,
}  # fmt: skip
"""Bytes of one element of the storage classes that have no element type of ours."""

_SIZES: dict[str, tuple[DType | None, int]] = {
    **{name: (dtype, dtype.itemsize) for name, dtype in STORAGE_TYPES.items()},
    **{name: (None, size) for name, size in ODD_STORAGE_SIZES.items()},
}
_STORAGE_MODULES = ("torch", "torch.cuda", "torch.storage", "torch.xpu", "torch.npu", "torch.hpu", "torch.mtia", "torch.sparse")
MOST_ELEMENTS = 1 << 60

_NEGATED = frozenset((
    DType.F64, DType.F32, DType.F16, DType.BF16, DType.C128, DType.C64, DType.C32, DType.I64, DType.I32, DType.I16, DType.I8, DType.U8,
))  # fmt: skip

NOTHING = StorageRef("", "", None, 1, 0)


def make_storage(kind: object, key: str, count: object, start: int = 0) -> StorageRef:
    """What a persistent id stands for. Raises PickleFault."""
    if type(count) is not int or not 0 <= count < MOST_ELEMENTS:
        raise PickleFault(f"has a storage of {count if type(count) is int and abs(count) < 1 << 200 else 'impossibly many'} elements")
    if type(kind) is not Global or kind.module not in _STORAGE_MODULES or kind.name not in _SIZES:
        raise PickleFault("has a storage of a type that torch does not have")
    dtype, size = _SIZES[kind.name]
    return StorageRef(key, kind.name, dtype, size, count, start)


def is_same_storage(one: StorageRef, other: StorageRef) -> bool:
    """Whether two persistent ids of one key mean the same. Untyped storages are of bytes, which torch also knows as a type."""
    kinds = {"ByteStorage" if ref.type_name == "UntypedStorage" else ref.type_name for ref in (one, other)}
    return len(kinds) == 1 and one.count == other.count


def rebuild_tensor(args: Args) -> object:
    """(storage, offset, size, stride, requires_grad, hooks[, lazy bits]): `_rebuild_tensor` and `_rebuild_tensor_v2`."""
    storage, offset, size, stride = args[:4]
    if type(storage) is not StorageRef or storage.dtype is None:
        return without_storage(storage)
    made = TensorRef(storage, storage.dtype, size, stride, offset)
    return with_lazy_bits(made, args[6]) if len(args) > 6 else made


def rebuild_tensor_v3(args: Args) -> object:
    """(untyped storage, offset, size, stride, requires_grad, hooks, dtype[, lazy bits])."""
    storage, offset, size, stride, _, _, kind = args[:7]
    if type(storage) is not StorageRef:
        return without_storage(storage)
    name = torch_type_name(kind)
    dtype = DTYPES.get(name)
    if dtype is None or (dtype is DType.F4 and size == ()):  # two elements without a dimension to count them in
        return OddTensor(f"{name} {size_text(size)}")
    made = TensorRef(storage, dtype, size, stride, offset)
    return with_lazy_bits(made, args[7]) if len(args) > 7 else made


def without_storage(storage: object) -> object:
    if type(storage) is Opaque:
        return OddTensor(f"a tensor in what {storage.type_name} would have made")
    raise PickleFault("has a tensor without a storage")


def torch_type_name(kind: object) -> str:
    if type(kind) is not Global or kind.module != "torch":
        raise PickleFault("has a tensor of a type that torch does not have")
    return kind.name


def with_lazy_bits(tensor: TensorRef, bits: object) -> TensorRef:
    if isinstance(bits, dict):
        tensor.conjugate, tensor.negative = bits.get("conj") is True, bits.get("neg") is True
    if tensor.negative and tensor.dtype not in _NEGATED:
        raise PickleFault(f"has a negative view of {tensor.dtype.value}, which torch can't negate")
    return tensor


def rebuild_parameter(args: Args) -> object:
    return args[0]


def rebuild_from_type(args: Args) -> object:
    """(function, type, arguments, state): a tensor of a subclass. What no known function rebuilds stays an object."""
    function, kind, inner, state = args
    rebuild = function.known if type(function) is Global else None
    if rebuild in TENSOR_CALLS and rebuild is not None and type(inner) is tuple:
        return rebuild(inner)
    return Opaque(kind, (function, inner), state)


def rebuild_quantised(args: Args) -> object:
    storage, _, size = args[:3]
    name = storage.type_name.removesuffix("Storage") if type(storage) is StorageRef else "?"
    return OddTensor(f"quantised {name} {size_text(size)}")


def rebuild_sparse(args: Args) -> object:
    """(layout, (indices, values, size[, coalesced])), or with two index tensors for the compressed layouts."""
    layout, data = args
    position = 2 if layout == "torch.sparse_coo" else 3
    size = data[position] if type(data) is tuple and len(data) > position else None
    return OddTensor(f"sparse ({layout if type(layout) is str else 'unknown layout'}) {size_text(size)}")


def rebuild_without_data(args: Args) -> object:
    kind, size = args[:2]
    return OddTensor(f"without data, {torch_type_name(kind)} {size_text(size)}")


def rebuild_nested(args: Args) -> object:
    return OddTensor("nested")


def rebuild_wrapper(args: Args) -> object:
    kind, dtype, size = args[:3]
    name = kind.full_name if type(kind) is Global else "a subclass"
    return OddTensor(f"{name}, {torch_type_name(dtype)} {size_text(size)}")


def rebuild_from_array(args: Args) -> object:
    """(array or tensor, dtype, device, requires_grad): tensors of XLA and other devices; torch casts them to the dtype.

    Before torch 1.12 those of BF16 were arrays of F32 (torch/_tensor.py, `_reduce_ex_internal`).
    """
    data, kind = args[:2]
    wanted = DTYPES.get(torch_type_name(kind))
    if isinstance(data, ArrayRef):
        given, _ = element_type(data.type_text) or (None, False)
    elif isinstance(data, TensorRef):
        given = data.dtype
    else:
        return data
    return data if given and given is wanted else OddTensor(f"{describe(data)}, which becomes {torch_type_name(kind)} on loading")


def size_text(size: object) -> str:
    is_shape = type(size) is tuple and len(size) <= 64 and all(type(one) is int and abs(one) < 1 << 63 for one in size)
    return shape_text(size) if is_shape else "of an unknown shape"


def legacy_tensor(name: str) -> Call:
    """`torch.FloatTensor` of torch 0.2 and 0.3: its state follows."""
    dtype = STORAGE_TYPES[name.removesuffix("Tensor") + "Storage"]
    return lambda args: TensorRef(NOTHING, dtype, (), (), 0) if not args else NotImplemented


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
    from ckpt_tool.formats.pickle_opcodes import set_items

    for key, value in pairs:
        set_items(made, [key, value])
    return made


def default_dict(args: Args) -> object:
    return ObjectDict() if len(args) < 2 else ordered_dict(args[1:])


def encode(args: Args) -> object:
    """`_codecs.encode(text, 'latin1')`: how protocol 2 writes bytes."""
    content, codec = args
    return content.encode("latin-1") if type(content) is str and codec in ("latin1", "latin-1") else NotImplemented


def plain_bytes(args: Args) -> object:
    if not args:
        return b""
    if type(args[0]) is str:
        return encode(args)
    return args[0] if isinstance(args[0], bytes) and len(args) == 1 else NotImplemented


def bag(args: Args) -> object:
    members = args[0] if args else []
    return Bag(list(members)) if isinstance(members, list | tuple) else NotImplemented


def complex_number(args: Args) -> object:
    real, imaginary = args
    return complex(real, imaginary) if isinstance(real, int | float) and isinstance(imaginary, int | float) else NotImplemented


def first(args: Args) -> object:
    return args[0]


def storage_from_bytes(args: Args) -> object:
    """`torch.storage._load_from_bytes(stream)`: a storage that `pickle.dump` wrote. Another stream than torch's stays a call."""
    from ckpt_tool.formats.nested_storage import read_nested_storage

    found = read_nested_storage(args[0]) if isinstance(args[0], bytes) else None
    if found is None or found[0] not in _SIZES:
        return NotImplemented
    name, count, content = found
    dtype, itemsize = _SIZES[name]
    made = StorageRef("", name, dtype, itemsize, count, content=content)
    made.key = f"inside {id(made)}"
    return made if len(content) == count * itemsize else NotImplemented


def size(args: Args) -> object:
    return tuple(args[0]) if args and isinstance(args[0], list | tuple) else () if not args else NotImplemented


def device(args: Args) -> object:
    return ":".join(str(part)[:40] for part in args if isinstance(part, str | int))


def reconstruct(args: Args) -> object:
    """`copyreg._reconstructor(class, base, state)`: protocol 0 and 1's way to make an object of a class."""
    kind = args[0]
    return made if type(kind) is Global and kind.known and (made := kind.known(())) is not NotImplemented else Opaque(kind)


TENSOR_CALLS: tuple[Call, ...] = (
    rebuild_tensor, rebuild_tensor_v3, rebuild_parameter, rebuild_quantised, rebuild_sparse, rebuild_without_data, rebuild_nested,
    rebuild_wrapper,
)  # fmt: skip

COPYING: frozenset[Call | None] = frozenset((
    ordered_dict, default_dict, encode, plain_bytes, bag, size, storage_from_bytes, make_scalar, make_from_buffer,
))  # fmt: skip
"""Those that make something anew of all that they are given."""

KNOWN: dict[tuple[str, str], Call] = {
    ("torch._utils", "_rebuild_tensor"): rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v3"): rebuild_tensor_v3,
    ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): rebuild_parameter,
    ("torch.nn.parameter", "Parameter"): rebuild_parameter,
    ("torch.nn.parameter", "Buffer"): rebuild_parameter,
    ("torch.autograd.variable", "Variable"): rebuild_parameter,
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
        (_module, "set"): bag, (_module, "frozenset"): bag, (_module, "complex"): complex_number, (_module, "dict"): ordered_dict,
        (_module, "bytearray"): plain_bytes, (_module, "bytes"): plain_bytes,
    }  # fmt: skip
for _module in ("numpy.core", "numpy._core"):
    KNOWN |= {
        (f"{_module}.multiarray", "_reconstruct"): make_array, (f"{_module}.multiarray", "scalar"): make_scalar,
        (f"{_module}.numeric", "_frombuffer"): make_from_buffer,
    }  # fmt: skip
for _storage in STORAGE_TYPES:
    _tensor = _storage.removesuffix("Storage") + "Tensor"
    KNOWN |= {(_module, _tensor): legacy_tensor(_tensor) for _module in ("torch", "torch.cuda")}
