"""Bytes from file to file, the cheapest way that the platform has."""

import errno
import os
from dataclasses import replace
from zlib import crc32

from ckpt_tool.errors import FormatError
from ckpt_tool.formats import Extent

_CANNOT = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF)


def copy_extent(extent: Extent, fd: int, offset: int) -> None:
    """Copies a byte range without looking at it. Raises FormatError where the source ends before it."""
    if _copy_in_kernel(extent, fd, offset) < extent.length:
        copy_checked(replace(extent, crc32=None), fd, offset, False)


def copy_checked(extent: Extent, fd: int, offset: int, needs_checksum: bool) -> int:
    """Copies a byte range, checked against the checksum that it has; gives the CRC-32 where it is needed, else 0."""
    crc = 0
    for piece in extent.pieces():
        write_at(fd, piece, offset)
        offset += len(piece)
        crc = crc32(piece, crc) if needs_checksum else 0
    return crc


def _copy_in_kernel(extent: Extent, fd: int, offset: int) -> int:
    """How many bytes the kernel could copy by itself, which is all of them or, where it can't, none."""
    done = 0
    if not hasattr(os, "copy_file_range"):
        return done
    while done < extent.length:
        try:
            count = os.copy_file_range(extent.file.fd, fd, extent.length - done, extent.offset + done, offset + done)
        except OSError as error:
            if done or error.errno not in _CANNOT:
                raise
            return 0
        if not count:
            raise FormatError(extent.file.path, "was cut while being read", "somebody else is writing to it")
        done += count
    return done


WRITTEN_AT_ONCE = 1 << 20
"""Larger writes take three times as long on some file systems."""


def write_at(fd: int, content: bytes | memoryview, offset: int) -> None:
    view = memoryview(content)
    while view:
        count = os.pwrite(fd, view[:WRITTEN_AT_ONCE], offset)
        view, offset = view[count:], offset + count


def checksum(content: bytes | memoryview, start: int = 0) -> int:
    return crc32(content, start)
