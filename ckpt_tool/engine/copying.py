"""Bytes from file to file, the cheapest way that the platform has."""

import errno
import os
from zlib import crc32

from ckpt_tool.errors import FormatError
from ckpt_tool.formats import Extent

PIECE = 1 << 20
_CANNOT = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF)


def copy_extent(extent: Extent, fd: int, offset: int) -> None:
    """Copies a byte range without looking at it. Raises FormatError where the source ends before it."""
    done = _copy_in_kernel(extent, fd, offset)
    while done < extent.length:
        piece = extent.file.read(extent.offset + done, min(PIECE, extent.length - done))
        write_at(fd, piece, offset + done)
        done += len(piece)


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


def write_at(fd: int, content: bytes | memoryview, offset: int) -> None:
    view = memoryview(content)
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count


def checksum(content: bytes | memoryview, start: int = 0) -> int:
    return crc32(content, start)
