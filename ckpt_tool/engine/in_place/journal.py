"""Changing the beginning or the end of a file in place, so that a process that is killed leaves it
old, new, or restorable.
"""

from __future__ import annotations

import binascii
import ctypes
import fcntl
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from ckpt_tool.engine.copying import write_at
from ckpt_tool.engine.durable.file import plain_errors, sync, sync_folder
from ckpt_tool.errors import OutputError
from ckpt_tool.formats.sharded.journal import journal_of

_COLLAPSE = 0x08
_INSERT = 0x20
"""FALLOC_FL_COLLAPSE_RANGE and FALLOC_FL_INSERT_RANGE, see fallocate(2)."""
BLOCK = 4096
"""Bytes are inserted into a file in whole blocks; those of common file systems divide this."""
MAX_BYTES = 128 << 20
"""Bytes of a journal: what a change replaces, and what by."""
_NUMBERS = ("inode", "size", "insert", "offset", "old")


@dataclass(frozen=True, slots=True)
class Change:
    """`content` goes to `offset`, after `insert` bytes have been put in at the file's beginning (a
    multiple of its blocks).
    """

    offset: int
    content: bytes
    insert: int = 0


@dataclass(frozen=True, slots=True)
class _Noted:
    """What a journal says: `old` stood at `offset` of a file of `size` bytes; the change puts
    `insert` bytes in and writes `new` there.
    """

    inode: int
    size: int
    insert: int
    offset: int
    old: bytes
    new: bytes

    @property
    def is_possible(self) -> bool:
        """Whether it lies inside the file, and puts in whole blocks, at the file's start alone."""
        if self.offset > self.size or self.insert % BLOCK:
            return False
        return not (self.insert and self.offset)


def change_in_place(
    path: str, change: Change, check: Callable[[os.stat_result], None] = lambda _: None
) -> int:
    """Makes the change durable and gives the file's new size. Its cost depends on the change, not
    on the file's size.

    What the change replaces is written to a journal first, and the journal is removed last:
    `restore` takes a change back whose process was killed. `check` is asked when nobody else can
    change the file in place any more. Raises OutputError; the file is then as it was.
    """
    with plain_errors(path, len(change.content)), _journal(path) as journal:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            check(os.fstat(fd))
            _note(journal, fd, path, change)
            sync_folder(os.path.dirname(journal_of(path)))
            try:
                _apply(fd, path, change)
            except BaseException:
                _take_back(fd, path, _read(path, journal))
                raise
            return os.fstat(fd).st_size
        finally:
            os.close(fd)


def restore(path: str) -> bool:
    """Takes back a change that was begun and not finished; False where there is none.

    Writes to nothing but the file, and only where it is what the change that the journal holds
    left of it. Raises OutputError.
    """
    journal = "" if "\0" in path else journal_of(path)
    if not journal or not os.path.lexists(journal):
        return False
    if os.path.islink(journal) or os.path.isdir(journal):
        raise _no_journal(path)
    with (
        plain_errors(path, 0),
        _locked(
            path, os.open(journal, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        ) as held,
    ):
        if not _is_at(held, journal):
            return False  # its process has finished meanwhile
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            _take_back(fd, path, _read(path, held))
        finally:
            os.close(fd)
        os.unlink(journal)
        sync_folder(os.path.dirname(journal))
    return True


@contextmanager
def _journal(path: str) -> Iterator[int]:
    """The descriptor of a new journal, which is gone when the block ends."""
    journal = journal_of(path)
    try:
        fd = os.open(journal, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise _by_another(path) from None
    with _locked(path, fd):
        if not _is_at(fd, journal):
            raise _by_another(path)  # who took the empty journal for one that was left behind
        try:
            yield fd
        except BaseException:
            with suppress(OSError):
                os.unlink(journal)
            raise
        try:
            os.unlink(journal)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            fact = (
                f"has its new names, but `{os.path.basename(journal)}` beside it can't be removed: "
                f"{why}"
            )
            raise OutputError(
                path, fact, "run the same command again: it undoes them and starts over"
            ) from None
        sync_folder(os.path.dirname(journal))


@contextmanager
def _locked(path: str, fd: int) -> Iterator[int]:
    """Holds the journal's lock, which ends with its process. Raises OutputError where another
    process holds it.
    """
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _by_another(path) from None
        yield fd
    finally:
        os.close(fd)


def _by_another(path: str) -> OutputError:
    return OutputError(path, "is being renamed in place by another process")


def _is_at(fd: int, path: str) -> bool:
    """Whether the path still means this file."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    return False


def _note(journal: int, fd: int, path: str, change: Change) -> None:
    """Writes down what the file is where the change touches it, and what it will be, and makes that
    durable.
    """
    status, new = os.fstat(fd), change.content
    old = os.pread(
        fd, max(0, min(len(new) - change.insert, status.st_size - change.offset)), change.offset
    )
    numbers = (status.st_ino, status.st_size, change.insert, change.offset, len(old))
    record = b"".join(
        [json.dumps(dict(zip(_NUMBERS, numbers, strict=True))).encode(), b"\n", old, new]
    )
    if len(record) > MAX_BYTES:
        raise OutputError(
            path,
            f"{len(record):,} bytes of it would change; in place at most {MAX_BYTES:,} do",
            "write a new file with -o",
        )
    write_at(journal, b"%08x\n" % binascii.crc32(record) + record, 0)
    sync(journal)


def _apply(fd: int, path: str, change: Change) -> None:
    if change.insert and not _fallocate(fd, _INSERT, change.insert):
        hint = "give shorter names, or write a new file with -o"
        raise OutputError(
            path, "its new header needs more room, which this file system can't insert", hint
        )
    write_at(fd, change.content, change.offset)
    sync(fd)


def _take_back(fd: int, path: str, noted: _Noted | None) -> None:
    """Restores what the journal says; a journal that was not finished says that nothing was changed
    yet.
    """
    if noted is None or noted.inode != os.fstat(fd).st_ino:
        return
    is_inserted = noted.insert > 0 and os.fstat(fd).st_size == noted.size + noted.insert
    if not _is_as_left(fd, noted, is_inserted):
        hint = f"if it is complete, remove `{os.path.basename(journal_of(path))}` beside it"
        raise OutputError(path, "is not what renaming it in place left when that was stopped", hint)
    if is_inserted and not _fallocate(fd, _COLLAPSE, noted.insert):
        raise OutputError(
            path, "can't be restored: this file system can't remove the bytes that were put in"
        )
    write_at(fd, noted.old, noted.offset)
    os.ftruncate(fd, noted.size)
    sync(fd)


def _is_as_left(fd: int, noted: _Noted, is_inserted: bool) -> bool:
    """Whether each byte where the change was is the old one or the new one, and nothing else was
    added to the file.
    """
    room, old, new = (
        (noted.insert, bytes(noted.insert) + noted.old, noted.new)
        if is_inserted
        else (0, noted.old, noted.new[noted.insert :])
    )
    if (
        not noted.size + room
        <= os.fstat(fd).st_size
        <= max(noted.size + room, noted.offset + len(new))
    ):
        return False
    now = os.pread(fd, len(new), noted.offset)
    # What a file was lengthened by reads as zeros until it has been written.
    return all(
        _is_mix(now[i : i + BLOCK], old[i : i + BLOCK], new[i : i + BLOCK])
        for i in range(0, len(now), BLOCK)
    )


def _is_mix(now: bytes, old: bytes, new: bytes) -> bool:
    if now in (old, new[: len(now)]):
        return True
    return all(
        byte in pair
        for byte, pair in zip(now, zip(old.ljust(len(new), b"\0"), new, strict=True), strict=False)
    )


def _read(path: str, journal: int) -> _Noted | None:
    status = os.fstat(journal)
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES + 9:
        raise _no_journal(path)
    raw = os.pread(journal, status.st_size, 0)
    if raw[:9] != b"%08x\n" % binascii.crc32(memoryview(raw)[9:]):
        return None
    end = raw.find(b"\n", 9, 999) + 1
    numbers = _numbers(raw[9:end])
    if numbers is None:
        raise _no_journal(path)
    inode, size, insert, offset, length = numbers
    old, new = raw[end : end + length], raw[end + length :]
    noted = _Noted(inode, size, insert, offset, old, new)
    if len(old) < length or insert + length > len(new) or not noted.is_possible:
        raise _no_journal(path)
    return noted


def _numbers(line: bytes) -> list[int] | None:
    """The numbers of a journal's first line; None for what is none."""
    try:
        fields = json.loads(line)
        numbers = [fields[name] for name in _NUMBERS]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return (
        numbers
        if all(type(number) is int and 0 <= number < 1 << 62 for number in numbers)
        else None
    )


def _no_journal(path: str) -> OutputError:
    name = os.path.basename(journal_of(path))
    return OutputError(
        path,
        f"`{name}` beside it is not a journal of a renaming in place",
        "if the file is complete, remove that one",
    )


def _fallocate(fd: int, mode: int, length: int) -> bool:
    """Inserts or removes bytes at a file's beginning; False where the file system can't."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
    return call is not None and call(fd, mode, ctypes.c_int64(0), ctypes.c_int64(length)) == 0
