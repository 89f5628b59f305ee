"""What can go wrong on the way to a web server, in words."""

from __future__ import annotations

import http.client
import os
import re
import ssl
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, getproxies, proxy_bypass

from ckpt_tool.errors import CkptError, FormatError, InputError
from ckpt_tool.formats.remote.access import option
from ckpt_tool.formats.remote.web.address import Address

TIMEOUT = 20.0
"""Seconds without a byte after which a server is given up; CKPT_TIMEOUT has another number."""
AGAIN = "run it again"
RANGE = re.compile(r"bytes\s+(?:(\d+)-(\d+)|\*)/(\d+|\*)")
"""What `Content-Range` has."""
_PAGE = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<!--.*?-->\s*)?<(?:!doctype|\?xml|html|head|body)", re.I | re.S
)


def timeout() -> float:
    """Seconds without a byte after which a server is given up. Raises InputError."""
    try:
        seconds = float(os.environ["CKPT_TIMEOUT"])
    except (KeyError, ValueError):
        return TIMEOUT
    if not 0 < seconds < 1e6:
        raise InputError("CKPT_TIMEOUT", f"{seconds:g} is not a number of seconds to wait")
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
    except http.client.RemoteDisconnected:
        fact = "its server has closed the connection without an answer"
        raise InputError(address.shown, fact, AGAIN) from None
    except http.client.InvalidURL as error:  # the address was checked, the proxy's was not
        fact = f"can't be asked: {str(error)[:100]}"
        raise InputError(address.shown, fact, "is the proxy's address right?") from None
    except http.client.HTTPException as error:
        raise InputError(
            address.shown,
            f"its server's answer can't be parsed ({type(error).__name__})",
            AGAIN,
        ) from None
    except (TimeoutError, ConnectionError, ssl.SSLError) as error:
        raise _unreached(address, error) from None


_STATUS = {
    401: ("asks for a name and a password (401)", "put NAME:PASSWORD@ before the host"),
    403: ("may not be fetched (403, forbidden)", "whoever offers it has to allow it"),
    404: ("is not there (404)", "is the address right?"),
    407: (
        "the proxy asks for a password (407)",
        "put NAME:PASSWORD@ before the host in HTTPS_PROXY",
    ),
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
        size = RANGE.fullmatch(error.headers.get("Content-Range", "") or "")
        if size and size[3] == "0":
            return FormatError(address.shown, "is empty (zero bytes)")
        return InputError(address.shown, "does not have the requested range (416)", AGAIN)
    if str(error.msg).startswith(HTTPRedirectHandler.inf_msg):
        fact = f"leads from one address to the next without end ({error.code})"
        return InputError(address.shown, fact)
    if 300 <= error.code < 400:
        return InputError(address.shown, f"its server sends no file ({error.code})")
    if error.code >= 500:
        return InputError(address.shown, f"its server fails ({error.code})", "try it later")
    return InputError(address.shown, f"is refused by its server ({error.code})")


def _unreached(address: Address, reason: object) -> InputError:
    """The error of a connection, to the server or to the proxy that is asked in its stead."""
    if isinstance(reason, TimeoutError):
        return InputError(
            address.shown,
            f"its server has sent nothing for {timeout():g} seconds",
            "try it later; CKPT_TIMEOUT=60 waits longer",
        )
    if isinstance(reason, ssl.SSLError):
        return _insecure(address, reason)
    host, proxy = urlsplit(address.shown).hostname or "", _proxy_of(address)
    text = (getattr(reason, "strerror", None) or str(reason) or type(reason).__name__).lower()
    if text.startswith("unknown url type: "):
        fact = f"can't be asked by way of a {text.rpartition(' ')[2][:20]}:// proxy"
        return InputError(address.shown, fact, "HTTPS_PROXY=http://HOST:PORT names one that can")
    if proxy:
        return InputError(address.shown, f"its proxy, {proxy[:100]}, can't be used: {text}")
    if type(reason).__name__ == "gaierror":
        hint = f"{option('offline')} uses what is in the cache"
        return InputError(address.shown, f"there is no host {host}, or no network", hint)
    return InputError(address.shown, f"can't be reached: {text}")


def _insecure(address: Address, error: ssl.SSLError) -> InputError:
    if isinstance(error, ssl.SSLCertVerificationError):
        host = urlsplit(address.shown).hostname
        return InputError(
            address.shown,
            f"the certificate of {host} is not to be trusted: {error.verify_message}",
            "SSL_CERT_FILE names other authorities",
        )
    if error.reason == "WRONG_VERSION_NUMBER":
        other = f"http://{address.shown.partition('://')[2]}"
        hint = f"is {other} meant?" if address.url[:5].lower() == "https" else None
        return InputError(address.shown, "its server doesn't speak https at this port", hint)
    return InputError(address.shown, f"can't be reached: {str(error).lower()}")


def _proxy_of(address: Address) -> str:
    """The proxy that is asked for it, without its password; nothing where none is."""
    parts = urlsplit(address.shown)
    if proxy_bypass(parts.hostname or ""):
        return ""
    return getproxies().get(parts.scheme, "").rpartition("@")[2]
