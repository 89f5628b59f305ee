"""safetensors: 8 bytes of header length, a JSON header, then the tensors' bytes, tiling the rest of
the file exactly.

The facts are those of the format's README and of its reference reader, `tensor.rs`; where the two
differ, the stricter one counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.checkpoint import Contents
from ckpt_tool.formats.files import AGAIN, SourceFile, truncated
from ckpt_tool.formats.flat_files.safetensors_header import TYPES, MeasuredTensors, read_plain
from ckpt_tool.formats.key_order import is_writer_order
from ckpt_tool.formats.limits import DIMENSIONS, HEADER_BYTES
from ckpt_tool.formats.placements.byte_ranges import Extent
from ckpt_tool.formats.strict_json import JsonFault, parse_json
from ckpt_tool.tensors import Catalog, DType, TensorInfo

_BITS = {dtype: dtype.bits for dtype in DType}
MAX_NUMBER = 1 << 63


class HeaderFault(ValueError):
    """What is wrong with a header, and what to do."""

    def __init__(self, fact: str, hint: str | None = AGAIN) -> None:
        super().__init__(fact)
        self.fact, self.hint = fact, hint


@dataclass(frozen=True, slots=True)
class Header:
    """A header that was read: `ranges` are first byte and byte after the last, by key, counted from
    the end of the header.
    """

    catalog: Catalog
    ranges: Mapping[str, tuple[int, int]]
    metadata: Mapping[str, str]
    end: int


class Extents(Mapping[str, Extent]):
    """Where the tensors of one file lie; an extent is made when it is asked for."""

    __slots__ = ("_file", "_ranges", "_start")

    def __init__(self, file: SourceFile, start: int, ranges: Mapping[str, tuple[int, int]]) -> None:
        self._file, self._start, self._ranges = file, start, ranges

    def __getitem__(self, key: str) -> Extent:
        begin, end = self._ranges[key]
        return Extent(self._file, self._start + begin, end - begin)

    def __iter__(self) -> Iterator[str]:
        return iter(self._ranges)

    def __len__(self) -> int:
        return len(self._ranges)


@dataclass(frozen=True, slots=True)
class ReadHeader:
    """The bytes of a header with what they describe, kept with the open checkpoint: two checkpoints
    of one model often have the same.
    """

    raw: bytes
    header: Header


def read(file: SourceFile, wanted: str = "", earlier: object = None) -> Contents:
    """Raises FormatError for whatever the format forbids: names twice, holes, overlaps, bytes that
    belong to no tensor.

    `earlier` is the `kept` of another file's contents: the same header is not read again.
    """
    length = int.from_bytes(file.read(0, 8), "little")
    if length > HEADER_BYTES:
        raise FormatError(
            file.path, f"declares a header of {length} bytes; at most {HEADER_BYTES} are allowed"
        )
    raw = file.read(8, length)
    if isinstance(earlier, ReadHeader) and earlier.raw == raw:
        header = earlier.header
    else:
        header = _read_header_of(file, raw)
    start, size = 8 + length, file.size - 8 - length
    if header.end > size:
        raise truncated(file.path, start + header.end, file.size)
    if header.end < size:
        raise FormatError(file.path, f"has {size - header.end} bytes after its last tensor")
    extents = Extents(file, start, header.ranges)
    return Contents(header.catalog, extents, header.metadata, kept=ReadHeader(raw, header))


def _read_header_of(file: SourceFile, raw: bytes) -> Header:
    try:
        return read_header(raw)
    except HeaderFault as fault:
        raise FormatError(file.path, fault.fact, fault.hint) from None


def read_header(raw: bytes) -> Header:
    """What a header describes. Raises HeaderFault."""
    if raw[:1] != b"{":
        raise HeaderFault("its header does not begin with `{`", "is it a safetensors file?")
    try:
        metadata, (infos, ranges) = _read_plain(raw) or _read_strictly(raw)
    except JsonFault as fault:
        raise HeaderFault(f"its header {fault}") from None
    return Header(
        Catalog(infos, not is_writer_order(infos)), ranges, metadata, _check_tiling(ranges)
    )


def _read_plain(raw: bytes) -> tuple[dict[str, str], MeasuredTensors] | None:
    found = read_plain(raw)
    return (_metadata(parse_json(found[0].encode())), found[1]) if found else None


def _read_strictly(raw: bytes) -> tuple[dict[str, str], MeasuredTensors]:
    fields = parse_json(raw)
    if not isinstance(fields, dict):
        raise HeaderFault("its header is no JSON object", None)
    metadata = _metadata(fields.pop("__metadata__", None))
    infos, ranges = [], {}
    for key, entry in fields.items():
        info, ranges[key] = _entry(key, entry)
        infos.append(info)
    return metadata, (infos, ranges)


def _metadata(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise HeaderFault("its `__metadata__` is not a mapping of strings to strings", None)
    return value


def _entry(key: str, fields: object) -> tuple[TensorInfo, tuple[int, int]]:
    """A tensor with its first byte and the byte after its last."""
    if not isinstance(fields, dict):
        raise _fault(key, "is no JSON object")
    try:
        dtype, shape, offsets = TYPES[fields["dtype"]], fields["shape"], fields["data_offsets"]
    except (KeyError, TypeError):
        raise _fault(key, f"has no {_missing(fields)}") from None
    if not _are_counts(shape) or len(shape) > DIMENSIONS:
        raise _fault(key, f"has a shape that is not a list of at most {DIMENSIONS} sizes")
    if not _are_counts(offsets) or len(offsets) != 2:
        raise _fault(key, "has `data_offsets` that are not two numbers")
    begin, end = offsets
    _check_bits(key, dtype, shape, end - begin)
    return TensorInfo(key, dtype, tuple(shape)), (begin, end)


def _check_bits(key: str, dtype: DType, shape: list[int], nbytes: int) -> None:
    """Raises HeaderFault where a tensor has another number of bytes than it needs."""
    bits = _BITS[dtype]
    for extent in shape:
        bits *= extent
    if not bits and _overflows(shape):
        raise _fault(key, f"has 2**64 elements or more before a size of 0: {shape[:8]}")
    if bits % 8 or nbytes != bits // 8:
        raise _fault(
            key, f"has {nbytes} bytes where {dtype.value} {shape[:8]} needs {bits / 8:.14g}"
        )


def _overflows(shape: list[int]) -> bool:
    """Whether the count of elements passes 64 bits on the way to 0, where other readers stop."""
    count = 1
    for extent in shape:
        count *= extent
        if count >= 1 << 64:
            return True
    return False


def _are_counts(value: object) -> bool:
    if type(value) is not list:
        return False
    for number in value:  # noqa: SIM110, a generator would take twice the time
        if type(number) is not int or not 0 <= number < MAX_NUMBER:
            return False
    return True


def _missing(fields: dict[str, object]) -> str:
    absent = [name for name in ("dtype", "shape", "data_offsets") if name not in fields]
    return f"`{absent[0]}`" if absent else f"known dtype: {str(fields['dtype'])[:40]!r}"


def _check_tiling(ranges: Mapping[str, tuple[int, int]]) -> int:
    """Tensors must cover every byte after the header once, so that a file can't hide anything
    between them; where the last ends.
    """
    in_order = list(ranges.values())
    ends = [0, *(end for _, end in in_order)]
    if [begin for begin, _ in in_order] == ends[:-1]:
        return ends[-1]
    before = 0
    for begin, end, key in sorted([(begin, end, key) for key, (begin, end) in ranges.items()]):
        if begin != before:
            raise _fault(key, f"begins at byte {begin}, but the tensor before it ends at {before}")
        before = end
    return before


def _fault(key: str, fact: str) -> HeaderFault:
    return HeaderFault(f"`{key[:200]}` {fact}")
