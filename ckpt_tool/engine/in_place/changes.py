"""What renaming the tensors of a file changes in its bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ckpt_tool.engine.in_place.journal import BLOCK, Change
from ckpt_tool.engine.layouts.layout import Labels, OutputTensor
from ckpt_tool.engine.layouts.pickle_writer import state_dict_pickle
from ckpt_tool.engine.layouts.torch_zip import (
    central_header,
    descriptor,
    end_records,
    local_header,
    placed,
)
from ckpt_tool.errors import OutputError
from ckpt_tool.formats.archives.zip_directory import raw_entries, read_directory
from ckpt_tool.formats.limits import HEADER_BYTES
from ckpt_tool.formats.placements.crc import crc32
from ckpt_tool.tensors import TensorInfo

if TYPE_CHECKING:
    from ckpt_tool.formats import Checkpoint


def renamed_header(source: Checkpoint, names: Mapping[str, str], labels: Labels) -> Change:
    """A safetensors header with the tensors' new names. Where the old one has not the room, whole
    blocks are put in before the data.

    Raises OutputError for a header that no reader takes.
    """
    file = source.files[0]
    room = int.from_bytes(file.read(0, 8), "little")
    header: dict[str, object] = {"__metadata__": dict(source.metadata)} if source.metadata else {}
    for key, new in names.items():
        info, extent = source.catalog[key], source.extent(key)
        assert extent is not None, "a safetensors file has every tensor as it stands"
        begin = extent.offset - 8 - room
        header[new] = {
            "dtype": info.dtype.value,
            "shape": list(info.shape),
            "data_offsets": [begin, begin + extent.length],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "strict")
    insert = max(0, -(-(len(text) - room) // BLOCK)) * BLOCK
    if room + insert > HEADER_BYTES:
        raise OutputError(
            source.path,
            f"its header would have {room + insert:,} bytes; readers take at most {HEADER_BYTES:,}",
        )
    return Change(0, (room + insert).to_bytes(8, "little") + text.ljust(room + insert), insert)


def renamed_archive(source: Checkpoint, names: Mapping[str, str], labels: Labels) -> Change:
    """A new pickle and a new directory behind a torch zip; the old ones stay where they are, and
    nothing refers to them.

    Raises OutputError where a tensor is not a record of its own, as a part of another one is.
    """
    archive = read_directory(source.files[0])
    records = {(member.offset, member.size): member.name for member in archive.members.values()}
    root = next(iter(archive.members)).split("/")[0]
    prefix, storages, members = f"{root}/data/", {}, []
    for key, new in names.items():
        info, extent = source.catalog[key], source.extent(key)
        record = records.get((extent.offset, extent.length), "") if extent else ""
        if not record.startswith(prefix):
            raise OutputError(
                source.path, f"`{key}` is a view of a larger storage", "write a new file with -o"
            )
        storages[new] = record.removeprefix(prefix)
        members.append(OutputTensor(TensorInfo(new, info.dtype, info.shape)))
    return with_pickle(source, root, state_dict_pickle(members, storages, labels.versions))


def with_pickle(source: Checkpoint, root: str, pickled: bytes) -> Change:
    """Another pickle for a torch zip whose members are in the folder `root`. Raises OutputError."""
    if any("\udc80" <= letter <= "\udcff" for letter in root):
        raise OutputError(
            source.path,
            "the folder in its zip archive is named in another encoding than UTF-8",
            "write a new file with -o",
        )
    file, name = source.files[0], f"{root}/data.pkl"
    return _appended(file.size, name.encode(), pickled, raw_entries(file) | {name: b""})


def _appended(end: int, name: bytes, content: bytes, entries: Mapping[str, bytes]) -> Change:
    record, crc = placed(name, end, len(content), content), crc32(content)
    directory = b"".join([central_header(record, crc), *entries.values()])
    body = local_header(record) + content + descriptor(record, crc)
    return Change(
        end, body + directory + end_records(len(entries), len(directory), end + len(body))
    )
