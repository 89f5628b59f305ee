"""A torch zip file as torch.save writes it: stored records at multiples of 64, sizes and checksums
in descriptors.

The layout follows torch 2.x (`caffe2/serialize/inline_container.cc`): data.pkl, byteorder, the
storages, version.
"""

import os
from collections.abc import Mapping, Sequence
from struct import pack

from ckpt_tool.engine.layouts.layout import Labels, OutputTensor, Pieces
from ckpt_tool.engine.layouts.pickle_writer import state_dict_pickle
from ckpt_tool.errors import OutputError
from ckpt_tool.formats.placements.crc import crc32
from ckpt_tool.frozen import frozen
from ckpt_tool.tensors import DType, TensorInfo
from ckpt_tool.torch_bridge import packed_shape

ALIGNMENT = 64
_MAX32 = 0xFFFFFFFF
_FLAGS = 0x0808  # bit 3: sizes follow the data; bit 11: names are UTF-8


@frozen
class Record:
    """A member of the archive: where its header and its data begin, and its content, unless that is
    a tensor's.
    """

    name: bytes
    size: int
    header: int
    start: int
    content: bytes | None

    @property
    def is_large(self) -> bool:
        """Whether its sizes need zip64 fields."""
        return self.size >= _MAX32

    @property
    def end(self) -> int:
        """Behind the data descriptor, whose sizes have eight bytes in a large record."""
        return self.start + self.size + (24 if self.is_large else 16)


class ArchiveLayout:
    """An archive in a folder `root` of a pickle and the tensors that it names by their numbers, or
    whose members have `names`.
    """

    needs_checksums = True
    shares_tensors = True

    def __init__(
        self,
        root: bytes,
        pickled: bytes,
        stored: Sequence[TensorInfo],
        names: Sequence[bytes] = (),
    ) -> None:
        self._root = root
        self._numbers = {info.key: number for number, info in enumerate(stored)}
        self._records: list[Record] = []
        self._add(b"data.pkl", pickled)
        self._add(b".format_version", b"1")
        self._add(b".storage_alignment", str(ALIGNMENT).encode())
        self._add(b"byteorder", b"little")
        self._first = len(self._records)
        for number, info in enumerate(stored):
            self._add(names[number] if names else b"data/%d" % number, None, info.nbytes)
        self._keys = [info.key for info in stored]
        self._add(b"version", b"3\n")
        self._directory = self._end
        self.size = (
            self._directory + sum(_central_size(record) for record in self._records) + 56 + 20 + 22
        )

    @property
    def _end(self) -> int:
        return self._records[-1].end if self._records else 0

    def _add(self, name: bytes, content: bytes | None, size: int = 0) -> None:
        size = len(content) if content is not None else size
        self._records.append(placed(self._root + b"/" + name, self._end, size, content))

    def offset(self, key: str) -> int:
        """The byte at which a tensor's storage begins."""
        return self._records[self._first + self._numbers[key]].start

    def head(self) -> Pieces:
        """The local headers, and the members that are no tensors."""
        pieces = [(record.header, local_header(record)) for record in self._records]
        return pieces + [
            (record.start, record.content) for record in self._records if record.content
        ]

    def tail(self, checksums: Mapping[str, int]) -> Pieces:
        """The data descriptors, the central directory and the end records."""
        storages = [checksums[key] for key in self._keys]
        first = [crc32(record.content or b"") for record in self._records[: self._first]]
        last = crc32(self._records[-1].content or b"")
        pieces: Pieces = []
        central = []
        for record, crc in zip(self._records, (*first, *storages, last), strict=True):
            pieces.append((record.start + record.size, descriptor(record, crc)))
            central.append(central_header(record, crc))
        return [
            *pieces,
            (
                self._directory,
                b"".join(central)
                + end_records(len(central), sum(map(len, central)), self._directory),
            ),
        ]


class TorchLayout(ArchiveLayout):
    """An OrderedDict of tensors; members that are one tensor share a storage, as they do
    in torch.
    """

    def __init__(self, members: Sequence[OutputTensor], labels: Labels, name: str) -> None:
        numbers: dict[str, int] = {}
        stored: list[TensorInfo] = []
        for member in members:
            check_type(member.info, name)
            if member.tied_to is None:
                numbers[member.info.key] = len(stored)
                stored.append(member.info)
            else:
                numbers[member.info.key] = numbers[member.tied_to]
        root = os.path.basename(name).rsplit(".", 1)[0] or "archive"
        pickled = state_dict_pickle(members, numbers, labels.versions)
        super().__init__(root.encode("utf-8", "replace"), pickled, stored)


def end_records(count: int, size: int, start: int) -> bytes:
    """What ends an archive of `count` members whose directory has `size` bytes from `start` on.

    The zip64 end record and its locator, which torch always writes, and the classic end record.
    """
    zip64 = pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, count, count, size, start)
    locator = pack("<IIQI", 0x07064B50, 0, start + size, 1)
    classic = pack(
        "<IHHHHIIH",
        0x06054B50,
        0,
        0,
        min(count, 0xFFFF),
        min(count, 0xFFFF),
        min(size, _MAX32),
        min(start, _MAX32),
        0,
    )
    return zip64 + locator + classic


def check_type(info: TensorInfo, name: str) -> None:
    """Raises OutputError for a tensor that torch can't have."""
    if info.dtype in (DType.F6_E2M3, DType.F6_E3M2):
        raise OutputError(
            name,
            f"`{info.key}` is {info.dtype.value}, which torch has no type for",
            "write a .safetensors",
        )
    try:
        packed_shape(info.dtype, info.shape)
    except ValueError as error:
        raise OutputError(name, f"`{info.key}`: {error}", "write a .safetensors") from None


def _zip64(size: int, header: int) -> bytes:
    """The zip64 extra field of a record that is too large, or lies too far, for 32 bits."""
    fields = b""
    if size >= _MAX32:
        fields += pack("<QQ", size, size)
    if header >= _MAX32:
        fields += pack("<Q", header)
    return pack("<HH", 1, len(fields)) + fields if fields else b""


def placed(name: bytes, header: int, size: int, content: bytes | None = None) -> Record:
    """A record whose data begins at a multiple of 64; the `FB` extra field fills the gap."""
    least = header + 30 + len(name) + len(_zip64(size, header)) + 4
    return Record(name, size, header, least + (-least % ALIGNMENT), content)


def local_header(record: Record) -> bytes:
    """The header before the data; sizes and checksum follow the data."""
    extra = _zip64(record.size, record.header)
    padding = record.start - record.header - 30 - len(record.name) - len(extra) - 4
    extra += b"FB" + pack("<H", padding) + b"Z" * padding
    return (
        pack("<IHHHHHIIIHH", 0x04034B50, 0, _FLAGS, 0, 0, 0, 0, 0, 0, len(record.name), len(extra))
        + record.name
        + extra
    )


def descriptor(record: Record, crc: int) -> bytes:
    """What follows the data."""
    return pack("<IIQQ" if record.is_large else "<IIII", 0x08074B50, crc, record.size, record.size)


def _central_size(record: Record) -> int:
    return 46 + len(record.name) + len(_zip64(record.size, record.header))


def central_header(record: Record, crc: int) -> bytes:
    """The record's entry in the directory."""
    size, header, extra = (
        min(record.size, _MAX32),
        min(record.header, _MAX32),
        _zip64(record.size, record.header),
    )
    fixed = pack(
        "<IHHHHHHIIIHHHHHII",
        0x02014B50,
        0,
        0,
        _FLAGS,
        0,
        0,
        0,
        crc,
        size,
        size,
        len(record.name),
        len(extra),
        0,
        0,
        0,
        0,
        header,
    )
    return fixed + record.name + extra
