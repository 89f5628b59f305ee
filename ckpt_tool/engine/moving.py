"""One tensor's bytes from where they lie to where they belong, unchanged."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ckpt_tool.engine.copying import checksum, copy_checked, copy_extent, write_at
from ckpt_tool.engine.layout import Layout
from ckpt_tool.engine.sources import Origin


@dataclass(frozen=True, slots=True)
class Place:
    """An open file that a tensor belongs to, and where everything lies in it."""

    fd: int
    layout: Layout


def move_tensors(places: Mapping[str, Place], moves: Sequence[tuple[str, Origin]], done: Callable[[str], None]) -> dict[str, int]:
    """Copies tensors one after the other; gives their checksums, and tells of each that is done."""
    checksums = {}
    for key, origin in moves:
        checksums[key] = move_tensor(places[key], key, origin)
        done(key)
    return checksums


def move_tensor(place: Place, key: str, origin: Origin) -> int:
    """Copies one tensor's bytes and gives their CRC-32, where the layout needs it.

    A checksum that the source has is carried over to a container that stores it, and verified where it would be lost.
    """
    fd, layout = place.fd, place.layout
    extent, offset = origin.checkpoint.extent(origin.key), layout.offset(key)
    if extent and (extent.crc32 is None) is not layout.needs_checksums:
        copy_extent(extent, fd, offset)
        return extent.crc32 or 0
    if extent:
        return copy_checked(extent, fd, offset, layout.needs_checksums)
    return _write_chunks(fd, offset, origin.checkpoint.chunks(origin.key), layout.needs_checksums)


def _write_chunks(fd: int, offset: int, chunks: Iterator[bytes], needs_checksum: bool) -> int:
    crc = 0
    for chunk in chunks:
        write_at(fd, chunk, offset)
        offset += len(chunk)
        crc = checksum(chunk, crc) if needs_checksum else 0
    return crc
