"""A safetensors header as every writer writes it, read with one expression; any other is left to the strict reader."""

from __future__ import annotations

import re
from collections.abc import Iterable
from operator import sub

from ckpt_tool.formats.limits import DIMENSIONS, JSON_MARKS
from ckpt_tool.tensors import DType, Shape, TensorInfo

_NUMBER = r"(?:0|[1-9][0-9]{0,17})"
_TEXT = r'[^"\\\x00-\x1f]*'
_METADATA = re.compile(r'\{"__metadata__":(\{[^{}\\]*\})')
_TENSOR = re.compile(
    rf'"({_TEXT})":\{{"dtype":"([A-Z0-9_]+","shape":\[(?:{_NUMBER}(?:,{_NUMBER})*)?)\],'
    rf'"data_offsets":\[({_NUMBER}),({_NUMBER})\]\}}(?:,|\Z)|(.+)',
    re.DOTALL,
)
"""One tensor with the comma after it; whatever isn't one is taken by the last group, up to the end."""
MARKS_OF_A_TENSOR = 12
"""Commas, colons and brackets."""
TYPES = {dtype.value: dtype for dtype in DType if dtype not in (DType.C128, DType.C32)}

Tensors = tuple[list[TensorInfo], dict[str, tuple[int, int]]]


def read_plain(raw: bytes) -> tuple[str, Tensors] | None:
    """The text of the metadata, the tensors, and their first byte and the byte after the last; None for what isn't plain and right.

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
    found = _TENSOR.findall(text[start + 1 : -1])
    if found[-1][4]:
        return None
    keys, kinds, begins, ends, _ = zip(*found, strict=True)
    tensors = _tensors(keys, kinds, list(map(int, begins)), list(map(int, ends)))
    return (metadata[1] if metadata else "{}", tensors) if tensors else None


def _tensors(keys: Iterable[str], kinds: tuple[str, ...], begins: list[int], ends: list[int]) -> Tensors | None:
    known = {kind: found for kind in set(kinds) if (found := _kind(kind))}
    if len(known) < len(set(kinds)):
        return None
    each = [known[kind] for kind in kinds]
    if [size for _, _, size in each] != list(map(sub, ends, begins)):
        return None
    infos = [TensorInfo(key, dtype, shape) for key, (dtype, shape, _) in zip(keys, each, strict=True)]
    ranges = dict(zip(keys, zip(begins, ends, strict=True), strict=True))
    if len(ranges) != len(infos) or "__metadata__" in ranges:
        return None
    return infos, ranges


def _kind(text: str) -> tuple[DType, Shape, int] | None:
    """`F32","shape":[2,3` as element type, shape and bytes."""
    name, sizes = text.split('","shape":[')
    dtype, shape = TYPES.get(name), tuple(map(int, sizes.split(","))) if sizes else ()
    if dtype is None or len(shape) > DIMENSIONS:
        return None
    bits = dtype.bits
    for extent in shape:
        bits *= extent
    return None if bits % 8 else (dtype, shape, bits // 8)
