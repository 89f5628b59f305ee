"""Bytes from file to file, the cheapest way that the platform has."""

import errno
import os
import sys
from contextlib import suppress

from ckpt_tool.errors import FormatError
from ckpt_tool.formats import Extent
from ckpt_tool.formats.placements.crc import Buffer, crc32

_OF_THE_OUTPUT = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""After any other error the bytes pass through a buffer: most say that the kernel can't copy these,
else it is seen which file fails.
"""


def copy_extent(extent: Extent, fd: int, offset: int) -> None:
    """Copies a byte range. Raises FormatError where the source ends before it.

    The kernel copies, or lets both files share the blocks where the file system can; else the bytes
    pass through a buffer, unseen. What is streamed from elsewhere is checked on its way, as nobody
    may read it again.
    """
    if _copy_in_kernel(extent, fd, offset) == extent.length:
        return
    seen = extent.unchecked() if extent.file.has_descriptor else extent
    for piece in seen.pieces():
        write_at(fd, piece, offset)
        offset += len(piece)


def checksum_of(extent: Extent) -> int:
    """The CRC-32 of a byte range. Raises FormatError where it is not the one that the container
    has.
    """
    crc = 0
    for piece in extent.unchecked().pieces():
        crc = crc32(piece, crc)
    extent.check(crc)
    return crc


def _copy_in_kernel(extent: Extent, fd: int, offset: int) -> int:
    """How many bytes the kernel could copy by itself, which is all of them or, where it can't,
    none.
    """
    done = 0
    if not hasattr(os, "copy_file_range") or not extent.file.has_descriptor:
        return done
    while done < extent.length:
        try:
            count = os.copy_file_range(
                extent.file.fd, fd, extent.length - done, extent.offset + done, offset + done
            )
        except OSError as error:
            if error.errno in _OF_THE_OUTPUT:
                raise
            return 0
        if not count:
            raise FormatError(
                extent.file.path, "was cut while being read", "somebody else is writing to it"
            )
        done += count
    return done


def start_writing(fd: int, offset: int, length: int) -> None:
    """Lets the disk begin with bytes that were just written, rather than when the whole file is
    synced.

    Linux starts to write dirty pages back when it hears that nobody needs them soon, see
    posix_fadvise(2).
    """
    if sys.platform == "linux" and hasattr(os, "posix_fadvise"):
        with suppress(OSError):
            os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)


WRITTEN_AT_ONCE = 1 << 20
"""Larger writes take three times as long on some file systems."""


def write_at(fd: int, content: Buffer, offset: int) -> None:
    """Writes all of it at this offset, in as many calls as the system needs. Raises OSError."""
    view = memoryview(content)
    while view:
        count = os.pwrite(fd, view[:WRITTEN_AT_ONCE], offset)
        view, offset = view[count:], offset + count
