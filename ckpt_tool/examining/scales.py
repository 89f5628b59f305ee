"""The scales of quantised weights: none is negative, and none is zero but of a block of zeros."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

from ckpt_tool.examining.findings import Finding
from ckpt_tool.examining.statistics import Statistics
from ckpt_tool.tensors import Catalog, DType, TensorInfo

_BESIDE = re.compile(r"(?:.*[._])?(?:q?scales?|scale_inv|SCB|absmax)(?:_.*)?")
"""What a scale is called beside a quantised weight."""
_MAY_BE_ZERO = ("SCB", "absmax")
"""bitsandbytes keeps the largest number of a row or a block, which may have nothing but zeros."""
_PACKED = ("qweight", "weight_packed", "weight_quantized")


def scale_findings(catalog: Catalog, measured: Mapping[str, Statistics]) -> Iterator[Finding]:
    """Scales that are negative, or zero."""
    quantised = _modules_with_quantised(catalog)
    for key, info in catalog.items():
        module, _, leaf = key.rpartition(".")
        is_scale = _BESIDE.fullmatch(leaf) and module in quantised
        found = measured.get(key)
        if not is_scale or found is None or not info.dtype.is_floating or not found.elements:
            continue
        if found.least < 0:
            yield Finding("scale", key, f"a scale is negative: {found.least:.6g}")
        elif found.least == 0 and not leaf.endswith(_MAY_BE_ZERO):
            yield Finding("scale", key, "a scale is zero")


def _modules_with_quantised(catalog: Catalog) -> set[str]:
    modules: dict[str, list[TensorInfo]] = defaultdict(list)
    for key, info in catalog.items():
        modules[key.rpartition(".")[0]].append(info)
    return {module for module, infos in modules.items() if any(map(_is_quantised, infos))}


def _is_quantised(info: TensorInfo) -> bool:
    leaf = info.key.rpartition(".")[2]
    is_small = info.dtype.bits <= 8 and info.dtype is not DType.BOOL and len(info.shape) > 1
    return leaf in _PACKED or is_small
