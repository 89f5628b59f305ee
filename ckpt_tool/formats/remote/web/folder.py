"""Files on web servers, and what lies beside them as far as an index names it."""

from __future__ import annotations

import posixpath
import threading
from urllib.parse import quote, urlsplit, urlunsplit

from ckpt_tool.errors import FormatError, InputError
from ckpt_tool.formats.files import SourceFile, sha256_at
from ckpt_tool.formats.remote.access import Access
from ckpt_tool.formats.remote.held import HEAD, Held, head_for
from ckpt_tool.formats.remote.ranged import RangedFile
from ckpt_tool.formats.remote.web import torch_cache
from ckpt_tool.formats.remote.web.address import Address
from ckpt_tool.formats.remote.web.cached_file import CachedFile
from ckpt_tool.formats.remote.web.download import download
from ckpt_tool.formats.remote.web.errors import is_page, page_error
from ckpt_tool.formats.remote.web.requests import Answer, ask


class WebFolder:
    """Where files of a web server lie: it can't be listed."""

    __slots__ = ("_access", "_parts", "path")
    is_here = False

    def __init__(self, address: str, access: Access) -> None:
        self._parts, self._access = urlsplit(address), access
        self.path = Address(address).shown

    @property
    def name(self) -> str:
        """The last part of its path."""
        return posixpath.basename(self._parts.path.rstrip("/"))

    def names(self) -> tuple[str, ...]:
        """Nothing: web servers don't tell."""
        return ()

    def has(self, name: str) -> bool:
        """True, as asking would cost a request."""
        return True

    def open(self, name: str, header: int = 0) -> SourceFile:
        """A file in it, from the cache where it is there. Raises InputError."""
        return open_web(self._url(quote(name)), self._access, head_for(header))

    def join(self, name: str) -> str:
        """Its address, as it may be shown."""
        return Address(self._url(quote(name))).shown

    def parent(self) -> WebFolder:
        """The folder above."""
        return WebFolder(self._url(".."), self._access)

    def _url(self, name: str) -> str:
        path = posixpath.normpath(posixpath.join(self._parts.path, name))
        return urlunsplit(self._parts._replace(path=path, fragment=""))


class NamedInUrl(WebFolder):
    """The folder of one file whose own address is known as a whole, with its query."""

    __slots__ = ("_file",)

    def __init__(self, address: str, access: Access) -> None:
        Address(address).check()
        parts = urlsplit(address)
        folder = parts._replace(path=posixpath.dirname(parts.path) or "/")
        super().__init__(urlunsplit(folder), access)
        self._file = address

    @property
    def file_name(self) -> str:
        """What the file is called."""
        return torch_cache.name_of(Address(self._file))

    def open(self, name: str, header: int = 0) -> SourceFile:
        """The file itself, or one beside it. Raises InputError."""
        if name == self.file_name:
            return open_web(self._file, self._access)
        return super().open(name, header)

    def join(self, name: str) -> str:
        """Its address, as it may be shown."""
        return Address(self._file).shown if name == self.file_name else super().join(name)


def open_web(url: str, access: Access, head: int = HEAD) -> SourceFile:
    """The file: from the cache, or its first bytes, with more when that is asked for. Raises
    InputError.
    """
    address = Address(url)
    path = None if access.refresh else torch_cache.cached(address, access)
    if path is not None:
        return CachedFile(path, address, access)
    if access.is_offline:
        raise InputError(
            address.shown,
            f"is not in the cache, {torch_cache.folder()}",
            f"without {access.option('offline')} (CKPT_OFFLINE, HF_HUB_OFFLINE) it is fetched",
        )
    memory = access.memory
    if url in memory.refreshed:
        return CachedFile(torch_cache.place_for(address), address, access)
    held = memory.held.get(url)
    if held is None:
        with ask(address, 0, head - 1) as answer:
            if not _is_first_part(answer):
                return _all_of(address, access, answer)
            first = answer.all()
            _check(address, first)
            held = Held(int(answer.size or 0), answer.version, first)
        if access.refresh and (file := _still_cached(address, access, held)):
            return file
        memory.held[url] = held
    if access.sha256:  # what was asked for is checked before anything is said of the file
        return _fetched(address, access, known=held)
    return WebFile(address, access, held)


def _is_first_part(answer: Answer) -> bool:
    return answer.is_part and answer.size is not None


def _all_of(address: Address, access: Access, answer: Answer) -> SourceFile:
    """The file of a server that sends all of it when it is asked for a part."""
    access.reporter.note(
        f"{address.shown}: its server doesn't support range requests; all of it is downloaded"
    )
    return _fetched(address, access, None if answer.is_part else answer)


def _fetched(
    address: Address, access: Access, answer: Answer | None = None, known: Held | None = None
) -> CachedFile:
    path = download(address, access, answer, known)
    access.memory.refreshed.add(address.url)
    return CachedFile(path, address, access)


def _still_cached(address: Address, access: Access, held: Held) -> CachedFile | None:
    """The file in the cache where it is of the version that the server has, and has the bytes that
    were downloaded; downloaded anew where not; None where there is none.
    """
    path = torch_cache.place_for(address)
    try:
        SourceFile(path).close()
    except InputError:
        return None
    note = torch_cache.note_of(path)
    if held.version and note.version == held.version and note.sha256 == sha256_at(path):
        access.memory.refreshed.add(address.url)
        known = torch_cache.cached(address, access)
        return CachedFile(known, address, access) if known else None
    return _fetched(address, access, known=held)


def _check(address: Address, head: bytes) -> None:
    if is_page(head):
        raise page_error(address)


class WebFile(RangedFile):
    """A file on a web server. What describes its tensors is fetched by ranges; as soon as values
    are asked for, the file is downloaded into the cache.
    """

    __slots__ = ("_access", "_address", "_local", "_lock")

    def __init__(self, address: Address, access: Access, held: Held) -> None:
        super().__init__(address.shown, held)
        self._address, self._access = address, access
        self._local: SourceFile | None = None
        self._lock = threading.Lock()

    def fetch(self, offset: int, length: int) -> bytes:
        """So many bytes. Raises InputError; FormatError where it is another file by now."""
        with ask(self._address, offset, offset + length - 1) as answer:
            if not answer.is_part:
                raise InputError(
                    self.path, "its server sends parts of the file at one time, and not at another"
                )
            if (answer.size, answer.version) != (self.size, self.held.version):
                raise FormatError(self.path, "was changed while it was being read", "run it again")
            return answer.all()

    def whole(self) -> SourceFile:
        """The file in the cache, downloaded when it is not there. Raises InputError."""
        with self._lock:
            if self._local is None:
                path = torch_cache.cached(self._address, self._access)
                self._local = (
                    CachedFile(path, self._address, self._access)
                    if path
                    else _fetched(self._address, self._access, known=self.held)
                )
            return self._local

    def refused(self, error: FormatError, is_known: bool = True) -> FormatError:
        """As the file in the cache has it, once that is read."""
        return self._local.refused(error, is_known) if self._local is not None else error

    def has_changed(self) -> bool:
        """Whether what was downloaded has changed since."""
        return self._local is not None and self._local.has_changed()

    def close(self) -> None:
        """Closes what was downloaded."""
        if self._local is not None:
            self._local.close()
