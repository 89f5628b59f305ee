"""safetensors: 8 bytes of header length, a JSON header, then the tensors' bytes, tiling the rest of the file exactly.

The facts are those of the format's README and of its reference reader, `tensor.rs`; where the two differ, the stricter one counts.
"""

from __future__ import annotations

from itertools import pairwise
from math import prod

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.checkpoint import Contents
from ckpt_tool.formats.files import AGAIN, SourceFile, truncated
from ckpt_tool.formats.limits import DIMENSIONS, HEADER_BYTES
from ckpt_tool.formats.ordering import is_writer_order
from ckpt_tool.formats.placement import Extent
from ckpt_tool.formats.strict_json import JsonFault, parse_json
from ckpt_tool.tensors import Catalog, DType, TensorInfo

_TYPES = {dtype.value: dtype for dtype in DType if dtype not in (DType.C128, DType.C32)}
MOST = 1 << 63
Entry = tuple[TensorInfo, int, int]


def read(file: SourceFile, wanted: str = "") -> Contents:
    """Raises FormatError for whatever the format forbids: names twice, holes, overlaps, bytes that belong to no tensor."""
    header, start = _read_header(file)
    metadata = _metadata(file, header.pop("__metadata__", None))
    entries = [_entry(file, key, fields) for key, fields in header.items()]
    _check_tiling(file, entries, start)
    infos = [info for info, _, _ in entries]
    placements = {info.key: Extent(file, start + begin, end - begin) for info, begin, end in entries}
    return Contents(Catalog(infos, not is_writer_order(infos)), placements, metadata)


def _read_header(file: SourceFile) -> tuple[dict[str, object], int]:
    length = int.from_bytes(file.read(0, 8), "little")
    if length > HEADER_BYTES:
        raise FormatError(file.path, f"declares a header of {length} bytes; at most {HEADER_BYTES} are allowed")
    raw = file.read(8, length)
    if raw[:1] != b"{":
        raise FormatError(file.path, "its header does not begin with `{`", "is it a safetensors file?")
    try:
        header = parse_json(raw)
    except JsonFault as fault:
        raise FormatError(file.path, f"its header {fault}", AGAIN) from None
    if not isinstance(header, dict):
        raise FormatError(file.path, "its header is no JSON object")
    return header, 8 + length


def _metadata(file: SourceFile, value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise FormatError(file.path, "its `__metadata__` is no mapping of texts to texts")
    return value


def _entry(file: SourceFile, key: str, fields: object) -> Entry:
    """A tensor with its first byte and the byte after its last, counted from the end of the header."""
    if not isinstance(fields, dict):
        raise _fault(file, key, "is no JSON object")
    try:
        dtype, shape, offsets = _TYPES[fields["dtype"]], fields["shape"], fields["data_offsets"]
    except (KeyError, TypeError):
        raise _fault(file, key, f"has no {_missing(fields)}") from None
    if not _are_counts(shape) or len(shape) > DIMENSIONS:
        raise _fault(file, key, f"has a shape that is no list of at most {DIMENSIONS} sizes")
    if not _are_counts(offsets) or len(offsets) != 2:
        raise _fault(file, key, "has `data_offsets` that are no two numbers")
    begin, end = offsets
    bits = prod(shape) * dtype.bits
    if bits % 8 or end - begin != bits // 8:
        raise _fault(file, key, f"has {end - begin} bytes where {dtype.value} {shape[:8]} needs {bits / 8:.14g}")
    return TensorInfo(key, dtype, tuple(shape)), begin, end


def _are_counts(value: object) -> bool:
    if type(value) is not list:
        return False
    for number in value:  # noqa: SIM110, a generator would take twice the time
        if type(number) is not int or not 0 <= number < MOST:
            return False
    return True


def _missing(fields: dict[str, object]) -> str:
    absent = [name for name in ("dtype", "shape", "data_offsets") if name not in fields]
    return f"`{absent[0]}`" if absent else f"known dtype: {str(fields['dtype'])[:40]!r}"


def _check_tiling(file: SourceFile, entries: list[Entry], start: int) -> None:
    """Tensors must cover every byte after the header once, so that a file can't hide anything between them."""
    ranges = sorted([(begin, end, info.key) for info, begin, end in entries])
    size = file.size - start
    for (_, end, _), (begin, _, key) in pairwise([(0, 0, ""), *ranges]):
        if begin != end:
            raise _fault(file, key, f"begins at byte {begin}, but the tensor before it ends at {end}")
    end = ranges[-1][1] if ranges else 0
    if end > size:
        raise truncated(file.path, start + end, file.size)
    if end < size:
        raise FormatError(file.path, f"has {size - end} bytes after its last tensor")


def _fault(file: SourceFile, key: str, fact: str) -> FormatError:
    return FormatError(file.path, f"`{key[:200]}` {fact}", AGAIN)


