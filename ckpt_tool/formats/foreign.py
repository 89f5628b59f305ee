"""Files that are no checkpoints of a format read here: what each is, and what to do about it."""

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.files import SourceFile

SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "is a git-lfs pointer: the weights themselves were not downloaded", "git lfs pull"),
    (b"\x1f\x8b", "is compressed by gzip", "gunzip it first"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive", "unpack it first"),
    (b"\xfd7zXZ\0", "is compressed by xz", "unxz it first"),
    (b"\x28\xb5\x2f\xfd", "is compressed by zstd", "unzstd it first"),
    (b"BZh", "is compressed by bzip2", "bunzip2 it first"),
    (b"Rar!", "is a rar archive", "unpack it first"),
    (b"\x89HDF\r\n\x1a\n", "is an HDF5 file (Keras .h5)", "convert it with h5py and numpy.savez"),
    (b"%PDF", "is a PDF document", "download the checkpoint again"),
    (b"\x08\x03\x12", "looks like an ONNX model", "convert its initializers with the onnx package"),
    (b"\x08\x04\x12", "looks like an ONNX model", "convert its initializers with the onnx package"),
    (b"\x08\x05\x12", "looks like an ONNX model", "convert its initializers with the onnx package"),
    (b"\x08\x06\x12", "looks like an ONNX model", "convert its initializers with the onnx package"),
    (b"\x08\x07\x12", "looks like an ONNX model", "convert its initializers with the onnx package"),
    (b"\x08\x08\x12", "looks like an ONNX model", "convert its initializers with the onnx package"),
)
"""First bytes, what the file is, what to do."""

TABLE_MAGIC = bytes.fromhex("57fb808b247547db")
"""The last bytes of a LevelDB table, which TensorFlow's `.index` files are."""
AGAIN = "download the checkpoint again"


def refuse_foreign(file: SourceFile, head: bytes) -> None:
    """Raises FormatError for a file of a known kind that holds no readable checkpoint."""
    for signature, fact, hint in SIGNATURES:
        if head.startswith(signature):
            raise FormatError(file.path, fact, hint)
    start = head.lstrip()[:200].lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<")):
        raise FormatError(file.path, "is a web page or XML text, not a checkpoint", AGAIN)
    if start.startswith((b"{", b"[")):
        is_error = b'"error"' in start or b'"message"' in start
        raise FormatError(file.path, "is an error message in JSON" if is_error else "is JSON, but no index of a checkpoint", AGAIN)
    if file.size >= 48 and file.read(file.size - 8, 8) == TABLE_MAGIC:
        raise FormatError(file.path, "is the index of a TensorFlow checkpoint", "convert it with tensorflow and numpy.savez")
    if 0x80 < head[0] <= 0x8F or head[:1] in b"\xde\xdf":
        raise FormatError(file.path, "looks like msgpack (a Flax checkpoint)", "convert it with flax and safetensors")
    _refuse_cut_safetensors(file, head)
    if not _is_zero(head):
        return
    raise FormatError(file.path, "begins with nothing but zeros", "the download or the disk lost its bytes: " + AGAIN)


def _refuse_cut_safetensors(file: SourceFile, head: bytes) -> None:
    """A file that begins like safetensors, but whose header would be longer than the file, or than headers may be."""
    length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{":
        raise FormatError(file.path, f"declares a safetensors header of {length} bytes, and has {file.size - 8} after it", AGAIN)


def _is_zero(head: bytes) -> bool:
    return len(head) >= 64 and not head.strip(b"\0")


def unknown_format(file: SourceFile, head: bytes) -> FormatError:
    """The error of a file that nothing here knows: a text is told as one."""
    if all(byte >= 0x20 or byte in b"\t\r\n" for byte in head):
        return FormatError(file.path, "is a text file, not a checkpoint", "a key list has lines of `key<TAB>dtype<TAB>shape`")
    return FormatError(file.path, "is of no format that is known here", "its first bytes are " + head[:8].hex(" "))
