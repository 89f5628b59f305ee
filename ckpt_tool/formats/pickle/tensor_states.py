"""What a pickle may do to a tensor that is made already: the states that torch's writers give, and
nothing that would change it.

torch lets a state replace a tensor's memory: `BUILD` on a tensor is `set_`, an attribute `data` or
`real` is assigned to. No writer of ours or torch's does so, but for torch 0.3's tensors, which are
made empty and then given their place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ckpt_tool.formats.pickle.values import Opaque, OpaqueTensor, PickleFault, StorageRef, TensorRef
from ckpt_tool.tensors import DType

_NEGATED = frozenset((
    DType.F64, DType.F32, DType.F16, DType.BF16, DType.C128, DType.C64, DType.C32, DType.I64,
    DType.I32, DType.I16, DType.I8, DType.U8,
))  # fmt: skip

DESCRIPTORS = frozenset((
    "H", "T", "_backward_hooks", "_base", "_cdata", "_grad", "_grad_fn",
    "_has_symbolic_sizes_strides", "_post_accumulate_grad_hooks",
    "_python_dispatch", "_version", "data", "device", "dtype", "grad", "grad_dtype", "grad_fn",
    "imag", "is_cpu", "is_cuda", "is_ipu",
    "is_leaf", "is_maia", "is_meta", "is_mkldnn", "is_mps", "is_mtia", "is_nested", "is_quantized",
    "is_sparse", "is_sparse_csr",
    "is_vulkan", "is_xla", "is_xpu", "itemsize", "layout", "mH", "mT", "name", "names", "nbytes",
    "ndim", "output_nr", "real",
    "requires_grad", "retains_grad", "shape", "volatile",
))  # fmt: skip
"""Attributes of torch.Tensor that are assigned to, not kept: setting one may change the tensor, or
is refused by torch.
"""


def check_gradient(dtype: DType, flag: object) -> None:
    """Raises PickleFault for a `requires_grad` that torch refuses for such a tensor."""
    if type(flag) is not bool:
        raise PickleFault("has a tensor whose `requires_grad` is neither True nor False")
    if flag and not (dtype.is_floating or dtype.is_complex):
        raise PickleFault(
            f"has a tensor of {dtype.value} that requires gradients, "
            "which torch has for real and complex numbers alone"
        )


def with_lazy_bits(tensor: TensorRef, bits: object) -> TensorRef:
    """torch's `conj` and `neg`. Whatever value they have in the file, torch sets them: it writes
    True alone.
    """
    if not bits:
        return tensor
    if not isinstance(bits, dict) or not all(
        name in ("conj", "neg") and bit is True for name, bit in bits.items()
    ):
        raise PickleFault("marks a tensor as torch never does")
    tensor.conjugate, tensor.negative = "conj" in bits, "neg" in bits
    if tensor.negative and tensor.dtype not in _NEGATED:
        raise PickleFault(f"has a negative view of {tensor.dtype.value}, which torch can't negate")
    if tensor.conjugate and not tensor.dtype.is_complex:
        raise PickleFault(
            f"has a conjugate view of {tensor.dtype.value}, which is not a complex number"
        )
    return tensor


def as_parameter(data: object, flag: object) -> object:
    """The Parameter of a tensor: another object on the same memory. What an unknown call would have
    made stays what it is.
    """
    if type(data) is TensorRef:
        check_gradient(data.dtype, flag)
        # dataclasses.replace takes a microsecond more, and models have many parameters.
        return TensorRef(
            data.storage,
            data.dtype,
            data.shape,
            data.stride,
            data.offset,
            data.conjugate,
            data.negative,
            "flags",
        )
    if type(data) is OpaqueTensor:
        return replace(data, takes="flags")
    if type(data) is not Opaque:
        raise PickleFault("makes a Parameter of what is not a tensor")
    return data


def with_attributes(made: object, state: object) -> object:
    """The tensor with Python attributes, as `torch._utils._set_obj_state` gives them. Raises
    PickleFault for those that would change it.
    """
    if type(state) is tuple and len(state) != 2:
        raise PickleFault("gives a tensor a state that torch never writes")
    given = tuple(_attribute_dicts(state))
    if type(made) is not TensorRef or not given:
        return made
    return replace(made, attributes=(*made.attributes, *given))


def _attribute_dicts(state: object) -> Iterator[dict[object, object]]:
    """The parts of a state that are not empty. Raises PickleFault for what no tensor may have."""
    for part in state if type(state) is tuple else (state,):
        if not part:
            continue
        if not isinstance(part, dict):
            raise PickleFault("gives a tensor a state that torch never writes")
        for name in part:
            check_attribute(name)
        yield part


def has_plain_attributes(state: object) -> bool:
    """Whether a state is nothing but attributes that are numbers and texts."""
    parts = state if type(state) is tuple and len(state) == 2 else (state,)
    return all(
        not part
        or (
            isinstance(part, dict)
            and all(type(name) is str and _is_plain(name, value) for name, value in part.items())
        )
        for part in parts
    )


def _is_plain(name: str, value: object) -> bool:
    return (
        name not in DESCRIPTORS
        and not name.startswith("__")
        and isinstance(value, str | bytes | int | float | bool | None)
    )


def check_attribute(name: object) -> None:
    """Raises PickleFault for an attribute that would change a tensor."""
    if type(name) is not str or name in DESCRIPTORS or name.startswith("__"):
        shown = f"`{name[:60]}`" if type(name) is str else "that is not a string"
        raise PickleFault(f"gives a tensor an attribute {shown}, which would change it or fail")


def give_tensor_state(target: TensorRef | OpaqueTensor, state: object) -> None:
    """What BUILD does to a tensor. Raises PickleFault for all that torch's writers don't do."""
    if target.takes == "flags" and _are_flags(target, state):
        return
    if target.takes != "place" or type(target) is not TensorRef:
        raise PickleFault("gives a tensor a state, which would change it")
    _give_place(target, state)


def _are_flags(target: TensorRef | OpaqueTensor, state: object) -> bool:
    """torch 0.3's state of a Variable: (requires_grad, volatile, hooks)."""
    if type(state) is not tuple or len(state) != 3:
        return False
    if type(target) is TensorRef:
        check_gradient(target.dtype, state[0])
    return True


def _give_place(target: TensorRef, state: object) -> None:
    """torch 0.2's and 0.3's state of a tensor that was made empty: (storage, offset,
    size, stride).
    """
    if (
        type(state) is not tuple
        or len(state) != 4
        or type(state[0]) is not StorageRef
        or state[0].dtype is not target.dtype
    ):
        raise PickleFault("gives a tensor a place in a storage as torch never does")
    target.storage, target.offset, target.shape, target.stride = state
    target.takes = ""
