"""A regular file, open for reading: exact reads, a mapping, and no surprises from pipes, devices or folders."""

import os
import stat
from mmap import ACCESS_READ, mmap
from types import TracebackType

from ckpt_tool.errors import FormatError, InputError


class SourceFile:
    """An open regular file. `size` and `stamp` (device, inode, size, mtime) are those of the moment of opening."""

    __slots__ = ("_map", "fd", "path", "size", "stamp")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises InputError for what can't be opened or is no regular file; a pipe without a writer doesn't block."""
        self.path = os.fspath(path)
        self._map: mmap | None = None
        try:
            self.fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as error:
            raise InputError(self.path, _open_fact(error)) from None
        status = os.fstat(self.fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(self.fd)
            raise InputError(self.path, f"is {_kind(status.st_mode)}, not a file")
        self.size = status.st_size
        self.stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes. Raises FormatError where the file ends before them."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise truncated(self.path, offset + length, self.size)
        parts = []
        while length:
            part = os.pread(self.fd, length, offset)
            if not part:
                raise FormatError(self.path, "was cut while being read", "somebody else is writing to it")
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def map(self) -> mmap:
        """The whole file, mapped on first use. An empty file can't be mapped."""
        if self._map is None:
            self._map = mmap(self.fd, self.size, access=ACCESS_READ)
        return self._map

    def has_changed(self) -> bool:
        status = os.fstat(self.fd)
        return self.stamp != (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    def close(self) -> None:
        if self._map is not None:
            try:
                self._map.close()
            except BufferError:
                pass  # a view that somebody still holds keeps the mapping alive; it closes with the view
            self._map = None
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> "SourceFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def truncated(path: str, needed: int, size: int) -> FormatError:
    """The error of a file that ends too early: how much is missing is what tells a broken download."""
    return FormatError(path, f"is cut off: {needed - size} bytes of at least {needed} are missing", "download or copy it again")


def _open_fact(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error)


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    return next((text for test, text in kinds if test(mode)), "a device")
