"""Which names a pickle of a checkpoint may ask for: torch's, numpy's and Python's that make or
describe tensors. All others are reported.
"""

from __future__ import annotations

from ckpt_tool.formats.pickle.arrays import EXTENSIONS
from ckpt_tool.formats.pickle.calls.table import KNOWN
from ckpt_tool.formats.pickle.storages import STORAGE_MODULES, STORAGE_SIZES
from ckpt_tool.formats.pickle.values import Global
from ckpt_tool.torch_bridge import DTYPES

_TORCH = frozenset((
    *DTYPES, *(f"{sign}int{bits}" for sign in ("", "u") for bits in range(1, 8)), "bits1x8",
    "bits2x4", "bits4x2", "bits8", "bits16",
    "float", "double", "half", "cfloat", "cdouble", "long", "int", "short", "complex32",
    "qint8", "quint8", "qint32", "quint4x2", "quint2x4", "per_tensor_affine",
    "per_tensor_symmetric", "per_channel_affine",
    "per_channel_symmetric", "per_channel_affine_float_qparams",
))  # fmt: skip
"""Element types and quantisation schemes of the module torch."""
_NUMPY = frozenset((
    "ndarray", "float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64",
    "uint32", "uint16", "uint8", "bool_",
    "complex64", "complex128", "str_", "bytes_", "void", "longlong", "ulonglong",
))  # fmt: skip
_PLACEMENTS = ("Shard", "_StridedShard", "Replicate", "Partial", "_Partial")
_DISTRIBUTED = frozenset((
    "device_mesh.DeviceMesh", "tensor.DTensor", "tensor._api.DTensor", "_tensor.api.DTensor",
    "_tensor.DTensor",
    "tensor._dtensor_spec.DTensorSpec", "tensor._dtensor_spec.TensorMeta",
    "tensor._dtensor_spec.ShardOrderEntry",
    "_tensor.placement_types.DTensorSpec", "_tensor.placement_types.TensorMeta",
    "_mesh_layout._MeshLayout", "_mesh_layout._FlatLayout",
    *(f"{place}.placement_types.{name}" for place in ("tensor", "_tensor") for name in _PLACEMENTS),
))  # fmt: skip
"""What a DTensor is made of, in the package torch.distributed: torch's own list for `weights_only`
has them too.
"""


def is_listed(name: Global) -> bool:
    """Whether unpickling may import it without a report."""
    module = name.module
    if (module, name.name) in KNOWN:
        return True
    if module in STORAGE_MODULES and name.name in STORAGE_SIZES:
        return True
    if module == "torch":
        return name.name in _TORCH
    if module.startswith("torch.distributed."):
        return is_part_of_dtensor(name)
    if module in EXTENSIONS:
        return name.name.isidentifier()
    return (module == "numpy" and name.name in _NUMPY) or (
        module == "numpy.dtypes" and name.name.isidentifier()
    )


def is_part_of_dtensor(name: object) -> bool:
    """Whether this is a class whose objects describe a DTensor: making one is nothing to
    report.
    """
    if type(name) is not Global or not name.module.startswith("torch.distributed."):
        return False
    return f"{name.module.removeprefix('torch.distributed.')}.{name.name}" in _DISTRIBUTED
