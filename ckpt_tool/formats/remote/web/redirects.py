"""Where web servers may lead."""

from __future__ import annotations

import re
import urllib.request
from http.client import HTTPMessage
from typing import IO
from urllib.parse import urljoin, urlsplit

from ckpt_tool.errors import InputError
from ckpt_tool.formats.remote.addresses import shown
from ckpt_tool.formats.remote.web.address import fault_of, login_in

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_LOGIN = "Authorization"


class Redirects(urllib.request.HTTPRedirectHandler):
    """Redirects to web servers alone. What proves who asks is sent to its own host alone, by the
    same protocol and at the same port; it is an unredirected header.
    """

    def http_error_302(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
    ) -> object:
        """Follows a redirect. Raises InputError where it leads nowhere."""
        place = headers.get("Location", headers.get("URI"))
        if place is None:
            fact = f"its server sends no file, but a redirect that leads nowhere ({code})"
            raise InputError(shown(req.full_url), fact)
        if not _is_of_the_web(place):
            fact = f"leads to {shown(place)[:200]}, which is not a web address"
            raise InputError(shown(req.full_url), fact)
        try:
            fault = fault_of(urljoin(req.full_url, place))
        except ValueError as error:
            fault = f"is not an address: {error}", None
        if fault:
            fact = f"leads to {shown(place)[:200]}, which {fault[0]}"
            raise InputError(shown(req.full_url), fact)
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """The request to go on with. Raises InputError where it leads from https to http."""
        if urlsplit(newurl).scheme.lower() == "http" and req.type == "https":
            raise InputError(
                shown(req.full_url),
                f"leads from https to http ({shown(newurl)[:200]}), where anybody may change it",
            )
        request = super().redirect_request(req, fp, code, msg, headers, shown(newurl))
        if request is None:
            return None
        request.remove_header("Proxy-authorization")  # set again where a proxy is asked
        login = login_in(newurl)
        if login is None and _server_of(newurl) == _server_of(req.full_url):
            login = req.unredirected_hdrs.get(_LOGIN)
        if login is not None:
            request.add_unredirected_header(_LOGIN, login)
        return request


def _is_of_the_web(place: str) -> bool:
    """Whether it is an http or https address, or one beside that which leads there."""
    return place.partition(":")[0].lower() in ("http", "https") or not _SCHEME.match(place)


def _server_of(url: str) -> tuple[str, str | None, int]:
    parts = urlsplit(url)
    usual = 443 if parts.scheme == "https" else 80
    return parts.scheme, parts.hostname, parts.port or usual
