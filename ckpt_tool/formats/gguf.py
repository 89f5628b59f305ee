"""GGUF, versions 2 and 3: numbers and texts by name, then the tensors' names, sizes (fastest first), types and offsets."""

from __future__ import annotations

import struct
from math import prod
from struct import Struct

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.checkpoint import Contents, Extra
from ckpt_tool.formats.files import SourceFile, truncated
from ckpt_tool.formats.limits import HEADER_BYTES, TENSOR_BYTES
from ckpt_tool.formats.ordering import are_in_module_order
from ckpt_tool.formats.placement import Extent
from ckpt_tool.tensors import Catalog, DType, TensorInfo, nbytes_of, shape_text

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9
_TYPES = {0: DType.F32, 1: DType.F16, 24: DType.I8, 25: DType.I16, 26: DType.I32, 27: DType.I64, 28: DType.F64, 30: DType.BF16}
_QUANTISED = {
    2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K",
    15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS",
    29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip
"""ggml's types in blocks, by their numbers in ggml.h."""
NESTED_ARRAYS = 4
SHOWN = 8


class _Cursor:
    """A place in the header's bytes. Reading past their end raises FormatError."""

    def __init__(self, file: SourceFile) -> None:
        self.file, self.pos = file, 4
        self.raw = file.read(0, min(file.size, HEADER_BYTES))

    def number(self, code: str) -> int | float | bool:
        layout = Struct("<" + code)
        try:
            (value,) = layout.unpack_from(self.raw, self.pos)
        except struct.error:
            raise truncated(self.file.path, self.pos + layout.size, len(self.raw)) from None
        self.pos += layout.size
        return value  # type: ignore[no-any-return]

    def count(self, code: str = "Q", each: int = 1) -> int:
        """A number of things of which each takes at least `each` bytes of what is left."""
        value = int(self.number(code))
        if value * each > len(self.raw) - self.pos:
            left = len(self.raw) - self.pos
            raise FormatError(self.file.path, f"announces {value} things where {left} bytes are left", None, f"byte {self.pos}")
        return value

    def text(self) -> str:
        size = self.count()
        self.pos += size
        try:
            return self.raw[self.pos - size : self.pos].decode()
        except UnicodeDecodeError:
            raise FormatError(self.file.path, "has a text that is not UTF-8", None, f"byte {self.pos - size}") from None


def read(file: SourceFile, wanted: str) -> Contents:
    """Tensors of plain elements; those in quantised blocks are extras. Raises FormatError."""
    cursor = _Cursor(file)
    version = cursor.number("I")
    if version not in (2, 3):
        raise FormatError(file.path, f"is GGUF of version {version}; 2 and 3 are read")
    tensors, pairs = cursor.count(each=24), cursor.count(each=12)
    values = _read_values(cursor, pairs)
    alignment = values.get("general.alignment", 32)
    if type(alignment) is not int or not 8 <= alignment <= 1 << 20 or alignment % 8:
        raise FormatError(file.path, f"aligns its tensors to {alignment} bytes")
    headers = [_read_tensor(cursor) for _ in range(tensors)]
    start = -(-cursor.pos // alignment) * alignment
    return _contents(file, values, headers, start, alignment)


def _read_values(cursor: _Cursor, pairs: int) -> dict[str, object]:
    values: dict[str, object] = {}
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
        raise FormatError(cursor.file.path, f"has a value of the unknown type {kind}", None, f"byte {cursor.pos}")
    inner = int(cursor.number("I"))
    size = Struct(f"<{_SCALARS[inner]}").size if inner in _SCALARS else 8
    count = cursor.count(each=size)
    if inner not in _SCALARS:
        return _Array(count, [_read_value(cursor, inner, depth + 1) for _ in range(count)][:SHOWN])
    start = cursor.pos
    shown = [cursor.number(_SCALARS[inner]) for _ in range(min(count, SHOWN))]
    cursor.pos = start + count * size
    return _Array(count, shown)


class _Array:
    def __init__(self, count: int, first: list[object] | list[int | float | bool]) -> None:
        self.count, self.first = count, first

    def __str__(self) -> str:
        return f"{self.count} values: {', '.join(str(one)[:40] for one in self.first)}{', …' if self.count > len(self.first) else ''}"


Header = tuple[str, tuple[int, ...], int, int]


def _read_tensor(cursor: _Cursor) -> Header:
    name, rank = cursor.text(), int(cursor.number("I"))
    if rank > 4:
        raise FormatError(cursor.file.path, f"`{name[:100]}` has {rank} dimensions; GGUF has at most 4")
    sizes = tuple(int(cursor.number("Q")) for _ in range(rank))
    if prod(sizes) > TENSOR_BYTES:
        raise FormatError(cursor.file.path, f"`{name[:100]}` declares {prod(sizes)} elements")
    return name, sizes[::-1], int(cursor.number("I")), int(cursor.number("Q"))


def _contents(file: SourceFile, values: dict[str, object], headers: list[Header], start: int, alignment: int) -> Contents:
    infos: dict[str, TensorInfo] = {}
    placements: dict[str, Extent] = {}
    extras = []
    seen: set[str] = set()
    for name, shape, kind, offset in headers:
        if name in seen:
            raise FormatError(file.path, f"has the tensor `{name[:100]}` twice")
        seen.add(name)
        if offset % alignment:
            raise FormatError(file.path, f"`{name[:100]}` begins at byte {offset}, which is not aligned to {alignment}")
        if kind in _TYPES:
            infos[name] = TensorInfo(name, _TYPES[kind], shape)
            placements[name] = _extent(file, infos[name], start + offset)
        elif kind in _QUANTISED:
            extras.append(Extra(name, "tensor", f"quantised {_QUANTISED[kind]} {shape_text(shape)}"))
        else:
            raise FormatError(file.path, f"`{name[:100]}` has the unknown type {kind}")
    _check_overlaps(file, placements)
    metadata = {name: str(value)[:10_000] for name, value in values.items()}
    return Contents(Catalog(infos.values(), are_in_module_order(list(infos))), placements, metadata, extras=tuple(extras))


def _extent(file: SourceFile, info: TensorInfo, offset: int) -> Extent:
    size = nbytes_of(info.dtype, info.shape)
    if offset + size > file.size:
        raise truncated(file.path, offset + size, file.size)
    return Extent(file, offset, size)


def _check_overlaps(file: SourceFile, placements: dict[str, Extent]) -> None:
    end = 0
    for name, extent in sorted(placements.items(), key=lambda item: item[1].offset):
        if extent.length and extent.offset < end:
            raise FormatError(file.path, f"`{name[:100]}` lies over another tensor")
        end = max(end, extent.offset + extent.length)
