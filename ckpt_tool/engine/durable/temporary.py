"""The name and the lock of a file or folder that is being written, and the removal of those whose
writer was killed.
"""

import fcntl
import os
import re
import shutil
import stat
import time
from collections.abc import Callable
from contextlib import suppress

SUFFIX = ".ckpt-tmp"
FORGOTTEN = 24 * 3600
"""Seconds without a change after which a file of another machine counts as left behind: its locks
may not be seen here.
"""
_NAME = re.compile(r"\..*\.(?P<host>[A-Za-z0-9-]+)\.[0-9]+-[0-9a-f]{8}" + re.escape(SUFFIX))
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def create_temporary(folder: str, name: str, mode: int = 0o666) -> tuple[str, int]:
    """A new file beside the one to be written, as its path and a descriptor that holds its lock.
    Raises OSError.

    Its name says whose it is, `.NAME.HOST.PID-RANDOM.ckpt-tmp`; the lock says that its writer
    lives, and ends with it.
    """
    return _create(
        folder,
        name,
        lambda path: os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, mode),
        os.unlink,
    )


def create_temporary_folder(folder: str, name: str) -> tuple[str, int]:
    """The same for a folder."""

    def make(path: str) -> int:
        os.mkdir(path)
        return os.open(path, os.O_RDONLY | _FLAGS)

    return _create(folder, name, make, os.rmdir)


def _create(
    folder: str, name: str, make: Callable[[str], int], remove: Callable[[str], None]
) -> tuple[str, int]:
    start = os.fsencode(name)[:120].decode(errors="ignore")
    while True:
        path = os.path.join(
            folder, f".{start}.{_host()}.{os.getpid()}-{os.urandom(4).hex()}{SUFFIX}"
        )
        try:
            fd = make(path)
        except FileNotFoundError:
            # A folder that somebody took for a stray in the moment before it was opened.
            if os.path.isdir(folder):
                continue
            raise
        is_held = False
        try:
            is_held = _lock(fd) is not False and _is_at(fd, path)
        finally:
            # Where not, somebody took it for a stray in the moment before it was locked.
            if not is_held:
                os.close(fd)
                with suppress(OSError):
                    remove(path)
        if is_held:
            return path, fd


def remove_strays(folder: str) -> None:
    """Removes the files and folders of writers that were killed: those of our own naming that
    nobody holds a lock on.

    A process number proves nothing, since numbers are used again. A file that can't be opened or
    locked stays.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for name in [entry.name for entry in entries if entry.name.endswith(SUFFIX)]:
            found = _NAME.fullmatch(name)
            if found:
                with suppress(OSError):
                    _remove_stray(os.path.join(folder, name), found["host"] == _host())


def _remove_stray(path: str, is_ours: bool) -> None:
    mode = os.lstat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        return
    fd = _open(path)
    try:
        is_forgotten = is_ours or time.time() - os.fstat(fd).st_mtime > FORGOTTEN
        if is_forgotten and _lock(fd) and _is_at(fd, path):
            shutil.rmtree(path) if stat.S_ISDIR(mode) else os.unlink(path)
    finally:
        os.close(fd)


def _open(path: str) -> int:
    # Network file systems lock only what is open for writing, which a file that replaces a read-
    # only one is not.
    try:
        return os.open(path, os.O_RDWR | _FLAGS)
    except (PermissionError, IsADirectoryError):
        return os.open(path, os.O_RDONLY | _FLAGS)


def _lock(fd: int) -> bool | None:
    """Whether the lock is ours now; None where the file system has none."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(fd: int, path: str) -> bool:
    """Whether the path still means this file."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def _host() -> str:
    return re.sub("[^A-Za-z0-9-]", "-", os.uname().nodename)[:40] or "-"
