"""numpy's `.npy`: a magic number, a header that is a Python dict as text, the array's bytes. The
text is matched, never evaluated.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import permutations

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.checkpoint import Contents, Extra
from ckpt_tool.formats.files import AGAIN, SourceFile, Truncated, truncated
from ckpt_tool.formats.pickle.arrays import element_type, is_text
from ckpt_tool.formats.placements.assembled import Placement
from ckpt_tool.formats.placements.byte_ranges import Deflated, Extent, Storage
from ckpt_tool.formats.placements.views import View
from ckpt_tool.formats.torch_files.tensor_layout import contiguous_stride
from ckpt_tool.tensors import Catalog, Shape, TensorInfo, UnreadableTensor, nbytes_of

MAGIC = b"\x93NUMPY"
_LENGTHS = {b"\1": 10, b"\2": 12, b"\3": 12}
"""Where a header begins, behind its length, by the version."""
HEADER_BYTES = 10_000
"""numpy's own limit for a header."""
_FIELDS = (
    rb"(?P<key>['\"])descr(?P=key) *: *"
    rb"(?:(?P<quote>['\"])(?P<type>[<>|=]?[A-Za-z][0-9]*(?:\[[0-9A-Za-z]+\])?)(?P=quote)|(?P<structure>\[.*\]))",
    rb"(?P<mark>['\"])fortran_order(?P=mark) *: *(?P<is_fortran>True|False)",
    rb"(?P<sign>['\"])shape(?P=sign) *: *\((?P<shape>[0-9L, ]*)\)",
)
_HEADERS = [
    re.compile(rb"\{ *" + rb" *, *".join(fields) + rb" *(?:, *)?\}[ \n]*")
    for fields in permutations(_FIELDS)
]
"""numpy writes the fields in this order, and reads them in any, in both quotes, and Python 2's long
numbers.
"""
_OBJECTS = re.compile(r"(?:^|['\"])[<>|=]?O[0-9]*(?:$|['\"])")
_SIZE = re.compile(rb"[0-9]{1,18}L?")


def read(file: SourceFile, wanted: str) -> Contents:
    """One array, whose key is empty as a lone tensor's in a torch file is."""
    found = read_array(Extent(file, 0, file.size), "", file.path)
    if isinstance(found, Extra):
        return Contents(Catalog([]), {}, extras=(found,))
    if isinstance(found, UnreadableTensor):
        return Contents(
            Catalog([], unreadable=[found]), {}, extras=(Extra("", "tensor", found.text),)
        )
    info, placement = found
    return Contents(Catalog([info]), {"": placement})


def read_array(
    storage: Storage, key: str, path: str
) -> tuple[TensorInfo, Placement] | UnreadableTensor | Extra:
    """An array with its bytes; texts and dates are only named, and structures are what can't be
    read.

    Raises FormatError, also for arrays of objects.
    """
    named = f"`{key[:200]}`" if key else "the file"
    header = _parse_header(_head(storage), storage.length, named, path)
    if _OBJECTS.search(header.type_text):
        raise FormatError(
            path,
            f"{named} is an array of Python objects",
            "such arrays are pickles that run on loading",
        )
    kind = element_type(header.type_text)
    if kind is None:
        return _unreadable(header, key)
    dtype, is_swapped = kind
    have, need = storage.length - header.end, nbytes_of(dtype, header.shape)
    if have < need and not key:
        raise truncated(path, header.end + need, storage.length)
    if have != need:
        raise FormatError(path, f"{named} has {have} bytes where {need} are needed", AGAIN)
    return TensorInfo(key, dtype, header.shape), _placement(storage, header, is_swapped)


def _unreadable(header: _Header, key: str) -> UnreadableTensor | Extra:
    """An array of texts, dates or structures."""
    text = f"array {header.type_text} {'×'.join(map(str, header.shape))}"
    if is_text(header.type_text):
        return Extra(key, "tensor", text)
    if header.type_text.lstrip("<>|=") in ("V1", "V2"):
        text += "; as numpy writes bfloat16 and the like, whose names it loses"
    return UnreadableTensor(key, "array", header.shape, text)


def _placement(storage: Storage, header: _Header, is_swapped: bool) -> Placement:
    shape = header.shape
    stride = contiguous_stride(shape)
    if header.is_fortran:
        stride = contiguous_stride(shape[::-1])[::-1]
    if not isinstance(storage, Extent):
        return View(storage, 0, stride, is_swapped, skip=header.end)
    part = Extent(storage.file, storage.offset + header.end, storage.length - header.end)
    if is_swapped or (header.is_fortran and len(shape) > 1):
        return View(part, 0, stride, is_swapped)
    return part


def _head(storage: Storage) -> bytes:
    """As much as a header may have."""
    if isinstance(storage, Extent):
        return storage.file.read(storage.offset, min(storage.length, HEADER_BYTES + 12))
    return storage.head(HEADER_BYTES + 12) if isinstance(storage, Deflated) else storage.read()


@dataclass(frozen=True, slots=True)
class _Header:
    """What a header says, and where it ends and the array's bytes begin."""

    type_text: str
    is_fortran: bool
    shape: Shape
    end: int


def _parse_header(raw: bytes, size: int, named: str, path: str) -> _Header:
    """The header at the beginning of `size` bytes, of which `raw` are the first. Raises
    FormatError.
    """
    start = _LENGTHS.get(raw[6:7])
    if raw[:6] != MAGIC or start is None or len(raw) < start:
        raise FormatError(path, f"{named} is not a numpy array, or cut off", AGAIN)
    end = start + int.from_bytes(raw[8:start], "little")
    if size < end:
        raise Truncated(
            path,
            f"{named} is cut off inside its header, {end - size} bytes of which are missing",
            AGAIN,
        )
    found = _match_header(raw, start, end)
    shape = _shape(found["shape"]) if found else None
    if found is None or shape is None:
        raise FormatError(path, f"the header of {named} is not as numpy writes it")
    if len(shape) > 64:
        raise FormatError(path, f"{named} has {len(shape)} dimensions")
    type_text = (found["type"] or found["structure"]).decode("latin-1")
    return _Header(type_text, found["is_fortran"] == b"True", shape, end)


def _match_header(raw: bytes, start: int, end: int) -> re.Match[bytes] | None:
    """The fields of a header in any order; None for one that is too long or written otherwise."""
    text = raw[start:end] if end - start <= min(HEADER_BYTES, len(raw) - start) else b""
    return next(filter(None, (header.fullmatch(text) for header in _HEADERS)), None)


def _shape(text: bytes) -> Shape | None:
    """The sizes of a tuple that is written out; None for what is none: one size alone needs its
    comma.
    """
    sizes = [size.strip(b" ") for size in text.split(b",")]
    if not sizes[-1]:
        sizes.pop()
    elif len(sizes) == 1:
        return None
    return (
        tuple(int(size.rstrip(b"L")) for size in sizes)
        if all(_SIZE.fullmatch(size) for size in sizes)
        else None
    )
