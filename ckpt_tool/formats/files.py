"""A regular file, open for reading: exact reads, and no surprises from pipes, devices or
folders. Files that lie elsewhere (`formats/remote`) are read in the same way.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from types import TracebackType

from ckpt_tool.errors import FormatError, InputError
from ckpt_tool.formats.limits import TENSOR_BYTES
from ckpt_tool.watching import OnProgress, ignore

AGAIN = "download or copy it again"
"""What helps against most broken files."""
MORE_FILES = "let this shell open more: ulimit -n 10000"
PIECE = 1 << 20


class Truncated(FormatError):
    """A file that ends before what it should have."""


class SourceFile:
    """An open regular file. `size` and `stamp` (device, inode, size, mtime) are those of the moment
    of opening.
    """

    __slots__ = ("_fd", "path", "size", "stamp")
    is_here = True
    """Whether reading costs next to nothing; else opening reads what it must, and no more."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises InputError for what can't be opened or is not a regular file; a pipe without a
        writer doesn't block.
        """
        self.path = os.fspath(path)
        self._fd, status = _open(self.path)
        self.size = status.st_size
        self.stamp = _stamp(status)

    @property
    def has_descriptor(self) -> bool:
        """Whether there is an `fd`, between which and another the kernel can copy."""
        return True

    @property
    def fd(self) -> int:
        """The descriptor; opened again if it was released. Raises FormatError where the file is
        another one by then.
        """
        if self._fd < 0:
            self._fd, status = _open(self.path)
            if self.stamp != _stamp(status):
                raise FormatError(
                    self.path,
                    "was changed while it was being read",
                    "somebody else is writing to it",
                )
        return self._fd

    def release(self) -> None:
        """Closes the file until it is read again, so that many can be held."""
        if self._fd >= 0:
            with suppress(OSError):
                os.close(self._fd)
            self._fd = -1

    def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes. Raises FormatError where the file ends before them, InputError where
        they can't be read.
        """
        if offset < 0 or length < 0 or offset + length > self.size:
            raise truncated(self.path, offset + length, self.size)
        fd, parts = self.fd, []
        while length:
            part = read_at(fd, length, offset, self.path)
            if not part:
                raise FormatError(
                    self.path, "was cut while being read", "somebody else is writing to it"
                )
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fills a buffer with the bytes from `offset` on. Raises what `read` raises."""
        if offset + len(buffer) > self.size:
            raise truncated(self.path, offset + len(buffer), self.size)
        while buffer:
            try:
                count = _read_into(self.fd, buffer, offset)
            except OSError as error:
                raise _unread(self.path, error) from None
            if not count:
                raise FormatError(
                    self.path, "was cut while being read", "somebody else is writing to it"
                )
            buffer, offset = buffer[count:], offset + count

    def read_into_each(self, buffers: Sequence[memoryview], offset: int) -> None:
        """Fills buffers with the bytes from `offset` on, one after the other. Raises what `read`
        raises.
        """
        if len(buffers) > 1 and self.has_descriptor and hasattr(os, "preadv"):
            size = sum(map(len, buffers))
            with suppress(OSError):  # said below
                if offset + size <= self.size and os.preadv(self.fd, buffers, offset) == size:
                    return
        for buffer in buffers:
            self.read_into(buffer, offset)
            offset += len(buffer)

    def at_hand(self, offset: int) -> int:
        """How many bytes from `offset` on cost next to nothing."""
        return self.size - offset

    def expect(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Hears which bytes will be read next, as offsets and lengths."""

    def described(self) -> None:
        """Hears that its description was read: what is read from now on are values."""

    def whole(self) -> SourceFile:
        """The file that values are read from: itself, where it is here."""
        return self

    def refused(self, error: FormatError, is_known: bool = True) -> FormatError:
        """The error to raise where the file is broken, or (`is_known` False) of no known format: a
        download says where it came from, and what helps.
        """
        return error

    def sha256(self, on_progress: OnProgress = ignore) -> str:
        """The SHA-256 of the whole file in hex."""
        return sha256_of(self.fd, self.size, self.path, on_progress)

    def has_changed(self) -> bool:
        """Whether the file has another stamp by now than when it was opened."""
        return self.stamp != _stamp(_status(self.fd, self.path))

    def close(self) -> None:
        """Lets go of the descriptor; may be called again."""
        self.release()

    def __enter__(self) -> SourceFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def sha256_at(path: str) -> str:
    """The SHA-256 of the file at this path in hex. Raises InputError."""
    with SourceFile(path) as file:
        return file.sha256()


def sha256_of(fd: int, size: int, path: str, on_progress: OnProgress = ignore) -> str:
    """The SHA-256 of a file of `size` bytes in hex, read in pieces. Raises FormatError where it
    ends before them.
    """
    from hashlib import sha256  # loads OpenSSL

    digest, done = sha256(), 0
    while done < size:
        piece = read_at(fd, min(PIECE, size - done), done, path)
        if not piece:
            raise FormatError(path, "was cut while being read", "somebody else is writing to it")
        digest.update(piece)
        done += len(piece)
        on_progress(len(piece))
    return digest.hexdigest()


def _read_into(fd: int, buffer: memoryview, offset: int) -> int:
    """preadv(2), which macOS has from 11 on; without it the bytes are copied once more."""
    if hasattr(os, "preadv"):
        return os.preadv(fd, [buffer], offset)
    part = os.pread(fd, len(buffer), offset)
    buffer[: len(part)] = part
    return len(part)


def read_at(fd: int, length: int, offset: int, path: str) -> bytes:
    """At most so many bytes, none at the end. Raises InputError where the system can't
    read them.
    """
    try:
        return os.pread(fd, length, offset)
    except OSError as error:
        raise _unread(path, error) from None


def _unread(path: str, error: OSError) -> InputError:
    """The error of a disk or a network that fails."""
    return InputError(
        path,
        f"can't be read: {(error.strerror or str(error)).lower()}",
        "its disk, or the way to it, fails",
    )


def truncated(path: str, needed: int, size: int) -> Truncated:
    """The error of a file that ends too early: the number of missing bytes marks a broken
    download.
    """
    if needed > TENSOR_BYTES:
        return Truncated(path, f"points to byte {needed} of {size}: no download has so many", AGAIN)
    return Truncated(
        path, f"is cut off: {needed - size:,} bytes of at least {needed:,} are missing", AGAIN
    )


MAX_NEIGHBOURS = 2000
"""Names in a folder that a misspelt one is compared with."""


def _open(path: str) -> tuple[int, os.stat_result]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        raise _unopened(path, error) from None
    try:
        status = _status(fd, path)
        if not stat.S_ISREG(status.st_mode):
            raise InputError(path, f"is {_kind(status.st_mode)}, not a file")
    except InputError:
        os.close(fd)
        raise
    return fd, status


def _status(fd: int, path: str) -> os.stat_result:
    try:
        return os.fstat(fd)
    except OSError as error:
        raise _unread(path, error) from None


def _stamp(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _unopened(path: str, error: OSError | ValueError) -> InputError:
    if isinstance(error, FileNotFoundError):
        return _missing(path)
    if getattr(error, "errno", None) == errno.ENXIO:  # sockets, and devices that aren't there
        return InputError(path, f"is {_kind(os.stat(path).st_mode)}, not a file")
    hint = MORE_FILES if getattr(error, "errno", None) == errno.EMFILE else None
    return InputError(path, (getattr(error, "strerror", None) or str(error)).lower(), hint)


_FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_][\w.]*")
"""How a target names what builds a model: `package.module:function`."""
_A_MODEL = (
    "only files can be shown and compared; a model that code builds is a target: "
    "`ckpt plan A {}`, or `ckpt_tool.diff(path, model)` in Python"
)


_NO_CHECKPOINTS = (
    *(".py", ".pyc", ".ipynb", ".sh", ".yaml", ".yml", ".toml", ".md", ".rst", ".html", ".log"),
    *(".png", ".jpg", ".pdf", ".csv"),
)
"""Ends of names that no checkpoint has, so that none of them is meant by one."""


def _missing(path: str) -> InputError:
    if not os.path.islink(path):
        return InputError(path, "no such file", _nearest(path))
    place = os.readlink(path)
    hint = "git annex get" if "annex/objects/" in place else AGAIN
    return InputError(path, f"is a link to {place[:200]}, where nothing is", hint)


def _nearest(path: str) -> str | None:
    """What was probably meant."""
    from ckpt_tool.formats.remote.slips import address_meant, nearest_file, on_the_hub

    folder, name = os.path.split(path)
    meant = address_meant(path)
    try:
        names = os.listdir(folder or ".")
    except OSError:
        if not meant and (other := on_the_hub(path)):
            return f"its folder does not exist; on the hub it would be {other}"
        return f"is {meant} meant?" if meant else "its folder does not exist"
    if meant:
        return f"is {meant} meant?"
    if _FACTORY.fullmatch(path):
        return _A_MODEL.format(path)
    names = [each for each in names if not each.lower().endswith(_NO_CHECKPOINTS)]
    near = nearest_file(name, names) if len(names) < MAX_NEIGHBOURS else None
    return f"did you mean {os.path.join(folder, near)}?" if near else None


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    return next((text for test, text in kinds if test(mode)), "a device")
