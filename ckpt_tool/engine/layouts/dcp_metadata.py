"""The `.metadata` of torch.distributed.checkpoint, written without torch: a pickle of its classes,
which torch unpickles.

The classes and their attributes are those of torch 2.13, in `metadata.py` and `filesystem.py` of
`torch/distributed/checkpoint`; what is None there is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ckpt_tool.engine.layouts.pickle_writer import PickleWriter
from ckpt_tool.frozen import frozen
from ckpt_tool.regions import Region
from ckpt_tool.tensors import TORCH_NAMES, TensorInfo
from ckpt_tool.torch_bridge import packed_shape

VERSION = "1.0.0"
_METADATA = "torch.distributed.checkpoint.metadata"
_FILES = "torch.distributed.checkpoint.filesystem"


@frozen
class Placed:
    """A box of a tensor with the bytes of its archive: `length` from `offset` on in the file
    `name`.
    """

    region: Region
    name: str
    offset: int
    length: int


def dcp_metadata(tensors: Mapping[TensorInfo, Sequence[Placed]]) -> bytes:
    """The pickle for tensors, each with the boxes that it is stored in."""
    writer = _MetadataWriter()
    writer.parts.append(b"\x80\x02")
    writer.begin(_METADATA, "Metadata")
    writer.put("state_dict_metadata")
    writer.parts.append(b"}(")
    for info, boxes in tensors.items():
        writer.put(info.key)
        writer.put_tensor(info, boxes)
    writer.parts.append(b"u")
    writer.put("planner_data")
    writer.parts.append(b"}(")
    for info in tensors:
        writer.put_all(info.key, (info.key,))
    writer.parts.append(b"u")
    writer.put("storage_data")
    writer.parts.append(b"}(")
    for info, boxes in tensors.items():
        for number, placed in enumerate(boxes):
            writer.put_place(info, number, placed)
    writer.parts.append(b"u")
    writer.put_all("storage_meta", None, "version", VERSION)
    writer.end()
    writer.parts.append(b".")
    return b"".join(writer.parts)


class _MetadataWriter(PickleWriter):
    """Pushes objects of torch's classes."""

    def begin(self, module: str, name: str) -> None:
        """An object without its attributes, which follow."""
        self.get_global(module, name)
        self.parts.append(b")\x81}(")

    def end(self) -> None:
        """Gives the object the attributes that were put."""
        self.parts.append(b"ub")

    def put_size(self, shape: tuple[int, ...]) -> None:
        """A `torch.Size`."""
        self.reduce_global("torch", "Size", (shape,))

    def put_tensor(self, info: TensorInfo, boxes: Sequence[Placed]) -> None:
        """A `TensorStorageMetadata`."""
        shape = packed_shape(info.dtype, info.shape)
        self.begin(_METADATA, "TensorStorageMetadata")
        self.put("properties")
        self._put_properties(info)
        self.put("size")
        self.put_size(shape)
        self.put("chunks")
        self.parts.append(b"](")
        for placed in boxes:
            self.begin(_METADATA, "ChunkStorageMetadata")
            self.put("offsets")
            self.put_size(placed.region.offsets)
            self.put("sizes")
            self.put_size(packed_shape(info.dtype, placed.region.shape))
            self.end()
        self.parts.append(b"e")
        self.end()

    def _put_properties(self, info: TensorInfo) -> None:
        """A `TensorProperties`, whose state is a tuple."""
        self.get_global(_METADATA, "TensorProperties")
        self.parts.append(b")\x81(")
        self.get_global("torch", TORCH_NAMES[info.dtype])
        self.reduce_global("torch.serialization", "_get_layout", ("torch.strided",))
        self.put(False)
        self.reduce_global(_METADATA, "_MEM_FORMAT_ENCODING", (0,))
        self.put(False)
        self.parts.append(b"tb")

    def put_place(self, info: TensorInfo, number: int, placed: Placed) -> None:
        """A `MetadataIndex`, and the `_StorageInfo` that it leads to."""
        self.begin(_METADATA, "MetadataIndex")
        self.put_all("fqn", info.key, "offset")
        self.put_size(placed.region.offsets)
        self.put_all("index", number)
        self.end()
        self.begin(_FILES, "_StorageInfo")
        self.put_all("relative_path", placed.name, "offset", placed.offset, "length", placed.length)
        self.end()
