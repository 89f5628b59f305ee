"""A file that appears complete or not at all: written under another name beside it, made durable,
then renamed.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ckpt_tool.engine.durable.temporary import create_temporary, remove_strays
from ckpt_tool.engine.inputs import ANYBODY, keep_owner
from ckpt_tool.errors import OutputError
from ckpt_tool.formats.files import MORE_FILES


@contextmanager
def atomic_output(path: str, size: int, replace: bool, mode: int = ANYBODY) -> Iterator[int]:
    """A file descriptor of `size` bytes to fill; the file takes its name only when the block ends
    without an exception.

    A symbolic link is followed: what it points at is replaced, and leaves its permissions and its
    owner to the new one. `mode` are the permissions of a file that was not there before, before the
    umask. Raises OutputError where the file exists and `replace` is False, where it can't be
    created, and where there is no room; what was there before is then untouched. What writers that
    were killed left in the folder is removed first.
    """
    final = os.path.realpath(path)
    before = _status_before(path, final, replace)
    folder, name = os.path.split(final)
    remove_strays(folder)
    check_room(path, folder, size)
    with plain_errors(path, size):
        temporary, fd = create_temporary(folder, name, mode)
    try:
        with plain_errors(path, size):
            if before is not None:
                keep_owner(fd, before)
                os.fchmod(
                    fd, stat.S_IMODE(before.st_mode)
                )  # after the owner, whose change takes some bits away
            allocate(fd, size)
            yield fd
            sync(fd)
            # Still open, and so still locked: nobody takes it for a stray before it has its name.
            _publish(temporary, final, replace)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    finally:
        with suppress(OSError):  # what was written is durable already
            os.close(fd)
    sync_folder(folder)


def _status_before(path: str, final: str, replace: bool) -> os.stat_result | None:
    """The status of the file that will be replaced, or None where there is none."""
    try:
        status = os.stat(final)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise OutputError(path, _fact(error)) from None
    if not stat.S_ISREG(status.st_mode):
        raise OutputError(
            path,
            "is a folder, not a file" if stat.S_ISDIR(status.st_mode) else "is not a regular file",
        )
    if not replace:
        raise OutputError(path, "exists already", "`--force` replaces it")
    return status


def check_room(path: str, folder: str, size: int) -> None:
    """Raises OutputError where a file system has less than `size` bytes free."""
    try:
        free = os.statvfs(folder)
    except (OSError, ValueError) as error:
        raise OutputError(path, _fact(error)) from None
    available = free.f_bavail * free.f_frsize
    if size > available:
        raise OutputError(
            path, f"needs {size:,} bytes, and {available:,} are free", "nothing was written"
        )


def allocate(fd: int, size: int) -> None:
    """Claims the room beforehand, so that a full disk is known before the work; not every file
    system can.
    """
    if size and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
            os.ftruncate(fd, size)
    else:
        os.ftruncate(fd, size)


def _publish(temporary: str, final: str, replace: bool) -> None:
    if replace:
        os.replace(temporary, final)
        return
    # A hard link fails where the name has been taken meanwhile; a rename would replace what
    # somebody else just wrote.
    try:
        os.link(temporary, final)
    except FileExistsError:
        raise OutputError(
            final,
            "exists already: it was written by somebody else meanwhile",
            "`--force` replaces it",
        ) from None
    except OSError:
        os.replace(temporary, final)  # a file system without hard links
    else:
        with suppress(OSError):  # the file has its name; the next run removes the other
            os.unlink(temporary)


def sync(fd: int) -> None:
    """Makes durable what was written to a file. Raises OSError.

    On macOS fsync(2) may leave it in the drive's own memory; as its manual asks, F_FULLFSYNC is
    used where the file system has it.
    """
    if hasattr(fcntl, "F_FULLFSYNC"):
        try:
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY):
                raise
    os.fsync(fd)


def sync_folder(folder: str) -> None:
    """Makes the names in a folder durable."""
    # Some file systems can't fsync a folder; the rename itself has happened.
    with suppress(OSError):
        fd = os.open(folder, os.O_RDONLY)
        try:
            sync(fd)
        finally:
            os.close(fd)


@contextmanager
def plain_errors(path: str, size: int) -> Iterator[None]:
    """Turns the system's errors into OutputError, in words."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            path, _fact(error, size), MORE_FILES if error.errno == errno.EMFILE else None
        ) from None


def _fact(error: OSError | ValueError, size: int = 0) -> str:
    code = getattr(error, "errno", None)
    if code in (errno.ENOSPC, errno.EDQUOT):
        return f"no room for {size:,} bytes: {os.strerror(code).lower()}"
    if code == errno.EFBIG:
        return f"{size:,} bytes are more than a file may have here"
    if isinstance(error, FileNotFoundError):
        return "its folder does not exist"
    text = getattr(error, "strerror", None) or str(error)
    return f"can't be written: {text.lower()}"
