"""One tensor's bytes from where they lie to where they belong, unchanged."""

from collections.abc import Callable, Iterator, Sequence

from ckpt_tool.engine.copying import checksum, copy_checked, copy_extent, write_at
from ckpt_tool.engine.layout import Layout
from ckpt_tool.engine.sources import Origin


def move_tensors(fd: int, layout: Layout, moves: Sequence[tuple[str, Origin]], done: Callable[[str], None]) -> dict[str, int]:
    """Copies tensors one after the other; gives their checksums, and tells of each that is done."""
    checksums = {}
    for key, origin in moves:
        checksums[key] = move_tensor(fd, layout, key, origin)
        done(key)
    return checksums


def move_tensor(fd: int, layout: Layout, key: str, origin: Origin) -> int:
    """Copies one tensor's bytes and gives their CRC-32, where the layout needs it.

    A checksum that the source has is carried over to a container that stores it, and verified where it would be lost.
    """
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
