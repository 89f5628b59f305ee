"""The scales of quantised weights: none is negative, and none is zero but of a block of zeros."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

from ckpt_tool.examining.findings import Finding
from ckpt_tool.examining.statistics import Statistics
from ckpt_tool.tensors import Catalog, DType, TensorInfo

_BESIDE = re.compile(r"(?:(?P<of>.*)[._])?(?:q?scales?|SCB|absmax)(?:_inv|_?[0-9]+)?")
"""What a scale is called beside a quantised weight."""
_OF = ("weight", "input", "output", "act", "activation", "w", "q", "k", "v", "block", "kv")
"""What scales are of, where no tensor is called so. A `logit_scale` is a parameter like others."""
_MAY_BE_ZERO = ("SCB", "absmax")
"""bitsandbytes keeps the largest number of a row or a block, which may have nothing but zeros."""
_PACKED = ("qweight", "weight_packed", "weight_quantized")


def scale_findings(catalog: Catalog, measured: Mapping[str, Statistics]) -> Iterator[Finding]:
    """Scales that are negative, or zero."""
    quantised = _quantised_by_module(catalog)
    for key, info in catalog.items():
        module, _, leaf = key.rpartition(".")
        is_scale = _is_scale(leaf, quantised[module] - {leaf}) if module in quantised else False
        found = measured.get(key)
        if not is_scale or found is None or not info.dtype.is_floating or not found.elements:
            continue
        if found.least < 0:
            yield Finding("scale", key, f"a scale is negative: {found.least:.6g}")
        elif found.least == 0 and not leaf.endswith(_MAY_BE_ZERO):
            yield Finding("scale", key, "a scale is zero")


def is_scale_name(key: str) -> bool:
    """Whether a tensor is called as the scales of quantised weights are."""
    return _BESIDE.fullmatch(key.rpartition(".")[2]) is not None


def _is_scale(leaf: str, quantised: set[str]) -> bool:
    """Whether a tensor is the scale of a quantised one beside it."""
    named = _BESIDE.fullmatch(leaf)
    return bool(quantised and named and (named["of"] in (None, *_OF) or named["of"] in quantised))


def _quantised_by_module(catalog: Catalog) -> dict[str, set[str]]:
    """The names of quantised tensors in each module that has some."""
    modules: dict[str, set[str]] = defaultdict(set)
    for key, info in catalog.items():
        if _is_quantised(info):
            module, _, leaf = key.rpartition(".")
            modules[module].add(leaf)
    return modules


def _is_quantised(info: TensorInfo) -> bool:
    leaf = info.key.rpartition(".")[2]
    is_small = info.dtype.bits <= 8 and info.dtype is not DType.BOOL and len(info.shape) > 1
    return leaf in _PACKED or is_small
