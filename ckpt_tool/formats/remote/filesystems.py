"""Addresses of whatever fsspec opens: `s3://`, `gs://`, `memory://`. Read by ranges, values too:
nothing is kept.
"""

from __future__ import annotations

import posixpath
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ckpt_tool.errors import CkptError, FormatError, InputError
from ckpt_tool.formats.files import SourceFile, truncated
from ckpt_tool.formats.folder import Folder
from ckpt_tool.formats.remote.access import Access
from ckpt_tool.formats.remote.addresses import scheme_of, shown
from ckpt_tool.formats.remote.held import Held, head_for
from ckpt_tool.formats.remote.ranged import RangedFile
from ckpt_tool.formats.remote.slips import address_meant
from ckpt_tool.watching import OnProgress, ignore

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_DRIVERS = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs",
    "abfss": "adlfs", "oci": "ocifs", "oss": "ossfs", "sftp": "paramiko", "ssh": "paramiko",
    "hdfs": "pyarrow", "webhdfs": "requests", "smb": "smbprotocol", "dropbox": "dropboxdrivefs",
    "gdrive": "gdrivefs", "gdrivefs": "gdrivefs", "wandb": "wandbfs", "dvc": "dvc",
}  # fmt: skip
"""What has to be installed beside fsspec for which protocol, where it isn't fsspec that says it."""
_ARCHIVES = ("zip", "tar", "libarchive")
WINDOW = 8 << 20
"""What is fetched at a time of values that are read one after the other."""
FEW = 64 << 10
"""What is fetched at least."""


def find_in_filesystem(address: str, access: Access) -> tuple[Folder, str | None]:
    """The folder, and the file in it where one is meant. Raises InputError."""
    if access.is_offline and scheme_of(address) not in ("memory", "local"):
        raise InputError(
            shown(address), f"is never in a cache, and {access.option('offline')} asks no server"
        )
    system, path = _system(address)
    with in_words(shown(address)):
        info = system.info(path)
    if info["type"] == "directory":
        return SystemFolder(system, path, shown(address).rstrip("/"), access), None
    folder, name = posixpath.split(path)
    above = shown(address)[: -len(name)].rstrip("/") if shown(address).endswith(name) else folder
    return SystemFolder(system, folder, above, access), name


def _system(address: str) -> tuple[AbstractFileSystem, str]:
    """The file system of an address, and the path in it. Raises InputError where none is
    installed.
    """
    scheme = scheme_of(address)
    if scheme in _ARCHIVES and "::" not in address:
        fact = f"names a member of an archive ({scheme}), and no archive"
        raise InputError(shown(address), fact, f"{scheme}://MEMBER::file:///FOLDER/ARCHIVE does")
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        driver = _DRIVERS.get(scheme)
        raise InputError(
            shown(address),
            "needs fsspec, which is not installed",
            f"pip install fsspec{f' {driver}' if driver else ''}",
        ) from None
    try:
        system, path = url_to_fs(address)
    except ImportError as error:
        driver = _DRIVERS.get(scheme)
        hint = f"pip install {driver}" if driver else str(error)[:200]
        raise InputError(
            shown(address), f"fsspec has no driver for {scheme}:// here", hint
        ) from None
    except ValueError as error:
        if "Protocol not known" not in str(error):
            raise _incomplete(address) from None
        from difflib import get_close_matches

        hint = "https://, hf:// and what fsspec knows (s3://, gs://, …) are opened"
        if near := get_close_matches(scheme, ("https", "http"), 1, 0.8):
            hint = f"did you mean {near[0]}{shown(address)[len(scheme) :]}?"
        elif meant := address_meant(shown(address)):
            hint = f"did you mean {meant}?"
        raise InputError(shown(address), f"nothing is known of {scheme}://", hint) from None
    except (TypeError, AttributeError):
        raise _incomplete(address) from None
    except Exception as error:
        raise _failed(shown(address), error) from None
    return system, str(path)


def _incomplete(address: str) -> InputError:
    fact = f"{scheme_of(address)}:// needs more than an address says"
    return InputError(shown(address), fact, "name the file that it leads to")


class SystemFolder:
    """A folder of a file system."""

    __slots__ = ("_access", "_place", "_system", "path")
    is_here = False

    def __init__(self, system: AbstractFileSystem, place: str, path: str, access: Access) -> None:
        self._system, self._place, self.path, self._access = system, place, path, access

    @property
    def name(self) -> str:
        """The last part of its path."""
        return posixpath.basename(self._place.rstrip("/"))

    def names(self) -> list[str]:
        """The names in it. Raises InputError."""
        memory = self._access.memory.listings
        if self.path not in memory:
            with in_words(self.path):
                found = self._system.ls(self._place, detail=False)
            memory[self.path] = [posixpath.basename(str(one).rstrip("/")) for one in found]
        known = memory[self.path]
        return [str(one) for one in known] if isinstance(known, list) else []

    def has(self, name: str) -> bool:
        """Whether this name is in it."""
        return name in self.names()

    def join(self, name: str) -> str:
        """The address of what is in it."""
        return f"{self.path}/{name}"

    def parent(self) -> SystemFolder:
        """The folder above."""
        above = posixpath.dirname(self._place.rstrip("/"))
        return SystemFolder(self._system, above, self.path.rpartition("/")[0], self._access)

    def open(self, name: str, header: int = 0) -> SourceFile:
        """A file in it. Raises InputError."""
        place = f"{self._place}/{name}" if self._place else name
        address, memory = self.join(name), self._access.memory.held
        held = memory.get(address)
        if held is None:
            with in_words(address):
                info = self._system.info(place)
                size = int(info["size"])
                head = self._system.cat_file(place, 0, min(size, head_for(header))) if size else b""
            version = next(
                (info[one] for one in ("ETag", "etag", "mtime", "created") if one in info), None
            )
            held = memory[address] = Held(size, str(version), head)
        file = SystemFile(self._system, place, address, held)
        if self._access.sha256 and not name.endswith(".json"):
            self._access.check_digest(address, file.sha256())
        return file


class SystemFile(RangedFile):
    """A file of a file system, read by ranges."""

    __slots__ = ("_place", "_streamed", "_system")

    def __init__(self, system: AbstractFileSystem, place: str, address: str, held: Held) -> None:
        super().__init__(address, held)
        self._system, self._place = system, place
        self._streamed = StreamedFile(self)

    def fetch(self, offset: int, length: int) -> bytes:
        """So many bytes. Raises InputError."""
        with in_words(self.path):
            content = self._system.cat_file(self._place, offset, offset + length)
        if len(content) != length:
            raise FormatError(
                self.path, "was cut while being read", "somebody else is writing to it"
            )
        return bytes(content)

    def fetch_many(self, ranges: list[tuple[int, int]]) -> list[bytes]:
        """The bytes of several ranges, at a time where the file system can. Raises InputError."""
        with in_words(self.path):
            starts = [offset for offset, _ in ranges]
            ends = [offset + length for offset, length in ranges]
            found = self._system.cat_ranges(
                [self._place] * len(ranges), starts, ends, on_error="raise"
            )
        return [bytes(one) for one in found]

    def whole(self) -> SourceFile:
        """The same file, of which everything is read."""
        return self._streamed


class StreamedFile(SourceFile):
    """All of a file of a file system, as it is read: a window at a time for each thread."""

    __slots__ = ("_expected", "_file", "_windows")
    has_descriptor = False

    def __init__(self, file: SystemFile) -> None:
        self.path, self.size, self.stamp, self._fd = file.path, file.size, file.stamp, -1
        self._file, self._windows = file, threading.local()
        self._expected: dict[int, bytes] = {}

    def expect(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Fetches these few bytes of many places at a time."""
        wanted = [(at, length) for at, length in ranges if at + length <= self.size]
        if len(wanted) < self.size // WINDOW:
            found = self._file.fetch_many(wanted)
            self._expected = dict(zip([at for at, _ in wanted], found, strict=True))

    def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes. Raises FormatError where the file ends before them, InputError where
        they can't be fetched.
        """
        if offset < 0 or length < 0 or offset + length > self.size:
            raise truncated(self.path, offset + length, self.size)
        expected = self._expected.get(offset, b"")
        if len(expected) >= length:
            return expected[:length]
        if self._file.at_hand(offset) >= length:
            return self._file.held.read(offset, length, self._file.fetch)
        start, window = getattr(self._windows, "last", (0, b""))
        if not start <= offset <= offset + length <= start + len(window):
            goes_on = bool(window) and start <= offset <= start + len(window) + FEW
            size = max(length, WINDOW if goes_on else FEW)
            start, window = offset, self._file.fetch(offset, min(size, self.size - offset))
            self._windows.last = start, window
        return window[offset - start : offset - start + length]

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fills a buffer with the bytes from `offset` on. Raises what `read` raises."""
        buffer[:] = self.read(offset, len(buffer))

    def sha256(self, on_progress: OnProgress = ignore) -> str:
        """The SHA-256 of the whole file in hex."""
        from hashlib import sha256

        digest = sha256()
        for offset in range(0, self.size, WINDOW):
            digest.update(self.read(offset, min(WINDOW, self.size - offset)))
        return digest.hexdigest()

    def has_changed(self) -> bool:
        """False: nothing tells."""
        return False

    def release(self) -> None:
        """Nothing: there is no descriptor."""


@contextmanager
def in_words(address: str) -> Iterator[None]:
    """Turns what a file system raises into an InputError that says it."""
    try:
        yield
    except CkptError:
        raise
    except Exception as error:
        raise _failed(address, error) from None


def _failed(address: str, error: Exception) -> InputError:
    if isinstance(error, FileNotFoundError):
        is_memory = scheme_of(address) == "memory"
        hint = "memory:// is this process's own memory: empty on the command line"
        return InputError(address, "no such file or folder", hint if is_memory else None)
    if isinstance(error, PermissionError):
        return InputError(address, "may not be read: the credentials are missing, or not enough")
    if type(error).__name__ in ("NoCredentialsError", "DefaultCredentialsError"):
        return InputError(
            address, "needs credentials, and there are none", "log in with the tool of its provider"
        )
    text = (str(error).strip().partition("\n")[0] or type(error).__name__)[:200]
    return InputError(address, f"can't be read: {text}")
