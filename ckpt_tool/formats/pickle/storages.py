"""Storages of tensors: by reference, as `torch.save` writes them, or whole inside the pickle, as
`pickle.dump` of a tensor does.

The latter is `torch.storage._load_from_bytes(a whole legacy stream)`. torch writes these streams
one way only, so that they are matched as a whole: nothing in them is interpreted.
"""

from __future__ import annotations

import re

from ckpt_tool.formats.pickle.values import Global, PickleFault, StorageRef
from ckpt_tool.tensors import DType

STORAGE_TYPES = {
    "DoubleStorage": DType.F64, "FloatStorage": DType.F32, "HalfStorage": DType.F16,
    "BFloat16Storage": DType.BF16,
    "LongStorage": DType.I64, "IntStorage": DType.I32, "ShortStorage": DType.I16,
    "CharStorage": DType.I8,
    "ByteStorage": DType.U8, "BoolStorage": DType.BOOL, "ComplexDoubleStorage": DType.C128,
    "ComplexFloatStorage": DType.C64,
}  # fmt: skip
"""torch's storage classes and their element types."""

ODD_STORAGE_SIZES = {
    "QInt8Storage": 1, "QUInt8Storage": 1, "QInt32Storage": 4, "QUInt4x2Storage": 1,
    "QUInt2x4Storage": 1, "UntypedStorage": 1,
}  # fmt: skip
"""Bytes of one element of the storage classes that have no element type of ours."""

STORAGE_SIZES: dict[str, tuple[DType | None, int]] = {
    **{name: (dtype, dtype.itemsize) for name, dtype in STORAGE_TYPES.items()},
    **{name: (None, size) for name, size in ODD_STORAGE_SIZES.items()},
}
STORAGE_MODULES = (
    "torch",
    "torch.cuda",
    "torch.storage",
    "torch.xpu",
    "torch.npu",
    "torch.hpu",
    "torch.mtia",
    "torch.sparse",
)
MAX_ELEMENTS = 1 << 60
_LOCATION = re.compile(
    "(?:cpu|cuda|mps|xpu|hpu|mtia|xla|ipu|maia|hip|npu|mlu|musa|gcu|sdaa|dipu|privateuseone|lazy|fpga|ort|ve|vulkan|opencl|mkldnn|ideep)"
    "(?::?[0-9]{1,4})?"
)
"""Devices that torch has, or that it is built with elsewhere; not `meta`, whose tensors have no
values.
"""


def make_storage(kind: object, key: str, count: object, start: int = 0) -> StorageRef:
    """What a persistent id stands for. Raises PickleFault."""
    if type(count) is not int or not 0 <= count < MAX_ELEMENTS:
        raise PickleFault(
            "has a storage of "
            f"{count if type(count) is int and abs(count) < 1 << 200 else 'impossibly many'} "
            "elements"
        )
    if (
        type(kind) is not Global
        or kind.module not in STORAGE_MODULES
        or kind.name not in STORAGE_SIZES
    ):
        raise PickleFault("has a storage of a type that torch does not have")
    dtype, size = STORAGE_SIZES[kind.name]
    return StorageRef(key, kind.name, dtype, size, count, start)


def check_location(place: object) -> None:
    """Raises PickleFault for a device that torch does not have, and for `meta`, where torch would
    give no values.
    """
    text = place.decode("ascii", "replace") if isinstance(place, bytes) else place
    if not isinstance(text, str) or not _LOCATION.fullmatch(text):
        shown = f" `{text[:40]}`" if isinstance(text, str) else ""
        raise PickleFault(f"has a storage on the device{shown}, where torch has no values")


def is_same_storage(one: StorageRef, other: StorageRef) -> bool:
    """Whether two persistent ids of one key mean the same. Untyped storages are of bytes, which
    torch also knows as a type.
    """
    kinds = {
        "ByteStorage" if ref.type_name == "UntypedStorage" else ref.type_name
        for ref in (one, other)
    }
    return len(kinds) == 1 and one.count == other.count


def storage_from_bytes(args: tuple[object, ...]) -> object:
    """`torch.storage._load_from_bytes(stream)`: a storage that `pickle.dump` wrote. Another stream
    than torch's stays a call.
    """
    found = read_nested_storage(args[0]) if isinstance(args[0], bytes) else None
    if found is None or found[0] not in STORAGE_SIZES:
        return NotImplemented
    name, place, count, content = found
    check_location(place)
    dtype, itemsize = STORAGE_SIZES[name]
    made = StorageRef("", name, dtype, itemsize, count, content=content)
    made.key = f"inside {id(made)}"
    return made if len(content) == count * itemsize else NotImplemented


_NUMBER = rb"(?:K(.)|M(..)|J(....)|\x8a\x05(.....))"
_KEY = rb"X(....)([0-9]{1,20})"
_SYSTEM = (
    rb"}q\0\(X\x10\0\0\0protocol_versionq\x01M\xe9\x03X\r\0\0\0little_endianq\x02[\x88\x89]"
    rb"X\n\0\0\0type_sizesq\x03}q\x04\(X\x05\0\0\0shortq\x05K.X\x03\0\0\0intq\x06K.X\x04\0\0\0longq\x07K.uu\."
)
_STREAM = (
    rb"(?s)\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19\.\x80\x02M\xe9\x03\.\x80\x02" + _SYSTEM +
    rb"\x80\x02\(X\x07\0\0\0storageq\0ctorch(?:\.cuda|\.storage)?\n([A-Za-z0-9]+)\nq\x01"
    + _KEY + rb"q\x02X(....)([a-z0-9:]{1,30})q\x03" + _NUMBER + rb"Ntq\x04Q\."
    rb"\x80\x02\]q\0" + _KEY + rb"q\x01a\.(.{8})"
)  # fmt: skip
"""The five pickles of the stream, and the count in front of the bytes; groups: class, a length and
the text of that length for the key, the location and the key again, with the number of elements
between them, and the count. What could be read otherwise could run something.
"""


def read_nested_storage(raw: bytes) -> tuple[str, str, int, bytes] | None:
    """(class, location, number of elements, bytes) of the storage in a stream, or None where it is
    not as torch writes it.
    """
    found = re.match(_STREAM, raw)
    if found is None:
        return None
    groups = found.groups()
    if any(int.from_bytes(groups[at], "little") != len(groups[at + 1]) for at in (1, 3, 9)):
        return None
    count = int.from_bytes(next(number for number in groups[5:9] if number is not None), "little")
    if count != int.from_bytes(groups[11], "little"):
        return None
    return groups[0].decode(), groups[4].decode(), count, raw[found.end() :]
