"""Checking the checksums of many byte ranges. What the page cache has is mapped, not copied;
several threads share the work.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from mmap import ACCESS_READ, ALLOCATIONGRANULARITY, mmap

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.files import SourceFile
from ckpt_tool.formats.limits import MiB
from ckpt_tool.formats.placements.byte_ranges import Extent
from ckpt_tool.formats.placements.crc import crc32

LITTLE = 256 << 10
"""A shorter byte range costs less to read than to map."""
WINDOW = 8 * MiB
"""What is mapped at a time: mapped bytes count as the process's memory."""
GROUP = 32 * MiB
"""What a thread gets at a time."""
PROBED = MiB
NO_WAIT = getattr(os, "RWF_NOWAIT", None)


def check_all(extents: Iterable[Extent], threads: int = 1) -> None:
    """Raises FormatError where the bytes of one of these are not those of its checksum."""
    large: list[Extent] = []
    for extent in extents:
        if extent.length < LITTLE or type(extent.file) is not SourceFile:
            _read_through(extent)
        else:
            large.append(extent)
    if threads == 1 or sum(extent.length for extent in large) < GROUP:
        _check(large)
    else:
        with ThreadPoolExecutor(threads) as workers:
            for _ in workers.map(_check, _groups(large)):
                pass


def _groups(extents: Iterable[Extent]) -> Iterator[list[Extent]]:
    group: list[Extent] = []
    size = 0
    for extent in extents:
        group.append(extent)
        size += extent.length
        if size >= GROUP:
            yield group
            group, size = [], 0
    yield group


def _check(extents: Iterable[Extent]) -> None:
    for extent in extents:
        crc = _mapped_crc(extent) if _is_cached(extent) else None
        if crc is None:
            _read_through(extent)
        else:
            extent.check(crc)


def _read_through(extent: Extent) -> None:
    for _ in extent.pieces():
        pass


def _mapped_crc(extent: Extent) -> int | None:
    """None where the file system can't map the bytes."""
    fd, crc, end = extent.file.fd, 0, extent.offset + extent.length
    for start in range(extent.offset, end, WINDOW):
        size, before = min(WINDOW, end - start), start % ALLOCATIONGRANULARITY
        # Touching a mapped page behind the end of a file that was cut ends the process.
        if os.fstat(fd).st_size < end:
            raise FormatError(
                extent.file.path, "was cut while being read", "somebody else is writing to it"
            )
        try:
            content = mmap(fd, before + size, access=ACCESS_READ, offset=start - before)
        except (OSError, ValueError):
            return None
        with content, memoryview(content) as view, view[before:] as piece:
            crc = crc32(piece, crc)
    return crc


def _is_cached(extent: Extent) -> bool:
    """Whether bytes all over the range are in the page cache. Others are read: a disk that fails is
    an error then, and no signal.
    """
    if NO_WAIT is None:
        return False
    last = extent.offset + extent.length - 1
    byte = bytearray(1)
    try:
        return all(
            os.preadv(extent.file.fd, [byte], offset, NO_WAIT) == 1
            for offset in (*range(extent.offset, last, PROBED), last)
        )
    except OSError:  # not in memory, or a file system that can't tell
        return False
