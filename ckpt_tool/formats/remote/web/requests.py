"""Requests to web servers: parts of files and whole ones, with what may go wrong in words."""

from __future__ import annotations

import http.client
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

from ckpt_tool.errors import InputError
from ckpt_tool.formats.remote.web.address import Address, login_in
from ckpt_tool.formats.remote.web.errors import AGAIN, RANGE, cut, in_words, timeout
from ckpt_tool.formats.remote.web.redirects import Redirects

PIECE = 1 << 20


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
        """The body in pieces. Raises InputError where the connection ends before it does, or more
        comes than was announced.
        """
        done = 0
        while piece := _read(self.address, self.body, done, self.length):
            done += len(piece)
            if self.length is not None and done > self.length:
                fact = f"sends more than the {self.length:,} bytes that it announces"
                raise InputError(self.address.shown, fact, "its server is at fault")
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
        raise InputError(address.shown, "has a host that can't be, or leads to one") from None
    return response


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
    request = urllib.request.Request(address.sent, headers=headers)
    if login := login_in(address.url):
        request.add_unredirected_header("Authorization", login)
    return request


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
        found = RANGE.fullmatch(headers.get("Content-Range", "").strip())
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
