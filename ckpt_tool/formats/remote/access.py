"""What holds for every address that a command or a call opens: what was asked for, who is told of
downloads, and what was read already.

A context variable, as an address may stand wherever a path may: a dozen functions of four packages
open paths, and none of them has to do with how a file is fetched.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Protocol

from ckpt_tool.errors import InputError
from ckpt_tool.formats.files import sha256_at
from ckpt_tool.formats.remote.addresses import shown
from ckpt_tool.formats.remote.held import Held
from ckpt_tool.frozen import frozen

_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_NO = ("", "0", "false", "no", "off")


class Reporter(Protocol):
    """Who is told of what happens on the way."""

    def note(self, text: str) -> None:
        """Something that a person should know."""

    def download(
        self, address: str, path: str, size: int | None
    ) -> AbstractContextManager[Callable[[int], object]]:
        """A download begins; what comes back is called with the bytes of each piece."""


class Silent:
    """Tells nobody."""

    def note(self, text: str) -> None:
        """Nothing."""

    def download(
        self, address: str, path: str, size: int | None
    ) -> AbstractContextManager[Callable[[int], object]]:
        """Nothing."""
        return nullcontext(lambda nbytes: None)


@dataclass(slots=True, eq=False)
class Memory:
    """What was read already, so that opening again asks nothing: a command opens its paths several
    times. `secrets` are addresses with the password that is never printed; `downloaded` says of
    what has come into torch's cache whether its server had told the length; `has_opened` is
    whether any address was opened.
    """

    held: dict[str, Held] = field(default_factory=dict)
    listings: dict[str, object] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    refreshed: set[str] = field(default_factory=set)
    downloaded: dict[str, bool] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    has_opened: bool = False

    def without_secret(self, address: str) -> str:
        """The address as it may be shown; with it, `with_secret` finds the password again."""
        if (found := shown(address)) != address:
            location, mark, wanted = found.partition("#")
            self.secrets[location] = address.removesuffix(mark + wanted)
        return found

    def with_secret(self, address: str) -> str:
        """The address with the password that it was first given with."""
        return self.secrets.get(shown(address), address)


@frozen
class Access:
    """How addresses are opened. `sha256` is what a downloaded file must be one of, `offline` asks
    no server, `refresh` asks whether what is in the cache is still what the server has.
    `is_command` says that this is the command line, whose options hints name.
    """

    sha256: tuple[str, ...] = ()
    offline: bool = False
    refresh: bool = False
    reporter: Reporter = field(default_factory=Silent)
    memory: Memory = field(default_factory=Memory, compare=False, repr=False)
    is_command: bool = False

    def __post_init__(self) -> None:
        for digest in self.sha256:
            if not _DIGEST.fullmatch(digest):
                raise InputError(
                    self.asked_by, f"`{digest}` is no SHA-256", "it has 64 hexadecimal digits"
                )
        if self.refresh and self.is_offline:
            offline = "--offline" if self.is_command else "offline"
            refresh = "--refresh" if self.is_command else "refresh"
            raise InputError(refresh, f"asks the server, and {offline} forbids to")

    def check_digest(self, address: str, found: str, hint: str | None = None) -> None:
        """Raises InputError where digests were asked for, and this file has none of them."""
        wanted = [one.lower() for one in self.sha256]
        if wanted and found not in wanted:
            fact = f"its SHA-256 is {found}, not {' or '.join(wanted)}, as {self.asked_by} has it"
            raise InputError(address, fact, hint)

    def check_file(self, path: str, address: str) -> None:
        """Raises InputError where digests were asked for, and the file at this path here has none
        of them, or is a folder.
        """
        if not self.sha256:
            return
        if os.path.isdir(path):
            fact = f"is a folder, and {self.asked_by} is that of a file"
            raise InputError(address, fact, "name the file")
        self.check_digest(address, sha256_at(path))

    def option(self, name: str) -> str:
        """How `refresh` or `offline` is asked for: on the command line, or in Python."""
        return f"--{name}" if self.is_command else f"ckpt_tool.addresses({name}=True)"

    @property
    def asked_by(self) -> str:
        """What digests were asked for by."""
        return "--sha256" if self.is_command else "`sha256`"

    @property
    def is_offline(self) -> bool:
        """Whether no server may be asked: it was said so, or the environment says so."""
        names = ("CKPT_OFFLINE", "HF_HUB_OFFLINE")
        return self.offline or any(os.environ.get(name, "").lower() not in _NO for name in names)


_CURRENT: ContextVar[Access | None] = ContextVar("ckpt_tool_access", default=None)


def option(name: str) -> str:
    """As `Access.option`; both ways in a thread that doesn't know which this is."""
    access = _CURRENT.get()
    if access is not None:
        return access.option(name)
    return f"--{name}, or ckpt_tool.addresses({name}=True),"


def current_access() -> Access:
    """The access that holds here; a new one where none was begun."""
    return _CURRENT.get() or Access()


@contextmanager
def accessing(access: Access) -> Iterator[Access]:
    """Inside of the block, addresses are opened in this way."""
    token = _CURRENT.set(access)
    try:
        yield access
    finally:
        _CURRENT.reset(token)


@contextmanager
def remembering() -> Iterator[Access]:
    """Inside of the block, no address is asked twice for the same. What holds already stays."""
    held = _CURRENT.get()
    if held is not None:
        yield held
        return
    with accessing(Access()) as access:
        yield access
