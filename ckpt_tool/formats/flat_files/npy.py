"""numpy's `.npy`: a magic number, a header that is a Python dict as text, the array's bytes. The
text is matched, never evaluated.
"""

from __future__ import annotations

import re
from itertools import permutations

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.byte_ranges import Deflated, Extent, Placement, Storage, View
from ckpt_tool.formats.checkpoint import Contents, Extra
from ckpt_tool.formats.files import AGAIN, SourceFile, truncated
from ckpt_tool.formats.pickle.arrays import element_type, is_text
from ckpt_tool.formats.torch_files.tensor_layout import contiguous_stride
from ckpt_tool.tensors import Catalog, Shape, TensorInfo, UnreadableTensor, nbytes_of

MAGIC = b"\x93NUMPY"
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
    raw = _head(storage)
    named = f"`{key[:200]}`" if key else "the file"
    type_text, is_fortran, shape, start = _parse_header(raw, storage.length, named, path)
    if _OBJECTS.search(type_text):
        raise FormatError(
            path,
            f"{named} is an array of Python objects",
            "such arrays are pickles that run on loading",
        )
    kind = element_type(type_text)
    if kind is None:
        lost = (
            "; as numpy writes bfloat16 and the like, whose names it loses"
            if type_text.lstrip("<>|=") in ("V1", "V2")
            else ""
        )
        text = f"array {type_text} {'×'.join(map(str, shape))}{lost}"
        return (
            Extra(key, "tensor", text)
            if is_text(type_text)
            else UnreadableTensor(key, "array", shape, text)
        )
    dtype, is_swapped = kind
    have, need = storage.length - start, nbytes_of(dtype, shape)
    if have < need and not key:
        raise truncated(path, start + need, storage.length)
    if have != need:
        raise FormatError(path, f"{named} has {have} bytes where {need} are needed", AGAIN)
    stride = contiguous_stride(shape[::-1])[::-1] if is_fortran else contiguous_stride(shape)
    info = TensorInfo(key, dtype, shape)
    if isinstance(storage, Extent):
        part = Extent(storage.file, storage.offset + start, storage.length - start)
        return info, part if not is_swapped and (not is_fortran or len(shape) < 2) else View(
            part, 0, stride, is_swapped
        )
    return info, View(storage, 0, stride, is_swapped, skip=start)


def _head(storage: Storage) -> bytes:
    """As much as a header may have."""
    if isinstance(storage, Extent):
        return storage.file.read(storage.offset, min(storage.length, HEADER_BYTES + 12))
    return storage.head(HEADER_BYTES + 12) if isinstance(storage, Deflated) else storage.read()


def _parse_header(raw: bytes, size: int, named: str, path: str) -> tuple[str, bool, Shape, int]:
    """(type, is Fortran order, shape, where the bytes begin)."""
    wide = raw[6:7] in (b"\2", b"\3")
    start = 12 if wide else 10
    if raw[:6] != MAGIC or len(raw) < start or raw[6] not in (1, 2, 3):
        raise FormatError(path, f"{named} is no array of numpy, or cut off", AGAIN)
    length = int.from_bytes(raw[8:start], "little")
    if size < start + length:
        raise FormatError(
            path,
            f"{named} is cut off inside its header, {start + length - size} bytes of which are "
            "missing",
            AGAIN,
        )
    text = raw[start : start + length] if length <= min(HEADER_BYTES, len(raw) - start) else b""
    found = next(filter(None, (header.fullmatch(text) for header in _HEADERS)), None)
    shape = _shape(found["shape"]) if found else None
    if found is None or shape is None:
        raise FormatError(path, f"the header of {named} is not as numpy writes it")
    if len(shape) > 64:
        raise FormatError(path, f"{named} has {len(shape)} dimensions")
    return (
        (found["type"] or found["structure"]).decode("latin-1"),
        found["is_fortran"] == b"True",
        shape,
        start + length,
    )


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
