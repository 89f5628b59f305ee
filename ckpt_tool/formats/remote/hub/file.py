"""A file of the hub: parts of it from its own address, all of it through huggingface_hub."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ckpt_tool.errors import FormatError, InputError
from ckpt_tool.formats.files import SourceFile
from ckpt_tool.formats.remote.access import Access, Silent
from ckpt_tool.formats.remote.held import Held
from ckpt_tool.formats.remote.hub.repository import Repository
from ckpt_tool.formats.remote.ranged import RangedFile

if TYPE_CHECKING:
    from huggingface_hub.utils.tqdm import tqdm


TIMEOUT = 20.0
UNTOLD = 1 << 20
"""Files up to this size, indexes and configs, are downloaded without telling."""
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")

PartOf = Callable[[int, int], tuple[bytes, int]]
"""Gets so many bytes from an offset on, fewer at the end of the file; and the file's size."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What the hub says of a file: its size, its SHA-256 where it is a large one, git's name."""

    size: int | None
    sha256: str
    blob: str


NOTHING = Stored(None, "", "")
"""What is known of a file that the hub doesn't list."""


class HubFile(RangedFile):
    """A file of the hub, read by ranges until values are asked for."""

    __slots__ = ("_download", "_local", "_lock", "_part", "_stored")

    def __init__(
        self,
        address: str,
        held: Held,
        stored: Stored,
        part: PartOf,
        download: Callable[[], SourceFile],
    ) -> None:
        super().__init__(address, held)
        self._part, self._download, self._stored = part, download, stored
        self._local: SourceFile | None = None
        self._lock = threading.Lock()
        if stored.size is not None and stored.size != held.size:
            raise FormatError(
                address, f"the hub sends {held.size} bytes, and lists {stored.size}", "run it again"
            )

    def fetch(self, offset: int, length: int) -> bytes:
        """So many bytes. Raises InputError."""
        try:
            content, size = self._part(offset, length)
        except WithoutRanges:
            return self.whole().read(offset, length)
        if size != self.size or len(content) != length:
            raise FormatError(self.path, "was changed while it was being read", "run it again")
        return content

    def whole(self) -> SourceFile:
        """The file in huggingface_hub's cache, downloaded when it is not there. Raises
        InputError.
        """
        with self._lock:
            if self._local is None:
                self._local = self._download()
            return self._local

    def has_changed(self) -> bool:
        """Whether what was downloaded has changed since."""
        return self._local is not None and self._local.has_changed()

    def close(self) -> None:
        """Closes what was downloaded."""
        if self._local is not None:
            self._local.close()


class WithoutRanges(Exception):
    """The server sends all of a file when it is asked for a part of it."""


def request_part(url: str, address: str, offset: int, length: int) -> tuple[bytes, int]:
    """Bytes by a range request, in the session of huggingface_hub, whose client takes its token off
    a request that is sent to another host. Raises what the library raises, InputError for an answer
    that is none.
    """
    from huggingface_hub import get_session
    from huggingface_hub.utils._headers import build_hf_headers
    from huggingface_hub.utils._http import hf_raise_for_status

    headers = {
        **build_hf_headers(),
        "Range": f"bytes={offset}-{offset + length - 1}",
        "Accept-Encoding": "identity",
    }
    session: Any = get_session()
    if callable(getattr(session, "stream", None)):
        asked = session.stream("GET", url, headers=headers, timeout=TIMEOUT, follow_redirects=True)
    else:  # huggingface_hub before 1.0 is built on requests
        asked = session.get(url, headers=headers, timeout=TIMEOUT, stream=True)
    with asked as response:
        if response.status_code >= 400 and hasattr(response, "read"):
            response.read()  # what its error says
        if response.status_code == 416:  # an empty file has no bytes
            return b"", 0
        hf_raise_for_status(response)
        if response.status_code != 206:
            raise WithoutRanges
        content = response.read() if hasattr(response, "read") else response.content
    found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if not found or int(found[1]) != offset or len(content) != int(found[2]) - offset + 1:
        raise InputError(address, "the hub sends another part than the one that was asked for")
    return content, int(found[3])


def download(
    repository: Repository,
    path: str,
    commit: str,
    address: str,
    size: int | None,
    access: Access,
    again: bool = False,
) -> str:
    """The file's path in huggingface_hub's cache, where it is then; `again` also where it was there
    already. Raises what that raises.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.constants import HF_HUB_CACHE

    reporter = access.reporter if size is None or size > UNTOLD else Silent()
    with reporter.download(address, HF_HUB_CACHE, size) as progress:
        bar = _bar_that_tells(progress)
        local = hf_hub_download(
            repository.id,
            path,
            repo_type=repository.kind,
            revision=commit,
            force_download=again,
            tqdm_class=bar,
        )
        return str(local)


def check_digest(path: str, address: str, digest: str) -> None:
    """Raises FormatError where what was downloaded has another SHA-256 than the hub lists, and
    removes it from the cache.
    """
    with SourceFile(path) as file:
        found = file.sha256()
    if found != digest:
        for each in (os.path.realpath(path), path):
            with suppress(OSError):
                os.unlink(each)
        raise FormatError(
            address,
            f"its SHA-256 is {found}, the hub lists {digest}",
            "nothing was kept; run it again",
        )


def _bar_that_tells(progress: Callable[[int], object]) -> type[tqdm]:
    """A bar that prints nothing, and passes on what it is told."""
    from huggingface_hub.utils.tqdm import tqdm

    class Told(tqdm):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **{**options, "disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            progress(int(n or 0))

    return Told
