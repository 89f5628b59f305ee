"""Addresses of web servers: as they are asked, shown, and known again."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import quote, unquote, urlsplit

from ckpt_tool.errors import InputError
from ckpt_tool.formats.remote.addresses import shown

_SIGNING = re.compile(
    r"(?:x-(?:amz|goog|cos|oss)-[^=]*|awsaccesskeyid|googleaccessid|ossaccesskeyid|signature|expires"
    r"|key-pair-id|policy|sig|s[eprtv]|spr|sk(?:oid|tid|t|e|s|v)|(?:access_)?token|verify)=",
    re.IGNORECASE,
)
"""How S3, Google's, Azure's and other clouds sign an address for some hours."""


@dataclass(frozen=True, slots=True)
class Address:
    """An http or https address as it is asked, and as it is shown: without a password."""

    url: str

    @property
    def shown(self) -> str:
        """What may be printed."""
        return shown(self.url)

    @property
    def identity(self) -> str:
        """What is noted beside a download, to know it again: without what signs a query, which is
        another each time, and with a digest for the rest of it, which may be secret.
        """
        parts = urlsplit(self.shown)
        kept = [pair for pair in parts.query.split("&") if not _SIGNING.match(pair)]
        query = sha256("&".join(kept).encode()).hexdigest()[:16] if any(kept) else ""
        return parts._replace(query=query, fragment="").geturl()

    @property
    def sent(self) -> str:
        """As it is asked: without the name and the password in front of the host, and with escapes
        for what no address may have.
        """
        parts = urlsplit(self.url)
        path, query = (_escaped(one) for one in (parts.path, parts.query))
        host = parts.netloc.rpartition("@")[2]
        return parts._replace(netloc=host, path=path, query=query, fragment="").geturl()

    def check(self) -> None:
        """Raises InputError for what is no address that can be asked."""
        if fault := fault_of(self.url):
            raise InputError(self.shown, *fault)


def fault_of(url: str) -> tuple[str, str | None] | None:
    """What keeps an address from being asked, and what helps; None where nothing does."""
    if any(ord(one) < 32 or ord(one) == 127 for one in url):
        return "has a tab, a line break or another control character in it", None
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError as error:
        return f"is not an address: {str(error)[:100]}", None
    if re.fullmatch(r"[^@]*:[^@]*", parts.netloc) and "@" in url and not _has_port(url):
        escapes = "in a name or a password, `/` is written %2F, `?` %3F, `#` %23 and `@` %40"
        return "has no host that can be asked", escapes
    if not host:
        return "names no host", None
    if " " in host or not all(0 < len(one) < 64 for one in host.removesuffix(".").split(".")):
        return f"names no host: `{host[:100]}` can't be one", None
    if not _has_port(url):
        port = parts.netloc.rpartition(":")[2][:20]
        return f"has the port `{port}`, which is not a number from 1 to 65535", None
    return None


def _has_port(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def login_in(url: str) -> str | None:
    """What proves to its host who asks, where the address has a name and a password."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return None
    words = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}".encode()
    return f"Basic {b64encode(words).decode()}"


def _escaped(text: str) -> str:
    return "".join(one if one.isascii() and one > " " else quote(one) for one in text)
