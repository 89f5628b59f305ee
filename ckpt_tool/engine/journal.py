"""Changing the beginning or the end of a file in place, so that a process that is killed leaves it old, new, or restorable."""

from __future__ import annotations

import base64
import binascii
import ctypes
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from ckpt_tool.engine.atomic import plain_errors, sync_folder
from ckpt_tool.engine.copying import write_at
from ckpt_tool.errors import OutputError
from ckpt_tool.formats.journal import journal_of

_COLLAPSE, _INSERT = 0x08, 0x20  # FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE, see fallocate(2)


@dataclass(frozen=True, slots=True)
class Change:
    """`content` goes to `offset`, after `insert` bytes have been put in at the file's beginning (a multiple of its blocks)."""

    offset: int
    content: bytes
    insert: int = 0


def change_in_place(path: str, change: Change) -> int:
    """Makes the change durable and gives the file's new size. Its cost depends on the change, not on the file's size.

    What the change replaces is written to a journal first, and the journal is removed last: `restore` takes a change back
    whose process was killed. Raises OutputError; the file is then as it was.
    """
    with _journal(path) as journal, plain_errors(path, len(change.content)):
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            _note(journal, fd, change)
            sync_folder(os.path.dirname(journal_of(path)))
            try:
                _apply(fd, path, change)
            except BaseException:
                _take_back(fd, journal)
                raise
            return os.fstat(fd).st_size
        finally:
            os.close(fd)


def restore(path: str) -> bool:
    """Takes back a change that was begun and not finished; False where there is none. Raises OutputError."""
    journal = journal_of(path)
    if not os.path.lexists(journal):
        return False
    with plain_errors(path, 0), _locked(path, os.open(journal, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)) as held:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            _take_back(fd, held)
        finally:
            os.close(fd)
        os.unlink(journal)
        sync_folder(os.path.dirname(journal))
    return True


@contextmanager
def _journal(path: str) -> Iterator[int]:
    """The descriptor of a new journal, which is gone when the block ends."""
    journal = journal_of(path)
    with plain_errors(path, 0):
        try:
            fd = os.open(journal, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise OutputError(path, "is being renamed in place by somebody else") from None
    with _locked(path, fd):
        try:
            yield fd
        finally:
            with suppress(OSError):
                os.unlink(journal)
            sync_folder(os.path.dirname(journal))


@contextmanager
def _locked(path: str, fd: int) -> Iterator[int]:
    """Holds the journal's lock, which ends with its process. Raises OutputError where another process holds it."""
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(path, "is being renamed in place by another process") from None
        yield fd
    finally:
        os.close(fd)


def _note(journal: int, fd: int, change: Change) -> None:
    """Writes down what the file was where the change touches it, and makes that durable."""
    status = os.fstat(fd)
    old = os.pread(fd, max(0, min(len(change.content) - change.insert, status.st_size - change.offset)), change.offset)
    fields = {"inode": status.st_ino, "size": status.st_size, "insert": change.insert, "offset": change.offset}
    record = json.dumps(fields | {"old": base64.b64encode(old).decode()}).encode()
    write_at(journal, b"%08x\n%s" % (binascii.crc32(record), record), 0)
    os.fsync(journal)


def _apply(fd: int, path: str, change: Change) -> None:
    if change.insert and not _fallocate(fd, _INSERT, change.insert):
        hint = "give shorter names, or write a new file with -o"
        raise OutputError(path, "its new header needs more room, which this file system can't insert", hint)
    write_at(fd, change.content, change.offset)
    os.fsync(fd)


def _take_back(fd: int, journal: int) -> None:
    """Restores what the journal says; a journal that was not finished says that nothing was changed yet."""
    noted = _read(journal)
    status = os.fstat(fd)
    if noted is None or noted["inode"] != status.st_ino:
        return
    if noted["insert"] and status.st_size == noted["size"] + noted["insert"]:
        _fallocate(fd, _COLLAPSE, noted["insert"])
    write_at(fd, base64.b64decode(noted["old"]), noted["offset"])
    os.ftruncate(fd, noted["size"])
    os.fsync(fd)


def _read(journal: int) -> dict[str, Any] | None:
    raw = os.pread(journal, os.fstat(journal).st_size, 0)
    crc, _, record = raw.partition(b"\n")
    return json.loads(record) if crc == b"%08x" % binascii.crc32(record) else None


def _fallocate(fd: int, mode: int, length: int) -> bool:
    """Inserts or removes bytes at a file's beginning; False where the file system can't."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
    return call is not None and call(fd, mode, ctypes.c_int64(0), ctypes.c_int64(length)) == 0
