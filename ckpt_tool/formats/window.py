"""A part of a file as a file: an archive that stands inside another file."""

from __future__ import annotations

from dataclasses import replace

from ckpt_tool.formats.files import SourceFile, truncated
from ckpt_tool.formats.placements.byte_ranges import Deflated, Extent, Storage

KEPT = 2048
"""Bytes at both ends that are read at once: an archive's small records stand there, so that reading
them costs next to nothing, wherever the file is.
"""


class FileWindow(SourceFile):
    """The bytes from `start` on of an open file, `size` of them. Raises FormatError where the file
    ends before them. `path` says which they are, for messages.
    """

    __slots__ = ("_head", "_tail", "file", "start")

    def __init__(self, file: SourceFile, start: int, size: int, name: str) -> None:
        if start + size > file.size:
            raise truncated(file.path, start + size, file.size)
        self.file, self.start, self.size = file, start, size
        self.path, self.stamp = f"{file.path}, `{name}`", file.stamp
        rest = max(0, min(size - KEPT, KEPT))
        file.expect([(start, min(size, KEPT)), (start + size - rest, rest)])
        self._head = file.read(start, min(size, KEPT))
        self._tail = file.read(start + size - rest, rest)

    @property
    def fd(self) -> int:
        """That of the whole file."""
        return self.file.fd

    def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes of the window. Raises FormatError where it ends before them."""
        end = offset + length
        if offset < 0 or length < 0 or end > self.size:
            raise truncated(self.path, end, self.size)
        if end <= len(self._head):
            return self._head[offset:end]
        before = self.size - len(self._tail)
        if offset >= before:
            return self._tail[offset - before : end - before]
        return self.file.read(self.start + offset, length)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fills a buffer with the bytes from `offset` on. Raises what `read` raises."""
        if offset + len(buffer) > self.size:
            raise truncated(self.path, offset + len(buffer), self.size)
        self.file.read_into(buffer, self.start + offset)

    def has_changed(self) -> bool:
        """Whether the whole file has another stamp by now."""
        return self.file.has_changed()

    def release(self) -> None:
        """Nothing: the whole file stays open."""

    def outside(self, storage: Storage) -> Storage:
        """The same bytes as a place in the whole file, so that it is these that are copied."""
        if isinstance(storage, Extent | Deflated) and storage.file is self:
            return replace(storage, file=self.file, offset=self.start + storage.offset)
        return storage
