"""All known calls by module and name, and what each makes. Nothing here calls what it names."""

from __future__ import annotations

from collections.abc import Callable

from ckpt_tool.formats.pickle.arrays import (
    make_array,
    make_from_buffer,
    make_scalar,
    make_type,
)
from ckpt_tool.formats.pickle.calls.containers import (
    bag,
    complex_number,
    default_dict,
    device,
    encode,
    first,
    ordered_dict,
    plain_bytes,
    reconstruct,
    size,
)
from ckpt_tool.formats.pickle.calls.tensors import (
    any_tensor,
    legacy_tensor,
    parameter,
    rebuild_from_array,
    rebuild_from_type,
    rebuild_parameter,
    rebuild_parameter_with_state,
    rebuild_tensor,
    rebuild_tensor_v2,
    rebuild_tensor_v3,
    variable,
)
from ckpt_tool.formats.pickle.storages import STORAGE_TYPES, storage_from_bytes
from ckpt_tool.formats.pickle.unreadable import (
    rebuild_nested,
    rebuild_quantised,
    rebuild_sparse,
    rebuild_unset,
    rebuild_without_data,
    rebuild_wrapper,
)

Call = Callable[[tuple[object, ...]], object]
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
