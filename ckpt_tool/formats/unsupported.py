"""Files that are no checkpoints of a format read here: what each is, and what to do about it."""

import os
import re
from codecs import BOM_UTF8
from collections.abc import Callable

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.files import SourceFile, truncated
from ckpt_tool.formats.key_list import is_named_checkpoint
from ckpt_tool.formats.limits import HEADER_BYTES

AGAIN = "download the checkpoint again"
NO_WEIGHTS = "is a {} pointer: the weights themselves were not downloaded"
HDF5 = b"\x89HDF\r\n\x1a\n"
WIDE_TEXT, AS_UTF8 = "is a text in UTF-16, or no text", "save it as UTF-8"

SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", NO_WEIGHTS.format("git-lfs"), "git lfs pull"),
    (b"version https://hawser", NO_WEIGHTS.format("git-lfs"), "git lfs pull"),
    (b"/annex/objects/", NO_WEIGHTS.format("git-annex"), "git annex get"),
    (
        b"PK\7\x08",
        "is a part of a split zip archive",
        "join its parts: `zip -s 0 PARTS.zip --out WHOLE.zip`",
    ),
    (b"\x1f\x8b", "is compressed by gzip", "gunzip it first"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive", "unpack it first"),
    (b"\xfd7zXZ\0", "is compressed by xz", "unxz it first"),
    (b"\x28\xb5\x2f\xfd", "is compressed by zstd", "unzstd it first"),
    (b"BZh", "is compressed by bzip2", "bunzip2 it first"),
    (b"Rar!", "is a rar archive", "unpack it first"),
    (HDF5, "is an HDF5 file (Keras .h5)", "convert it with h5py and numpy.savez"),
    (b"\x04\x22\x4d\x18", "is compressed by lz4", "unlz4 it first"),
    (b"\x5d\0\0\x80\0", "is compressed by lzma", "unlzma it first"),
    (b"\x1f\x9d", "is compressed by compress", "uncompress it first"),
    (b"%PDF", "is a PDF document", AGAIN),
    (b"\x89PNG", "is an image", AGAIN),
    (b"\xff\xd8\xff", "is an image", AGAIN),
    (b"GIF8", "is an image", AGAIN),
    (b"HTTP/1.", "begins with the server's answer, before the checkpoint or instead of it", AGAIN),
    (b"\xff\xfe", WIDE_TEXT, AS_UTF8),
    (b"\xfe\xff", WIDE_TEXT, AS_UTF8),
    (b"lmgg", "is an old GGML file", "convert it to GGUF with llama.cpp"),
    (b"fmgg", "is an old GGML file", "convert it to GGUF with llama.cpp"),
    (b"tjgg", "is an old GGML file", "convert it to GGUF with llama.cpp"),
    (
        b"\x08\x01\x12",
        "looks like a TensorFlow SavedModel",
        "convert it with tensorflow and numpy.savez",
    ),
)
"""First bytes, what the file is, what to do."""

TABLE_MAGIC = bytes.fromhex("57fb808b247547db")
"""The last bytes of a LevelDB table, which TensorFlow's `.index` files are."""
_ONNX_FIELDS = b"\x12\x1a\x22\x2a\x3a\x42"
"""What may follow the version in an ONNX model: its producer, domain, notes, graph or operators."""
_HDF5_PLACES = [1 << power for power in range(9, 21)]
"""Where HDF5 may begin behind bytes of its user's."""
_PART_OF_TENSORFLOW = re.compile(r"\.data-[0-9]{5}-of-[0-9]{5}")


_SECTION = re.compile(
    rb"^(?:# Drafted from|(?:rules|drop|keep|optional|tests|params|fit)[ \t]*:)", re.M
)


def refuse_foreign(file: SourceFile, head: bytes) -> None:
    """Raises FormatError for a file of a known kind that holds no readable checkpoint."""
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") <= HEADER_BYTES:
        _refuse_cut_safetensors(file, head)  # its first bytes, a number, may be those of anything
    text = head.removeprefix(BOM_UTF8)
    for signature, fact, hint in SIGNATURES:
        if text.startswith(signature):
            raise FormatError(file.path, fact, hint)
    _refuse_texts(file, text.lstrip()[:200].lower())
    _refuse_rules(file, text)
    if file.path.endswith(".py"):
        module = os.path.basename(file.path).removesuffix(".py")
        hint = f"a model that it builds is a target: `ckpt plan A {module}:FUNCTION`"
        raise FormatError(file.path, "is Python code, not a checkpoint", hint)
    _refuse_models(file, head)
    _refuse_cut_safetensors(file, head)
    if _is_zero(head) and not _PART_OF_TENSORFLOW.search(file.path):
        raise FormatError(
            file.path,
            "begins with nothing but zeros",
            "the download or the disk lost its bytes: " + AGAIN,
        )


def _refuse_texts(file: SourceFile, start: bytes) -> None:
    """Web pages, JSON and links, by how they begin, in lower case."""
    if start.startswith(b"<"):
        raise FormatError(file.path, "is a web page or XML text, not a checkpoint", AGAIN)
    if start.startswith((b"{", b"[")):
        if b'"error"' in start or b'"message"' in start:
            raise FormatError(file.path, "is an error message in JSON", AGAIN)
        is_named_json = file.path.endswith(".json")
        hint = "name the file with the weights, or its *.index.json" if is_named_json else AGAIN
        raise FormatError(file.path, "is JSON, but no index of a checkpoint", hint)
    if b".git/annex/objects/" in start:
        raise FormatError(file.path, NO_WEIGHTS.format("git-annex"), "git annex get")


def _refuse_rules(file: SourceFile, head: bytes) -> None:
    """Rule files, by a section of theirs, or as YAML by their name; lines of a key list have
    tabs.
    """
    is_marked = _SECTION.search(head) is not None
    is_yaml = file.path.endswith((".yaml", ".yml")) and b"\t" not in head
    if (is_marked or is_yaml) and _text_of(head):
        fact = f"is {'a rule file' if is_marked else 'YAML'}, not a checkpoint"
        way = f"`plan`, `map` and `verify` take rules with `--rules {file.path}`"
        raise FormatError(file.path, fact, way)


def _refuse_models(file: SourceFile, head: bytes) -> None:
    """The kinds of models that more than their first bytes mark."""
    head = head.ljust(16, b"\0")
    for is_kind, fact, hint in MODELS:
        if is_kind(file, head):
            raise FormatError(file.path, fact, hint)


def _is_tensorflow_index(file: SourceFile, head: bytes) -> bool:
    return file.size >= 48 and file.read(file.size - 8, 8) == TABLE_MAGIC


def _is_tensorflow_lite(file: SourceFile, head: bytes) -> bool:
    return head[4:8] == b"TFL3"


def _is_hdf5_behind_others(file: SourceFile, head: bytes) -> bool:
    return any(file.size >= place + 8 and file.read(place, 8) == HDF5 for place in _HDF5_PLACES)


def _is_msgpack(file: SourceFile, head: bytes) -> bool:
    """By the mark of a mapping, whose first key is a text."""
    return (0x80 < head[0] <= 0x8F and 0xA0 <= head[1] <= 0xDA) or head[:1] in b"\xde\xdf"


def _is_onnx(file: SourceFile, head: bytes) -> bool:
    """By its version, and its producer in printable letters where that follows."""
    if not _is_versioned_protobuf(file, head):
        return False
    producer = head[4 : 4 + head[3]] if head[2] == 0x12 else b""
    return all(0x20 <= byte < 0x7F for byte in producer)


def _is_versioned_protobuf(file: SourceFile, head: bytes) -> bool:
    return head[:1] == b"\x08" and 3 <= head[1] < 32 and head[2] in _ONNX_FIELDS


_FROM_TENSORFLOW = "convert it with tensorflow and numpy.savez"
_FROM_ITS_SOURCE = "convert the model that it was made from"
MODELS: tuple[tuple[Callable[[SourceFile, bytes], bool], str, str], ...] = (
    (_is_tensorflow_index, "is the index of a TensorFlow checkpoint", _FROM_TENSORFLOW),
    (_is_tensorflow_lite, "is a TensorFlow Lite model", _FROM_ITS_SOURCE),
    (_is_hdf5_behind_others, "is an HDF5 file (Keras .h5)", "convert it with h5py and numpy.savez"),
    (
        _is_msgpack,
        "looks like msgpack (a Flax checkpoint)",
        "convert it with flax and safetensors",
    ),
    (_is_onnx, "looks like an ONNX model", "convert its initializers with the onnx package"),
    (_is_versioned_protobuf, "looks like a Core ML model", _FROM_ITS_SOURCE),
)
"""How each is recognised, what it is, what to do; in the order in which they are asked."""


def _refuse_cut_safetensors(file: SourceFile, head: bytes) -> None:
    """A file that begins like safetensors, but whose header would be longer than the file, or than
    headers may be.
    """
    length = int.from_bytes(head[:8], "little")
    if _has_blank_before_header(head) and 8 + length <= file.size:
        raise FormatError(
            file.path, "begins its safetensors header with white space, where the format has `{`"
        )
    if len(head) <= 8 and file.path.endswith(".safetensors"):
        _refuse_length_alone(file, head, length)
    if head[8:9] != b"{":
        return
    if length <= HEADER_BYTES:
        raise truncated(file.path, 8 + length, file.size)
    raise FormatError(
        file.path,
        f"declares a safetensors header of {length} bytes, and has {file.size - 8} after it",
        AGAIN,
    )


def _has_blank_before_header(head: bytes) -> bool:
    return head[8:9] in b" \t\r\n" and head[8:].lstrip()[:1] == b"{"


def _refuse_length_alone(file: SourceFile, head: bytes, length: int) -> None:
    """A file of 8 bytes at most, which are the length of a header, or the beginning of that."""
    if len(head) < 8:
        raise truncated(file.path, 8 + len("{}"), file.size)
    if length <= HEADER_BYTES:
        raise truncated(file.path, 8 + max(length, len("{}")), file.size)


def _is_zero(head: bytes) -> bool:
    return len(head) >= 64 and not head.strip(b"\0")


def unknown_format(file: SourceFile, head: bytes) -> FormatError:
    """The error of a file that nothing here knows: a text is reported as one."""
    if text := _text_of(head):
        hint = (
            AGAIN
            if is_named_checkpoint(file.path)
            else "a key list has lines of `key<TAB>dtype<TAB>shape`"
        )
        return FormatError(
            file.path, f"is a text file, not a checkpoint: it begins `{text[:60]}`", hint
        )
    if _PART_OF_TENSORFLOW.search(file.path):
        return FormatError(
            file.path,
            "is named like the data of a TensorFlow checkpoint",
            "convert it with tensorflow and numpy.savez",
        )
    return FormatError(
        file.path, "has an unknown format", "its first bytes are " + head[:8].hex(" ")
    )


def _text_of(head: bytes) -> str:
    """The first line of a text in UTF-8; nothing for what is none."""
    text = head.decode(errors="ignore")
    is_text = len(text.encode()) > len(head) - 4 and all(
        character >= " " or character in "\t\r\n" for character in text
    )
    return (text.strip() or text).partition("\n")[0].rstrip("\r") if is_text else ""
