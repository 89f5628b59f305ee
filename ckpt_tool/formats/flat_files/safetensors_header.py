"""A safetensors header as every writer writes it, read with one expression; any other is left to
the strict reader.
"""

from __future__ import annotations

import re
from math import prod
from operator import sub

from ckpt_tool.formats.limits import DIMENSIONS, JSON_MARKS
from ckpt_tool.tensors import DType, Shape, TensorInfo

_METADATA = re.compile(r'\{"__metadata__":(\{[^{}\\]*\})')
_TENSOR = re.compile(
    r'"([^"\\\x00-\x1f]*)":\{"dtype":"([A-Z0-9_]+","shape":\[[0-9,]*)\],"data_offsets":\[([0-9]{1,18}),([0-9]{1,18})\]\}(?:,|\Z)'
)
"""One tensor with the comma after it."""
_KIND = re.compile(r'([A-Z0-9_]+)","shape":\[((?:0|[1-9][0-9]{0,17})(?:,(?:0|[1-9][0-9]{0,17}))*)?')
MARKS_OF_A_TENSOR = 12
"""Commas, colons and brackets."""
MAX_BEFORE_ZERO = 1 << 60
"""Elements of a tensor that has none, but for a size of 0."""
TYPES = {dtype.value: dtype for dtype in DType if dtype not in (DType.C128, DType.C32)}

MeasuredTensors = tuple[list[TensorInfo], dict[str, tuple[int, int]]]


def read_plain(raw: bytes) -> tuple[str, MeasuredTensors] | None:
    """The text of the metadata, the tensors, and their first byte and the byte after the last; None
    for what isn't plain and right.

    What is wrong with a header is for the strict reader to say: here all must fit.
    """
    if raw.count(b"{") * MARKS_OF_A_TENSOR > JSON_MARKS:
        return None
    try:
        text = raw.decode().rstrip(" ")
    except UnicodeDecodeError:
        return None
    metadata = _METADATA.match(text)
    start = metadata.end() if metadata else 0
    if text[start : start + 1] != (",{"[not metadata]) or not text.endswith("]}}"):
        return None
    parts = _TENSOR.split(text[start + 1 : -1])
    if any(parts[::5]):  # what lies between two tensors
        return None
    tensors = _tensors(parts[1::5], parts[2::5], parts[3::5], parts[4::5])
    return (metadata[1] if metadata else "{}", tensors) if tensors else None


def _tensors(
    keys: list[str], kinds: list[str], begins: list[str], ends: list[str]
) -> MeasuredTensors | None:
    known = _known_kinds(set(kinds))
    if known is None or _has_leading_zero(begins) or _has_leading_zero(ends):
        return None
    each = [known[kind] for kind in kinds]
    firsts, lasts = list(map(int, begins)), list(map(int, ends))
    if [size for _, _, size in each] != list(map(sub, lasts, firsts)):
        return None
    ranges = dict(zip(keys, zip(firsts, lasts, strict=True), strict=True))
    if len(ranges) != len(keys) or "__metadata__" in ranges:
        return None
    return _infos(keys, each), ranges


def _known_kinds(kinds: set[str]) -> dict[str, tuple[DType, Shape, int]] | None:
    """What each kind means; None where one means nothing."""
    known = {kind: found for kind in kinds if (found := _kind(kind))}
    return known if len(known) == len(kinds) else None


def _infos(keys: list[str], kinds: list[tuple[DType, Shape, int]]) -> list[TensorInfo]:
    return [
        TensorInfo(key, dtype, shape) for key, (dtype, shape, _) in zip(keys, kinds, strict=True)
    ]


def _has_leading_zero(numbers: list[str]) -> bool:
    return "0" in {number[0] for number in numbers} and any(
        number[0] == "0" != number for number in numbers
    )


def _kind(text: str) -> tuple[DType, Shape, int] | None:
    """`F32","shape":[2,3` as element type, shape and bytes."""
    found = _KIND.fullmatch(text)
    if found is None or (dtype := TYPES.get(found[1])) is None:
        return None
    shape = tuple(map(int, found[2].split(","))) if found[2] else ()
    bits = dtype.bits
    for extent in shape:
        bits *= extent
    is_odd = (
        bits % 8
        or len(shape) > DIMENSIONS
        or (not bits and prod(filter(None, shape)) >= MAX_BEFORE_ZERO)
    )
    return None if is_odd else (dtype, shape, bits // 8)
