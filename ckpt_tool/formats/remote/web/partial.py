"""What was downloaded of a file so far: of one process at a time, and of a known version."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from ckpt_tool.errors import InputError
from ckpt_tool.formats.remote.access import Access
from ckpt_tool.formats.remote.web.address import Address
from ckpt_tool.formats.remote.web.requests import Answer

PARTIAL = ".ckpt-partial"


@dataclass(slots=True)
class Partial:
    """What was downloaded so far, in an open and locked file; beside it is written of which version
    of the file it is.
    """

    path: str
    fd: int

    @property
    def note(self) -> str:
        """The path of what is written of it."""
        return f"{self.path}.json"

    def version(self, address: Address) -> str:
        """The version that it is a part of; empty where that is not known."""
        with suppress(OSError, ValueError, TypeError, KeyError):
            with open(self.note, encoding="utf-8") as file:
                found = json.load(file)
            if found["url"] == address.identity:
                return str(found["version"])
        return ""

    def begin(self, answer: Answer) -> None:
        """Empties it for what begins at the first byte."""
        os.ftruncate(self.fd, 0)
        with open(self.note, "w", encoding="utf-8") as file:
            json.dump({"url": answer.address.identity, "version": answer.version}, file)

    def write(self, content: bytes, offset: int) -> None:
        """Writes all of it at this offset."""
        view = memoryview(content)
        while view:
            count = os.pwrite(self.fd, view, offset)
            view, offset = view[count:], offset + count

    def stopped(self, error: BaseException) -> None:
        """Keeps what may be gone on with; removes what is wrong, or fills the disk."""
        is_kept = isinstance(error, Stopped | KeyboardInterrupt | SystemExit)
        if not (is_kept and os.path.exists(self.note) and os.fstat(self.fd).st_size):
            self.remove()

    def remove(self) -> None:
        """Removes it, and what is written of it."""
        for path in (self.path, self.note):
            with suppress(OSError):
                os.unlink(path)


class Stopped(InputError):
    """A connection that ended, in a way that a later one can go on."""


@contextmanager
def locked(final: str, access: Access) -> Iterator[int | None]:
    """The partial file, open for this process alone; None where another one has finished it while
    this one waited.
    """
    os.makedirs(os.path.dirname(final), exist_ok=True)
    before = _identity(final)
    while True:
        fd = os.open(final + PARTIAL, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            _lock(fd, final, access)
            if _identity(final + PARTIAL) == _identity_of(os.fstat(fd)):
                if _identity(final) != before:
                    os.unlink(final + PARTIAL)
                    yield None
                else:
                    yield fd
                return
        finally:
            os.close(fd)
        if _identity(final) not in (None, before):
            yield None
            return


def _lock(fd: int, final: str, access: Access) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        access.reporter.note(f"{final}: waiting for another process, which downloads it")
        fcntl.flock(fd, fcntl.LOCK_EX)


def _identity(path: str) -> tuple[int, ...] | None:
    try:
        return _identity_of(os.lstat(path))
    except OSError:
        return None


def _identity_of(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino
