"""Where web servers may lead."""

from __future__ import annotations

import urllib.request
from http.client import HTTPMessage
from typing import IO
from urllib.parse import urlsplit

from ckpt_tool.errors import InputError
from ckpt_tool.formats.remote.addresses import shown


class Redirects(urllib.request.HTTPRedirectHandler):
    """Redirects to web servers alone. What proves who asks is sent to the first host alone: it is
    an unredirected header.
    """

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """The request to go on with. Raises InputError where it leads to what is no web."""
        scheme = urlsplit(newurl).scheme.lower()
        if scheme not in ("http", "https"):
            raise InputError(
                shown(req.full_url), f"leads to {shown(newurl)[:200]}, which is no web address"
            )
        if scheme == "http" and req.type == "https":
            raise InputError(
                shown(req.full_url),
                f"leads from https to http ({shown(newurl)[:200]}), where anybody may change it",
            )
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None:  # set again where a proxy is asked
            request.remove_header("Proxy-authorization")
        return request
