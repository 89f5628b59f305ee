"""What holds the bytes of tensors, and how to get them: byte ranges of files, compressed members,
decoded arrays.
"""

from __future__ import annotations

import mmap as mmap_module
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from mmap import mmap

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.files import AGAIN, SourceFile
from ckpt_tool.formats.limits import MiB
from ckpt_tool.formats.placements.crc import crc32
from ckpt_tool.frozen import frozen

CHUNK = MiB
READ_AT_ONCE = MiB
HUGE = 4 * MiB
MADV_HUGEPAGE = getattr(mmap_module, "MADV_HUGEPAGE", None)
PIECE = MiB // 4
"""What is read at a time where bytes are only passed on: it stays in the processor's cache."""


@frozen
class Extent:
    """A byte range of a file. `crc32` is that of exactly these bytes, where the container
    has it.
    """

    file: SourceFile
    offset: int
    length: int
    crc32: int | None = None

    def read(self) -> bytes:
        """All of it, checked against `crc32`."""
        return b"".join(self.chunks(max(self.length, 1)))

    def chunks(self, size: int = CHUNK) -> Iterator[bytes]:
        """The bytes in pieces, checked against `crc32` at the end. Raises FormatError where they
        differ.
        """
        crc, end = 0, self.offset + self.length
        for offset in range(self.offset, end, size):
            chunk = self.file.read(offset, min(size, end - offset))
            if self.crc32 is not None:
                crc = crc32(chunk, crc)
            yield chunk
        self.check(crc)

    def pieces(self, size: int = PIECE) -> Iterator[memoryview]:
        """The bytes in one buffer that is filled again and again: each piece is good until the
        next. Checked as `chunks` is.
        """
        return self.pieces_in(memoryview(bytearray(min(self.length, size))))

    def pieces_in(self, buffer: memoryview) -> Iterator[memoryview]:
        """The bytes as `pieces` gives them, in this buffer."""
        crc, end = 0, self.offset + self.length
        for offset in range(self.offset, end, max(len(buffer), 1)):
            piece = buffer[: end - offset]
            self.file.read_into(piece, offset)
            if self.crc32 is not None:
                crc = crc32(piece, crc)
            yield piece
        self.check(crc)

    def read_all(self) -> bytearray | mmap:
        """All of it in writable memory of its own. Checked as `chunks` is."""
        content = room(self.length)
        view = memoryview(content)
        for offset in range(0, self.length, READ_AT_ONCE):
            self.file.read_into(view[offset : offset + READ_AT_ONCE], self.offset + offset)
        if self.crc32 is not None:
            self.check(crc32(memoryview(content)))
        return content

    def check(self, crc: int) -> None:
        """Raises FormatError where the bytes' checksum is not the one that the container has."""
        if self.crc32 is not None and crc != self.crc32:
            fact = "its bytes don't match their checksum"
            error = FormatError(self.file.path, fact, AGAIN, f"byte {self.offset}")
            raise self.file.refused(error)

    def unchecked(self) -> Extent:
        """The same bytes for somebody who looks at their checksum himself."""
        return self if self.crc32 is None else replace(self, crc32=None)

    def equals(self, other: Extent) -> bool:
        """Whether two byte ranges hold the same. Raises FormatError where a checksum is wrong."""
        if self.length != other.length:
            return False
        return all(
            _are_equal(source, target)
            for source, target in zip(self.pieces(), other.pieces(), strict=True)
        )


def room(size: int) -> bytearray | mmap:
    """Writable memory; a large one in huge pages, since most of the time of reading it would go
    into its first touch.
    """
    if size < HUGE or MADV_HUGEPAGE is None:
        return bytearray(size)
    # Private: shared memory, which is the default, rarely has huge pages.
    memory = mmap(-1, size, flags=mmap_module.MAP_PRIVATE | mmap_module.MAP_ANONYMOUS)
    with suppress(OSError):
        memory.madvise(MADV_HUGEPAGE)
    return memory


def _are_equal(source: memoryview, target: memoryview) -> bool:
    """Byte arrays compare at the speed of memory, memoryviews element by element."""
    one, other, size = source.obj, target.obj, len(source)
    assert isinstance(one, bytearray)
    assert isinstance(other, bytearray)
    return one == other if size == len(one) == len(other) else one[:size] == other[:size]


@dataclass(frozen=True, slots=True, eq=False)
class Inflated:
    """Bytes that had to be decoded to be read (an array inside a pickle): they are held. Equal
    where they are the same object.
    """

    content: bytes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Inflated) and self.content is other.content

    def __hash__(self) -> int:
        return id(self.content)

    @property
    def length(self) -> int:
        """The number of bytes."""
        return len(self.content)

    def read(self) -> bytes:
        """All of it; no copy."""
        return self.content


@frozen
class Deflated:
    """A compressed member of a zip archive, inflated each time that it is read; `length` is its
    size then.
    """

    file: SourceFile
    offset: int
    stored: int
    length: int
    crc32: int | None = None

    def read(self) -> bytes:
        """Raises FormatError where it is no deflate stream of exactly `length` bytes, or its
        checksum differs.
        """
        inflater = zlib.decompressobj(-15)
        try:
            content = inflater.decompress(self.file.read(self.offset, self.stored), self.length + 1)
        except zlib.error:
            raise self._damaged() from None
        is_whole = (
            len(content) == self.length
            and (inflater.eof or not self.stored)
            and not inflater.unused_data
        )
        if not is_whole or (self.crc32 is not None and crc32(content) != self.crc32):
            raise self._damaged()
        return content

    def _damaged(self) -> FormatError:
        fact = "a compressed member is damaged"
        return self.file.refused(FormatError(self.file.path, fact, AGAIN, f"byte {self.offset}"))

    def head(self, length: int) -> bytes:
        """Its first bytes, unchecked, without inflating the others; fewer where it ends before or
        is damaged.
        """
        try:
            return zlib.decompressobj(-15).decompress(
                self.file.read(self.offset, min(self.stored, length + CHUNK)), length
            )
        except zlib.error:
            return b""


Storage = Extent | Inflated | Deflated
