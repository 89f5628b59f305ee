"""The `data.pkl` of a state dict, as torch.save writes it, without torch: opcodes of pickle
protocol 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from struct import pack

from ckpt_tool.engine.layouts.layout import OutputTensor
from ckpt_tool.tensors import TORCH_NAMES, DType, TensorInfo
from ckpt_tool.torch_bridge import packed_shape

STORAGES = {
    DType.F64: "DoubleStorage", DType.F32: "FloatStorage", DType.F16: "HalfStorage",
    DType.BF16: "BFloat16Storage",
    DType.I64: "LongStorage", DType.I32: "IntStorage", DType.I16: "ShortStorage",
    DType.I8: "CharStorage",
    DType.U8: "ByteStorage", DType.BOOL: "BoolStorage", DType.C64: "ComplexFloatStorage",
    DType.C128: "ComplexDoubleStorage",
}  # fmt: skip
"""torch's typed storages. The other types are rebuilt from an UntypedStorage with their dtype
(`_rebuild_tensor_v3`).
"""


def state_dict_pickle(
    members: Sequence[OutputTensor],
    storages: Mapping[str, int | str],
    versions: Mapping[str, Mapping[str, object]],
) -> bytes:
    """An OrderedDict of tensors; `storages` gives the number of the record that holds each key's
    bytes.
    """
    writer = PickleWriter()
    writer.parts.append(b"\x80\x02")
    writer.reduce_global("collections", "OrderedDict", ())
    writer.parts.append(b"(")
    for member in members:
        writer.put(member.info.key)
        put_tensor(writer, member.info, storages[member.info.key])
    writer.parts.append(b"u")
    if versions:
        writer.parts.append(b"}")
        writer.put("_metadata")
        put_versions(writer, versions)
        writer.parts.append(b"sb")
    writer.parts.append(b".")
    return b"".join(writer.parts)


def tensor_pickle(info: TensorInfo) -> bytes:
    """A bare tensor, whose bytes the record 0 has."""
    writer = PickleWriter()
    writer.parts.append(b"\x80\x02")
    put_tensor(writer, info, 0)
    writer.parts.append(b".")
    return b"".join(writer.parts)


def put_tensor(writer: PickleWriter, info: TensorInfo, record: int | str) -> None:
    """Pushes the call that makes a tensor of all of a record."""
    shape = packed_shape(info.dtype, info.shape)
    storage = STORAGES.get(info.dtype)
    count = info.nbytes // info.dtype.itemsize if storage else info.nbytes
    writer.get_global("torch._utils", "_rebuild_tensor_v2" if storage else "_rebuild_tensor_v3")
    writer.parts.append(b"(")
    writer.parts.append(b"(")
    writer.put("storage")
    writer.get_global(*(("torch", storage) if storage else ("torch.storage", "UntypedStorage")))
    writer.put_all(str(record), "cpu", count)
    writer.parts.append(b"tQ")
    writer.put_all(0, shape, _contiguous_stride(shape), False)
    writer.reduce_global("collections", "OrderedDict", ())
    if not storage:
        writer.get_global("torch", TORCH_NAMES[info.dtype])
    writer.parts.append(b"tR")


def _contiguous_stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    """torch's strides of a contiguous tensor: a dimension of 0 counts as 1."""
    strides = [1]
    for extent in reversed(shape[1:]):
        strides.append(strides[-1] * max(extent, 1))
    return tuple(reversed(strides)) if shape else ()


def put_versions(writer: PickleWriter, versions: Mapping[str, Mapping[str, object]]) -> None:
    """Pushes a state dict's `_metadata`."""
    writer.reduce_global("collections", "OrderedDict", ())
    writer.parts.append(b"(")
    for module, entry in versions.items():
        writer.put(module)
        writer.parts.append(b"}(")
        for name, value in entry.items():
            writer.put(name)
            writer.put(value)
        writer.parts.append(b"u")
    writer.parts.append(b"u")


class PickleWriter:
    """Collects opcodes; texts and globals that come again are fetched from the memo, whose numbers
    `numbers` gives as long as it has some.
    """

    def __init__(self, numbers: Iterator[int] | None = None) -> None:
        self.parts: list[bytes] = []
        self._numbers = count() if numbers is None else numbers
        self._memo: dict[object, int] = {}

    def put_all(self, *values: object) -> None:
        """Pushes values one after the other."""
        for value in values:
            self.put(value)

    def put(self, value: object) -> None:
        """Pushes None, a bool, an int, a float, a text, or a tuple of these. Raises TypeError for
        anything else.
        """
        if value is None or isinstance(value, bool):
            self.parts.append(b"N" if value is None else b"\x88" if value else b"\x89")
        elif isinstance(value, int):
            self.parts.append(_integer(value))
        elif isinstance(value, float):
            self.parts.append(b"G" + pack(">d", value))
        elif isinstance(value, str):
            raw = value.encode("utf-8", "surrogatepass")
            self._remember(value, b"X" + pack("<I", len(raw)) + raw)
        elif isinstance(value, tuple):
            self._put_tuple(value)
        else:
            raise TypeError(f"can't store {type(value).__name__} in a state dict's metadata")

    def _put_tuple(self, values: tuple[object, ...]) -> None:
        short = {0: b")", 1: b"\x85", 2: b"\x86", 3: b"\x87"}.get(len(values))
        if short is None:
            self.parts.append(b"(")
        self.put_all(*values)
        self.parts.append(short or b"t")

    def get_global(self, module: str, name: str) -> None:
        """Pushes a name."""
        self._remember((module, name), f"c{module}\n{name}\n".encode())

    def reduce_global(self, module: str, name: str, arguments: tuple[object, ...]) -> None:
        """Pushes what calling a name gives."""
        self.get_global(module, name)
        self.put(arguments)
        self.parts.append(b"R")

    def _remember(self, value: object, opcode: bytes) -> None:
        index = self._memo.get(value)
        if index is None:
            self.parts.append(opcode)
            index = next(self._numbers, None)
            if index is not None:
                self._memo[value] = index
                self.parts.append(put_opcode(index))
        else:
            self.parts.append(get_opcode(index))


def put_opcode(index: int) -> bytes:
    """Puts the top of the stack into the memo."""
    return b"q" + bytes((index,)) if index < 256 else b"r" + pack("<I", index)


def get_opcode(index: int) -> bytes:
    """Fetches what was put into the memo."""
    return b"h" + bytes((index,)) if index < 256 else b"j" + pack("<I", index)


def _integer(value: int) -> bytes:
    if 0 <= value < 1 << 8:
        return b"K" + bytes((value,))
    if 0 <= value < 1 << 16:
        return b"M" + pack("<H", value)
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes((len(raw),)) + raw
