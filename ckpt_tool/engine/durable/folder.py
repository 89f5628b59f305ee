"""A folder that gets all of its new files at once: they are made in a folder beside it, which then
takes its place.
"""

import ctypes
import errno
import fcntl
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ckpt_tool.engine.durable.file import allocate, check_room, plain_errors, sync, sync_folder
from ckpt_tool.engine.durable.temporary import create_temporary_folder, remove_strays
from ckpt_tool.engine.inputs import ANYBODY
from ckpt_tool.errors import OutputError

_HERE = -100  # AT_FDCWD
_EXCHANGE = 2  # RENAME_EXCHANGE, see renameat2(2) of Linux
_SWAP = 2  # RENAME_SWAP, see renamex_np(2) of macOS


@contextmanager
def atomic_folder(path: str, size: int, own: re.Pattern[str], replace: bool) -> Iterator[str]:
    """A folder to make files in, of `size` bytes in all; it becomes the folder `path` when the
    block ends without an exception.

    A folder that is there already is replaced in one step: files whose names match `own` go, which
    needs `replace`, the others stay. Raises OutputError where that can't be done; what was there
    before is then untouched.
    """
    final = os.path.realpath(path)
    parent, name = os.path.split(final)
    with plain_errors(path, size):
        _check(path, final, parent)
    remove_strays(parent)
    check_room(path, parent, size)
    with plain_errors(path, size):
        stage, lock = create_temporary_folder(parent, name)
    try:
        with plain_errors(path, size):
            yield stage
            sync_folder(stage)
            _publish(path, stage, final, own, replace)
        sync_folder(parent)
    finally:
        # What was replaced, or what was not finished; or nothing.
        try:
            with suppress(OSError):
                shutil.rmtree(stage, ignore_errors=True)
        finally:
            with suppress(OSError):
                os.close(lock)


@contextmanager
def new_file(path: str, size: int, mode: int = ANYBODY) -> Iterator[int]:
    """The descriptor of a new file of `size` bytes, durable when the block ends; `mode` are its
    permissions before the umask.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        allocate(fd, size)
        yield fd
        sync(fd)
    finally:
        os.close(fd)


def _check(path: str, final: str, parent: str) -> None:
    if not os.path.isdir(parent):
        raise OutputError(path, "its folder does not exist")
    if not os.path.lexists(final):
        return
    if not os.path.isdir(final):
        raise OutputError(path, "is a file, not a folder")
    if os.path.samestat(os.stat(final), os.stat(os.curdir)):
        raise OutputError(
            path,
            "is the folder that this runs in, and would be another one afterwards",
            "run it from elsewhere",
        )
    if os.stat(final).st_dev != os.stat(parent).st_dev:
        raise OutputError(path, "is where a file system is mounted", "give a folder in it")
    with os.scandir(final) as entries:
        folders = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    if folders:
        raise OutputError(path, f"holds a folder, `{folders[0]}`", "give a folder of its own")


def _publish(path: str, stage: str, final: str, own: re.Pattern[str], replace: bool) -> None:
    if not os.path.isdir(final) or not os.listdir(final):
        try:
            _keep_permissions(stage, final)
            os.rename(stage, final)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            raise _taken_meanwhile(path) from None
        return
    with _alone_in(final):
        _replace(path, stage, final, own, replace)


def _replace(path: str, stage: str, final: str, own: re.Pattern[str], replace: bool) -> None:
    if not replace and _has_own(final, own):
        raise _taken_meanwhile(path)
    _keep_permissions(stage, final)
    _keep_permissions_of_files(stage, final, own)
    for name in _others(final, own):
        os.link(os.path.join(final, name), os.path.join(stage, name), follow_symlinks=False)
    sync_folder(stage)
    if not _exchange(stage, final):
        raise OutputError(
            path, "can't be replaced in one step on this file system", "move it away first"
        )
    # From here on `stage` is what was replaced.
    if not replace and _has_own(stage, own):
        _exchange(stage, final)
        raise _taken_meanwhile(path)
    _bring_what_came_meanwhile(stage, final, own)


def _keep_permissions(stage: str, final: str) -> None:
    """Gives the new folder the mode and the owner of the one that it replaces, if there is one."""
    with suppress(FileNotFoundError):
        status = os.stat(final)
        with suppress(OSError):
            os.chown(stage, status.st_uid, status.st_gid)
        os.chmod(
            stage, stat.S_IMODE(status.st_mode)
        )  # after the owner, whose change takes some bits away


def _keep_permissions_of_files(stage: str, final: str, own: re.Pattern[str]) -> None:
    """Gives each new file the mode and the owner of the one that it replaces; one of a new name,
    those of the first that goes.
    """
    before = {
        name: os.stat(os.path.join(final, name))
        for name in sorted(os.listdir(final))
        if own.fullmatch(name)
    }
    for name in os.listdir(stage):
        status = before.get(name) or next(iter(before.values()), None)
        if status is not None:
            path = os.path.join(stage, name)
            with suppress(OSError):
                os.chown(path, status.st_uid, status.st_gid)
            os.chmod(path, stat.S_IMODE(status.st_mode))


@contextmanager
def _alone_in(folder: str) -> Iterator[None]:
    """Holds a folder's lock: of several writers one after the other looks into it and
    replaces it.
    """
    while True:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(fd, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(fd), os.stat(folder)):
                yield
                return
        finally:
            os.close(fd)


def _has_own(folder: str, own: re.Pattern[str]) -> bool:
    return any(own.fullmatch(name) for name in os.listdir(folder))


def _others(folder: str, own: re.Pattern[str]) -> list[str]:
    return [name for name in os.listdir(folder) if not own.fullmatch(name)]


def _taken_meanwhile(path: str) -> OutputError:
    return OutputError(
        path, "exists already: it was written by somebody else meanwhile", "`--force` replaces it"
    )


def _bring_what_came_meanwhile(old: str, new: str, own: re.Pattern[str]) -> None:
    """Moves the files that somebody else made, or made anew, in a folder between the look at it and
    its replacement.
    """
    for name in _others(old, own):
        there, here = os.path.join(old, name), os.path.join(new, name)
        if not os.path.lexists(here) or not os.path.samestat(os.lstat(there), os.lstat(here)):
            os.replace(there, here)


def _exchange(one: str, other: str) -> bool:
    """Lets two folders take each other's place; False where the system or the file system can't."""
    system, names = ctypes.CDLL(None, use_errno=True), (os.fsencode(one), os.fsencode(other))
    if hasattr(system, "renameat2"):
        return not system.renameat2(_HERE, names[0], _HERE, names[1], _EXCHANGE)
    return hasattr(system, "renamex_np") and not system.renamex_np(*names, _SWAP)
