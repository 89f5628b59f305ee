"""Requests to web servers: parts of files and whole ones, with what may go wrong in words."""

from __future__ import annotations

import http.client
import os
import re
import ssl
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import IO
from urllib.parse import quote, unquote, urlsplit

from ckpt_tool.errors import CkptError, FormatError, InputError
from ckpt_tool.formats.remote.addresses import shown
from ckpt_tool.formats.remote.web.redirects import Redirects

TIMEOUT = 20.0
"""Seconds without a byte after which a server is given up; CKPT_TIMEOUT has another number."""
PIECE = 1 << 20
_RANGE = re.compile(r"bytes\s+(?:(\d+)-(\d+)|\*)/(\d+|\*)")
_PAGE = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<!--.*?-->\s*)?<(?:!doctype|\?xml|html|head|body)", re.I | re.S
)
_SIGNING = re.compile(
    r"(?:x-(?:amz|goog|cos|oss)-[^=]*|awsaccesskeyid|googleaccessid|ossaccesskeyid|signature|expires"
    r"|key-pair-id|policy|sig|s[eprtv]|spr|sk(?:oid|tid|t|e|s|v)|(?:access_)?token|verify)=",
    re.IGNORECASE,
)
"""How S3, Google's, Azure's and other clouds sign an address for some hours."""
AGAIN = "run it again"


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


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server sends: `status` 206 for a part, 200 for all; `first` is the part's first byte,
    `size` that of the whole file, `version` its ETag or its date, whichever tells more.
    """

    address: Address
    status: int
    first: int
    length: int | None
    size: int | None
    version: str
    body: IO[bytes]

    @property
    def is_part(self) -> bool:
        """Whether the server has understood the range."""
        return self.status == http.client.PARTIAL_CONTENT

    def pieces(self) -> Iterator[bytes]:
        """The body in pieces. Raises InputError where the connection ends before it does."""
        done = 0
        while piece := _read(self.address, self.body, done, self.length):
            done += len(piece)
            yield piece
        if self.length is not None and done < self.length:
            raise cut(self.address, done, self.length)

    def all(self) -> bytes:
        """The whole body. Raises InputError where it is not what was announced."""
        return b"".join(self.pieces())


@contextmanager
def ask(
    address: Address, first: int | None = None, last: int = 0, version: str = ""
) -> Iterator[Answer]:
    """The answer for the bytes from `first` to `last`, or for the whole file without `first`; of
    another version than this the whole file. Raises InputError where there is none.
    """
    headers = {"User-Agent": "ckpt_tool", "Accept": "*/*", "Accept-Encoding": "identity"}
    if first is not None:
        headers["Range"] = f"bytes={first}-{last if last else ''}"
    if version and first is not None:
        headers["If-Range"] = version
    with in_words(address):
        request = _request(address, headers)
        with _opened(address, request) as response:
            answer = _answer(address, response)
            if answer.is_part:
                _check_part(answer, first, last)
            yield answer


def _opened(address: Address, request: urllib.request.Request) -> http.client.HTTPResponse:
    try:
        response: http.client.HTTPResponse = _opener().open(request, timeout=timeout())
    except ValueError:  # names of hosts that can't be, here or where it leads
        raise InputError(
            address.shown, "is no address that can be asked, or leads to one"
        ) from None
    return response


def timeout() -> float:
    """Seconds without a byte after which a server is given up. Raises InputError."""
    try:
        seconds = float(os.environ["CKPT_TIMEOUT"])
    except (KeyError, ValueError):
        return TIMEOUT
    if not 0 < seconds < 1e6:
        raise InputError("CKPT_TIMEOUT", f"{seconds:g} is no number of seconds to wait")
    return seconds


def is_page(head: bytes) -> bool:
    """Whether these bytes begin a web page."""
    return _PAGE.match(head) is not None


def page_error(address: Address) -> FormatError:
    """The error of a page where a file should be."""
    hint = "give the address of the file itself"
    for place, wrong, right in (
        ("huggingface.co", "/blob/", "/resolve/"),
        ("github.com", "/blob/", "/raw/"),
    ):
        if place in address.url and wrong in address.url:
            hint = f"{address.shown.replace(wrong, right, 1)} is the file itself"
    return FormatError(address.shown, "is a web page (HTML), not a file", hint)


def cut(address: Address, done: int, length: int, hint: str = AGAIN) -> InputError:
    """The error of a connection that ended too early."""
    return InputError(
        address.shown, f"the connection ended after {done:,} of {length:,} bytes", hint
    )


def _read(address: Address, body: IO[bytes], done: int, length: int | None) -> bytes:
    try:
        with in_words(address):
            return body.read(PIECE)
    except http.client.IncompleteRead as error:
        if length is None:
            raise InputError(address.shown, "the connection ended too early", AGAIN) from None
        raise cut(address, done + len(error.partial), length) from None


def _request(address: Address, headers: dict[str, str]) -> urllib.request.Request:
    """A request whose name and password, where the address has them, are for its own host alone."""
    parts = urlsplit(address.url)
    try:
        request = urllib.request.Request(_ascii(shown(address.url)), headers=headers)
    except ValueError:
        raise InputError(address.shown, "is no address that can be asked") from None
    if "@" in parts.netloc:
        words = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}".encode()
        request.add_unredirected_header("Authorization", f"Basic {b64encode(words).decode()}")
    return request


def _ascii(url: str) -> str:
    """The address as it is sent: what is no ASCII in its path and its query is escaped."""
    parts = urlsplit(url)
    path, query = (_escaped(one) for one in (parts.path, parts.query))
    return parts._replace(path=path, query=query, fragment="").geturl()


def _escaped(text: str) -> str:
    return "".join(one if one.isascii() else quote(one) for one in text)


def _opener() -> urllib.request.OpenerDirector:
    """For the web alone: neither files nor FTP."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        Redirects(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _answer(address: Address, response: http.client.HTTPResponse) -> Answer:
    headers, status = response.headers, response.status
    if status not in (http.client.OK, http.client.PARTIAL_CONTENT):
        raise InputError(address.shown, f"its server sends no file ({status})")
    if headers.get("Content-Encoding", "identity") not in ("", "identity"):
        raise InputError(
            address.shown,
            f"is sent compressed ({headers['Content-Encoding']}), though it was asked not to be",
        )
    length = _number(headers.get("Content-Length"))
    first, size = 0, length
    if status == http.client.PARTIAL_CONTENT:
        found = _RANGE.fullmatch(headers.get("Content-Range", "").strip())
        if found is None or found[1] is None:
            raise InputError(
                address.shown,
                "its server sends a part without saying which "
                f"(Content-Range: {headers.get('Content-Range')})",
            )
        first, size = int(found[1]), _number(found[3])
        if length not in (None, int(found[2]) - first + 1):
            raise InputError(
                address.shown, f"its server sends {length} bytes as {headers['Content-Range']}"
            )
        length = int(found[2]) - first + 1
    version = headers.get("ETag", "")
    if not version or version.startswith("W/"):  # a weak one may be that of other bytes
        version = headers.get("Last-Modified", "")
    return Answer(address, status, first, length, size, version, response)


def _check_part(answer: Answer, first: int | None, last: int) -> None:
    if first is None or (not last and answer.size is None):
        raise InputError(
            answer.address.shown,
            "its server sends a part of the file, where all of it was asked for",
        )
    end = answer.first + (answer.length or 0) - 1
    expected = min(last or end, (answer.size or end + 1) - 1)
    if answer.first != first or end != expected:
        raise InputError(
            answer.address.shown,
            f"its server sends the bytes {answer.first} to {end}; {first} to {expected} were "
            "asked for",
        )


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() and len(text) < 19 else None


@contextmanager
def in_words(address: Address) -> Iterator[None]:
    """Turns what can go wrong on the way into an InputError that says it."""
    try:
        yield
    except CkptError:
        raise
    except http.client.IncompleteRead:
        raise
    except urllib.error.HTTPError as error:
        with error:
            raise _refused(address, error) from None
    except urllib.error.URLError as error:
        raise _unreached(address, error.reason) from None
    except http.client.HTTPException as error:
        raise InputError(
            address.shown,
            f"its server's answer is not to be understood ({type(error).__name__})",
            AGAIN,
        ) from None
    except (TimeoutError, ConnectionError, ssl.SSLError) as error:
        raise _unreached(address, error) from None


_STATUS = {
    401: ("asks for a name and a password (401)", "https://NAME:PASSWORD@HOST/… gives them"),
    403: ("may not be fetched (403, forbidden)", "whoever offers it has to allow it"),
    404: ("is not there (404)", "is the address right?"),
    407: ("the proxy asks for a password (407)", "HTTPS_PROXY=http://NAME:PASSWORD@HOST gives it"),
    410: ("is not there any more (410)", None),
    429: ("its server has had too many requests (429)", "wait, and run it again"),
}


def _refused(address: Address, error: urllib.error.HTTPError) -> InputError:
    if error.code in _STATUS:
        fact, hint = _STATUS[error.code]
        if error.code in (401, 403) and "huggingface.co/" in address.url:
            hint = "hf://OWNER/NAME/FILE sends the token that `hf auth login` keeps"
        return InputError(address.shown, fact, hint)
    if error.code == 416:
        size = _RANGE.fullmatch(error.headers.get("Content-Range", "") or "")
        if size and size[3] == "0":
            return FormatError(address.shown, "is empty (zero bytes)")
        return InputError(address.shown, "has not the bytes that were asked for (416)", AGAIN)
    if 300 <= error.code < 400 and "not allowed" in str(error.msg):
        where = shown(error.headers.get("Location", ""))[:200]
        return InputError(address.shown, f"leads to {where}, which is no web address")
    if 300 <= error.code < 400:
        return InputError(
            address.shown, f"leads from one address to the next without end ({error.code})"
        )
    if error.code >= 500:
        return InputError(address.shown, f"its server fails ({error.code})", "try it later")
    return InputError(address.shown, f"is refused by its server ({error.code})")


def _unreached(address: Address, reason: object) -> InputError:
    host = urlsplit(shown(address.url)).hostname or address.shown
    if isinstance(reason, TimeoutError):
        return InputError(
            address.shown,
            f"its server has sent nothing for {timeout():g} seconds",
            "try it later; CKPT_TIMEOUT=60 waits longer",
        )
    if isinstance(reason, ssl.SSLCertVerificationError):
        return InputError(
            address.shown,
            f"the certificate of {host} is not to be trusted: {reason.verify_message}",
            "SSL_CERT_FILE names other authorities",
        )
    if isinstance(reason, OSError) and type(reason).__name__ == "gaierror":
        return InputError(
            address.shown,
            f"there is no host {host}, or no network",
            "--offline uses what is in the cache",
        )
    text = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
    return InputError(address.shown, f"can't be reached: {text.lower()}")
