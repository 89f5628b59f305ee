"""Key lists: text, one tensor a line, `key<TAB>dtype<TAB>shape`, where a shape is `64x3x7x7` or
`scalar`.

A key with control characters, or that begins with a quote, stands as a JSON string. A fourth column
may have the digest of the tensor's values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import BinaryIO

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.checkpoint import Contents
from ckpt_tool.formats.digests import PREFIX
from ckpt_tool.formats.key_order import are_in_module_order
from ckpt_tool.formats.limits import DIMENSIONS, KEY_LIST_BYTES, KEY_LIST_LINES
from ckpt_tool.tensors import Catalog, DType, Shape, TensorInfo

CHECKPOINT_SUFFIXES = (
    ".pth", ".pt", ".pkl", ".pickle", ".bin", ".ckpt", ".safetensors", ".npz", ".npy", ".gguf",
    ".tar", ".zip", ".h5",
    ".keras", ".onnx", ".msgpack", ".pdparams", ".distcp", ".pth.tar",
)  # fmt: skip
"""A text of such a name is a broken download, or, as `.pth`, one of Python's own path files: never
a key list.
"""
NEWLINE = "\n"
_CONTROL = re.compile(rb"[^\t\n\r\x20-\xff]")
_SIZE = re.compile(r"[0-9]{1,18}")
_DIGEST = re.compile(re.escape(PREFIX) + "[0-9a-f]{64}")
_TYPES = {dtype.value: dtype for dtype in DType}


def is_key_list(path: str, head: bytes) -> bool:
    """Whether a file can be a key list: text, and not named like a checkpoint."""
    return not _CONTROL.search(head) and not is_named_checkpoint(path)


def is_named_checkpoint(path: str) -> bool:
    """Whether a file's suffix is one that checkpoints have."""
    return path.lower().endswith(CHECKPOINT_SUFFIXES)


def format_key_list(catalog: Catalog, digest: Callable[[str], str] | None = None) -> str:
    """The text of a key list, one line a tensor; `digest` gives the fourth column.

    >>> weight = TensorInfo("conv1.weight", DType.F32, (64, 3, 7, 7))
    >>> format_key_list(Catalog([weight, TensorInfo("steps", DType.I64, ())]))
    'conv1.weight\\tF32\\t64x3x7x7\\nsteps\\tI64\\tscalar\\n'
    """
    return "".join(
        [
            f"{_line(info)}\t{digest(info.key)}\n" if digest else f"{_line(info)}\n"
            for info in catalog.values()
        ]
    )


def _line(info: TensorInfo) -> str:
    return f"{_quoted(info.key)}\t{info.dtype.value}\t{_sizes(info.shape)}"


def _sizes(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _quoted(key: str) -> str:
    return key if key.isprintable() and key[:1] != '"' else json.dumps(key)


def read_key_list(stream: BinaryIO, path: str) -> Contents:
    """Names and shapes without values. Raises FormatError that names the line."""
    raw = stream.read(KEY_LIST_BYTES + 1)
    if len(raw) > KEY_LIST_BYTES:
        raise FormatError(
            path, f"is longer than the {KEY_LIST_BYTES} bytes that a key list may have"
        )
    if (lines := raw.count(b"\n")) > KEY_LIST_LINES:
        raise FormatError(path, f"has {lines} lines; at most {KEY_LIST_LINES} are read")
    try:
        text = raw.decode("utf-8-sig")  # editors put a mark before a text that is no part of it
    except UnicodeDecodeError as error:
        place = f"line {raw[: error.start].count(NEWLINE.encode()) + 1}"
        raise FormatError(path, "is not UTF-8", "is it a key list?", place) from None
    infos: dict[str, TensorInfo] = {}
    digests: dict[str, str] = {}
    for number, line in enumerate(text.split(NEWLINE), 1):
        if line.strip():
            info, digest = _read_line(line.removesuffix("\r"), path, f"line {number}")
            if info.key in infos:
                raise FormatError(path, f"`{info.key}` is listed twice", None, f"line {number}")
            infos[info.key] = info
            digests |= {info.key: digest} if digest else {}
    if not infos:
        raise FormatError(path, "has no line of a key list", "`ckpt show --keys` writes one")
    return Contents(Catalog(infos.values(), are_in_module_order(list(infos))), {}, digests=digests)


def _read_line(line: str, path: str, place: str) -> tuple[TensorInfo, str | None]:
    fields = line.split("\t")
    if len(fields) not in (3, 4):
        raise FormatError(
            path,
            f"`{line[:80]}` is not key, dtype and shape with tabs between",
            "`ckpt show --keys` writes those",
            place,
        )
    key, dtype, shape, *digest = fields
    if dtype not in _TYPES:
        raise FormatError(
            path, f"`{dtype[:40]}` is not a dtype", f"one of {' '.join(_TYPES)}", place
        )
    if digest and not _DIGEST.fullmatch(digest[0]):
        raise FormatError(
            path, f"`{digest[0][:80]}` is not a digest", "`ckpt show --digests` writes those", place
        )
    return TensorInfo(
        _unquoted(key, path, place), _TYPES[dtype], _shape(shape, path, place)
    ), digest[0] if digest else None


def _unquoted(key: str, path: str, place: str) -> str:
    if key[:1] != '"':
        return key
    try:
        value = json.loads(key)
        if isinstance(value, str):
            return value
    except ValueError:
        pass
    raise FormatError(path, f"`{key[:80]}` begins with a quote, and is no JSON string", None, place)


def _shape(text: str, path: str, place: str) -> Shape:
    if text == "scalar":
        return ()
    sizes = text.split("x")
    if len(sizes) > DIMENSIONS or not all(_SIZE.fullmatch(size) for size in sizes):
        raise FormatError(path, f"`{text[:40]}` is not a shape", "like 64x3x7x7, or scalar", place)
    return tuple(map(int, sizes))
