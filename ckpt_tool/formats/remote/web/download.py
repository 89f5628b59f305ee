"""A file downloaded into the cache: complete or not at all, one at a time, and resumed where it was
stopped.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from ckpt_tool.errors import CkptError, FormatError, InputError
from ckpt_tool.formats.archives.zip_directory import read_directory
from ckpt_tool.formats.files import SourceFile
from ckpt_tool.formats.remote.access import Access
from ckpt_tool.formats.remote.held import Held
from ckpt_tool.formats.remote.web import torch_cache
from ckpt_tool.formats.remote.web.address import Address
from ckpt_tool.formats.remote.web.errors import cut, is_page, page_error
from ckpt_tool.formats.remote.web.partial import PARTIAL, Partial, Stopped, locked
from ckpt_tool.formats.remote.web.requests import PIECE, Answer, ask

if TYPE_CHECKING:
    from hashlib import _Hash

_ZIP = b"PK\3\4"
_ERROR = re.compile(rb"\s*\{\s*\"(?:error|errors|message|detail|status|code)\"\s*:[^\n]*")
"""How servers word errors in JSON, whatever status they send with it."""
_RESUMED = "run it again: it goes on from there"


def download(
    address: Address, access: Access, answer: Answer | None = None, known: Held | None = None
) -> str:
    """The path of the address's file in the cache, after it was downloaded; `answer` is one that
    brings the whole file already, `known` what an earlier one has said of the file. Raises
    InputError, and leaves nothing half under its name.
    """
    while True:
        final = torch_cache.place_for(address)
        with _os_errors(final), locked(final, access) as fd:
            if fd is not None and torch_cache.place_for(address) == final:
                _fetch(address, access, answer, _Wanted(final, known), Partial(final + PARTIAL, fd))
                return final
            if fd is not None:  # by now another address's file has this name
                os.unlink(final + PARTIAL)
        path = torch_cache.cached(address, access)
        if path is not None:  # another process has just downloaded it
            return path


def _fetch(
    address: Address, access: Access, answer: Answer | None, wanted: _Wanted, partial: Partial
) -> None:
    try:
        if answer is None:
            with _resumed(address, partial) as answer:
                _save(address, access, answer, partial, wanted)
        else:
            _save(address, access, answer, partial, wanted)
    except BaseException as error:
        partial.stopped(error)
        raise


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Where a file belongs, and what is known of it before it comes."""

    final: str
    known: Held | None

    def check(self, answer: Answer) -> None:
        """Raises FormatError where the answer is of another file than the one that is known."""
        if self.known is None:
            return
        size, version = self.known.size, self.known.version
        versions = {answer.version, version} - {""}
        if answer.size not in (None, size) or len(versions) > 1:
            raise FormatError(
                answer.address.shown, "was changed while it was being read", "run it again"
            )

    def size(self, answer: Answer) -> int | None:
        """How many bytes the file has, where anything tells it."""
        return self.known.size if answer.size is None and self.known else answer.size


@contextmanager
def _resumed(address: Address, partial: Partial) -> Iterator[Answer]:
    """The answer that brings what is missing, or all of the file where nothing can be gone on
    with.
    """
    done, version = os.fstat(partial.fd).st_size, partial.version(address)
    if not (done and version):
        with ask(address) as answer:
            yield answer
        return
    with _ask_rest(address, done, version) as answer:
        yield answer


@contextmanager
def _ask_rest(address: Address, done: int, version: str) -> Iterator[Answer]:
    # One byte that is there already is asked for again, so that there is always something to send.
    with ask(address, done - 1, version=version) as answer:
        if not answer.is_part or answer.version == version:
            yield answer
            return
    with ask(address) as answer:
        yield answer


def _save(
    address: Address, access: Access, answer: Answer, partial: Partial, wanted: _Wanted
) -> None:
    """Writes what comes, checks it, and gives it its name."""
    final, size = wanted.final, wanted.size(answer)
    wanted.check(answer)
    if not answer.is_part:
        partial.begin(answer)
    done = answer.first
    os.ftruncate(partial.fd, done)
    _check_room(final, answer)
    digest = sha256()
    for offset in range(0, done, PIECE):
        digest.update(os.pread(partial.fd, min(PIECE, done - offset), offset))
    with access.reporter.download(address.shown, final, size) as progress:
        progress(done)
        done = _receive(answer, partial, digest, progress, done)
    if size is not None and done != size:
        raise _stopped(answer, done, size)
    if not done:
        raise FormatError(address.shown, "is empty (zero bytes)")
    if not _is_digest_right(final, access, digest.hexdigest(), address):
        _check_members(partial.path, address)
    os.fchmod(partial.fd, 0o666 & ~_umask())
    os.fsync(partial.fd)
    # Noted before it has its name, so that nobody finds it without knowing whose it is.
    torch_cache.noted(address, final, answer.version, digest.hexdigest(), os.fstat(partial.fd))
    os.replace(partial.path, final)
    with suppress(OSError):
        os.unlink(partial.note)
    _sync_folder(os.path.dirname(final))
    access.memory.downloaded[address.url] = size is not None


def _receive(
    answer: Answer,
    partial: Partial,
    digest: _Hash,
    progress: Callable[[int], object],
    done: int,
) -> int:
    start = done
    try:
        for piece in answer.pieces():
            if not done and is_page(piece[:4096]):
                raise page_error(answer.address)
            if not done and (found := _ERROR.match(piece[:4096])):
                said = found[0].decode("utf-8", "replace")
                raise InputError(
                    answer.address.shown, f"its server sends an error, not a file: {said[:100]}"
                )
            partial.write(piece, done)
            digest.update(piece)
            done += len(piece)
            progress(len(piece))
    except CkptError as error:
        if isinstance(error, InputError) and done > start and answer.version:
            raise Stopped(error.path, error.fact, _RESUMED) from None
        raise
    return done


def _stopped(answer: Answer, done: int, size: int) -> InputError:
    """The error of a connection that has ended after so many bytes of the file."""
    error = cut(answer.address, done, size)
    if not answer.version:
        return error
    return Stopped(error.path, error.fact, _RESUMED)


def _check_room(final: str, answer: Answer) -> None:
    if answer.length is None:
        return
    free = shutil.disk_usage(os.path.dirname(final)).free
    if answer.length > free:
        raise InputError(
            final,
            f"there are {free:,} bytes free for the {answer.length:,} of {answer.address.shown}",
            "TORCH_HOME names another place for the cache",
        )


def _is_digest_right(final: str, access: Access, found: str, address: Address) -> bool:
    """False where no digest is known. Raises InputError where it is another one."""
    wanted = torch_cache.wanted_digests(final, access)
    if wanted and not any(found.startswith(one) for one in wanted):
        raise torch_cache.wrong_digest(
            address.shown,
            found,
            wanted,
            access,
            "it is not the file that it should be; nothing was kept",
        )
    return bool(wanted)


def _check_members(path: str, address: Address) -> None:
    """Raises FormatError where bytes of a zip archive don't match its own checksums: once, as from
    .pth to .pth these are carried over unread. What else is wrong with it whoever opens it says.
    """
    with SourceFile(path) as file:
        if file.size < len(_ZIP) or file.read(0, len(_ZIP)) != _ZIP:
            return
        try:
            archive = read_directory(file)
        except FormatError:
            return
        try:
            archive.verify()
        except FormatError as error:
            hint = "it was damaged on its way; nothing was kept, run it again"
            raise FormatError(address.shown, error.fact, hint, error.place) from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(path: str) -> None:
    with suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


@contextmanager
def _os_errors(final: str) -> Iterator[None]:
    """Errors of the disk in words."""
    try:
        yield
    except OSError as error:
        raise InputError(
            final,
            f"can't be written: {(error.strerror or str(error)).lower()}",
            "TORCH_HOME names another place for the cache",
        ) from None
