"""Whether a checkpoint's keys stand in the order of its modules, or were sorted by the writer."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

from ckpt_tool.tensors import DType, TensorInfo

_WRITER_RANKS = {
    name: rank
    for rank, name in enumerate((
        "BOOL", "F4", "F6_E2M3", "F6_E3M2", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0",
        "F8_E4M3FNUZ", "F8_E5M2FNUZ",
        "I16", "U16", "F16", "BF16", "I32", "U32", "F32", "C64", "F64", "I64", "U64",
    ))
}  # fmt: skip
"""The element types as safetensors' `Dtype` enumerates them; its writer puts the last ones first,
then sorts by name.
"""


def are_in_module_order(keys: Sequence[str]) -> bool:
    """False where keys are sorted as text and some `x.bias` stands right before `x.weight`, which
    modules never do.
    """
    if not is_sorted(keys):
        return True
    return not any(
        (a == "bias" or a.endswith(".bias")) and b == f"{a[:-4]}weight" for a, b in pairwise(keys)
    )


def are_declared_so(tensors: Sequence[TensorInfo], modules: Iterable[str]) -> bool:
    """Whether keys that are sorted stand so since the modules do: torch notes these in a state dict
    (`_metadata`), in their order, and who sorts it into another dict loses that.
    """
    known = list(modules)
    if (
        not known
        or not is_writer_order(tensors)
        or not are_in_module_order([t.key for t in tensors])
    ):
        return False
    owners = list(dict.fromkeys(tensor.key.rpartition(".")[0] for tensor in tensors))
    wanted = set(owners)
    return [name for name in known if name in wanted] == owners


def is_writer_order(tensors: Sequence[TensorInfo]) -> bool:
    """Whether two or more tensors stand as safetensors' writer sorts them, or sorted by name."""
    if len(tensors) < 2:
        return False
    keys = [tensor.key for tensor in tensors]
    return is_sorted(keys) or is_sorted([(-_rank(tensor.dtype), tensor.key) for tensor in tensors])


def is_sorted(values: Sequence[str] | Sequence[tuple[int, str]]) -> bool:
    """Whether no value is below the one before it."""
    return all(a <= b for a, b in pairwise(values))  # type: ignore[operator]


def _rank(dtype: DType) -> int:
    return _WRITER_RANKS.get(dtype.value, -1)
