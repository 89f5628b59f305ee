"""GGUF, versions 2 and 3: numbers and texts by name, then the tensors' names, sizes (fastest
first), types and offsets.
"""

from __future__ import annotations

import struct
from math import prod
from struct import Struct

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.checkpoint import Contents, Extra
from ckpt_tool.formats.files import SourceFile, truncated
from ckpt_tool.formats.key_order import are_in_module_order
from ckpt_tool.formats.limits import (
    GGUF_PAIRS,
    GGUF_TENSORS,
    GGUF_VALUES,
    HEADER_BYTES,
    TENSOR_BYTES,
)
from ckpt_tool.formats.placements.byte_ranges import Extent
from ckpt_tool.tensors import Catalog, DType, TensorInfo, UnreadableTensor, nbytes_of, shape_text

_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_LAYOUTS = {code: Struct("<" + code) for code in "BbHhIif?Qqd"}
_TEXT, _ARRAY = 8, 9
_TYPES = {
    0: DType.F32,
    1: DType.F16,
    24: DType.I8,
    25: DType.I16,
    26: DType.I32,
    27: DType.I64,
    28: DType.F64,
    30: DType.BF16,
}
_QUANTISED = {
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 36),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    29: ("IQ1_M", 256, 56),
    31: ("Q4_0_4_4", 32, 18),
    32: ("Q4_0_4_8", 32, 18),
    33: ("Q4_0_8_8", 32, 18),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    36: ("IQ4_NL_4_4", 32, 18),
    37: ("IQ4_NL_4_8", 32, 18),
    38: ("IQ4_NL_8_8", 32, 18),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
}
"""ggml's types in blocks, by their numbers in ggml.h: their names, the elements and the bytes of a
block.
"""
NESTED_ARRAYS = 4
SHOWN = 8


class _Cursor:
    """A place in the header's bytes. Reading past their end raises FormatError."""

    def __init__(self, file: SourceFile, length: int) -> None:
        self.file, self.pos, self.values = file, 4, 0
        self.raw = file.read(0, length)

    def number(self, code: str) -> int | float | bool:
        layout = _LAYOUTS[code]
        try:
            (value,) = layout.unpack_from(self.raw, self.pos)
        except struct.error:
            raise truncated(self.file.path, self.pos + layout.size, len(self.raw)) from None
        self.pos += layout.size
        return value  # type: ignore[no-any-return]

    def count(self, code: str = "Q", each: int = 1) -> int:
        """A number of things of which each takes at least `each` bytes of what is left."""
        value = int(self.number(code))
        left = len(self.raw) - self.pos
        if left < value * each <= HEADER_BYTES:
            raise truncated(self.file.path, self.pos + value * each, len(self.raw))
        if value * each > left:
            raise FormatError(
                self.file.path,
                f"announces {value} things where {left} bytes are left",
                None,
                f"byte {self.pos}",
            )
        return value

    def count_values(self, more: int) -> None:
        """Raises FormatError where the header has more values than are read."""
        self.values += more
        if self.values > GGUF_VALUES:
            raise FormatError(self.file.path, f"has more than {GGUF_VALUES} values in its header")

    def text(self) -> str:
        size = self.count()
        self.pos += size
        try:
            return self.raw[self.pos - size : self.pos].decode()
        except UnicodeDecodeError:
            raise FormatError(
                self.file.path, "has a text that is not UTF-8", None, f"byte {self.pos - size}"
            ) from None


def read(file: SourceFile, wanted: str) -> Contents:
    """Tensors of plain elements; those in quantised blocks are extras. Raises FormatError."""
    longest = min(file.size, HEADER_BYTES)
    length = min(longest, file.at_hand(0))
    while length < longest:  # of a file that isn't here longer and longer parts are tried
        try:
            return _read(_Cursor(file, length))
        except FormatError:
            length = min(longest, 8 * length)
    return _read(_Cursor(file, length))


def _read(cursor: _Cursor) -> Contents:
    file = cursor.file
    version = int(cursor.number("I"))
    if version in (2 << 24, 3 << 24):
        raise FormatError(
            file.path, "is GGUF for machines whose numbers are big-endian, which is not read"
        )
    if version not in (2, 3):
        raise FormatError(file.path, f"is GGUF of version {version}; 2 and 3 are read")
    tensors, pairs = cursor.count(each=24), cursor.count(each=12)
    values = _read_values(cursor, pairs)
    alignment = values.get("general.alignment", 32)
    if type(alignment) is not int or not 8 <= alignment <= 1 << 20 or alignment % 8:
        raise FormatError(file.path, f"aligns its tensors to {alignment} bytes")
    if tensors > GGUF_TENSORS:
        raise FormatError(file.path, f"has {tensors} tensors; at most {GGUF_TENSORS} are read")
    headers = [_read_tensor(cursor) for _ in range(tensors)]
    start = -(-cursor.pos // alignment) * alignment
    return _contents(file, values, headers, start, alignment)


def _read_values(cursor: _Cursor, pairs: int) -> dict[str, object]:
    values: dict[str, object] = {}
    if pairs > GGUF_PAIRS:
        raise FormatError(
            cursor.file.path, f"has {pairs} values by name; at most {GGUF_PAIRS} are read"
        )
    for _ in range(pairs):
        name = cursor.text()
        if name in values:
            raise FormatError(cursor.file.path, f"has `{name[:100]}` twice")
        values[name] = _read_value(cursor, int(cursor.number("I")), 0)
    return values


def _read_value(cursor: _Cursor, kind: int, depth: int) -> object:
    """A number, a text, or of an array its length and first members."""
    if kind == _TEXT:
        return cursor.text()
    if kind in _SCALARS:
        return cursor.number(_SCALARS[kind])
    if kind != _ARRAY or depth > NESTED_ARRAYS:
        raise FormatError(
            cursor.file.path, f"has a value of the unknown type {kind}", None, f"byte {cursor.pos}"
        )
    inner = int(cursor.number("I"))
    size = _LAYOUTS[_SCALARS[inner]].size if inner in _SCALARS else 8
    count = cursor.count(each=size)
    if inner not in _SCALARS:
        cursor.count_values(count)
        return _Array(count, [_read_value(cursor, inner, depth + 1) for _ in range(count)][:SHOWN])
    start = cursor.pos
    shown = [cursor.number(_SCALARS[inner]) for _ in range(min(count, SHOWN))]
    cursor.pos = start + count * size
    return _Array(count, shown)


class _Array:
    def __init__(self, count: int, first: list[object] | list[int | float | bool]) -> None:
        self.count, self.first = count, first

    def __str__(self) -> str:
        first = ", ".join(str(one)[:40] for one in self.first)
        more = ", …" if self.count > len(self.first) else ""
        return f"{self.count} values: {first}{more}"


Header = tuple[str, tuple[int, ...], int, int]


def _read_tensor(cursor: _Cursor) -> Header:
    name, rank = cursor.text(), int(cursor.number("I"))
    if rank > 4:
        raise FormatError(
            cursor.file.path, f"`{name[:100]}` has {rank} dimensions; GGUF has at most 4"
        )
    sizes = tuple(int(cursor.number("Q")) for _ in range(rank))
    if prod(sizes) > TENSOR_BYTES:
        raise FormatError(cursor.file.path, f"`{name[:100]}` declares {prod(sizes)} elements")
    return name, sizes[::-1], int(cursor.number("I")), int(cursor.number("Q"))


def _contents(
    file: SourceFile, values: dict[str, object], headers: list[Header], start: int, alignment: int
) -> Contents:
    infos: list[TensorInfo] = []
    extents: dict[str, Extent] = {}
    unreadable: list[UnreadableTensor] = []
    for name, shape, kind, offset in headers:
        if name in extents:
            raise FormatError(file.path, f"has the tensor `{name[:100]}` twice")
        if offset % alignment:
            raise FormatError(
                file.path,
                f"`{name[:100]}` begins at byte {offset}, which is not aligned to {alignment}",
            )
        if kind in _TYPES:
            infos.append(TensorInfo(name, _TYPES[kind], shape))
            size = nbytes_of(_TYPES[kind], shape)
        else:
            size = _size_in_blocks(file, name, shape, kind)
            unreadable.append(
                UnreadableTensor(
                    name, "quantised", shape, f"quantised {_QUANTISED[kind][0]} {shape_text(shape)}"
                )
            )
        extents[name] = _extent(file, size, start + offset)
    _check_overlaps(file, extents)
    placements = {info.key: extents[info.key] for info in infos}
    metadata = {name: str(value)[:10_000] for name, value in values.items()}
    extras = tuple(Extra(tensor.key, "tensor", tensor.text) for tensor in unreadable)
    return Contents(
        Catalog(infos, are_in_module_order(list(placements)), unreadable),
        placements,
        metadata,
        extras=extras,
    )


def _size_in_blocks(file: SourceFile, name: str, shape: tuple[int, ...], kind: int) -> int:
    """The bytes of a quantised tensor, whose rows are whole blocks."""
    if kind not in _QUANTISED:
        raise FormatError(file.path, f"`{name[:100]}` has the unknown type {kind}")
    text, elements, size = _QUANTISED[kind]
    if not shape or shape[-1] % elements:
        raise FormatError(
            file.path,
            f"`{name[:100]}` is {text} {shape_text(shape)}, whose rows are not blocks of "
            f"{elements}",
        )
    return prod(shape) // elements * size


def _extent(file: SourceFile, size: int, offset: int) -> Extent:
    if offset + size > file.size:
        raise truncated(file.path, offset + size, file.size)
    return Extent(file, offset, size)


def _check_overlaps(file: SourceFile, extents: dict[str, Extent]) -> None:
    end = 0
    for name, extent in sorted(extents.items(), key=lambda item: item[1].offset):
        if extent.length and extent.offset < end:
            raise FormatError(file.path, f"`{name[:100]}` overlaps another tensor")
        end = max(end, extent.offset + extent.length)
