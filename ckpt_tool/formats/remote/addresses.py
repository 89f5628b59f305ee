"""Paths that are none: addresses, and names that other libraries know weights by."""

from __future__ import annotations

import os
import re

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=://)")
_NAMED = re.compile(r"(?:torchvision|timm):[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*")
_LOGIN = r"[^/?#@:\[\s]+:(?![0-9]+[/?#])[^@\s]*@(?:[^/?#@\s]*@)*"
"""A name and a password, in which `/`, `?` and `#` may stand by mistake; behind the name of a host
stands its port.
"""
_SECRETS = rf"(?<=://)(?:{_LOGIN}|(?:[^/?#@\s]*@)+)"
_QUERY = (
    r"(?i)([?&](?:[\w.-]*(?:token|signature|secret|password|credential|api[_-]?key)|sig|key)=)"
    r"[^&#\s`'\"]+"
)
"""What signs an address, or lets somebody in, among its query's values."""
_IN_TEXT = rf"(?<=:/)(/?){_LOGIN}"
"""The same in an address, or in a slip of one (`http:/me:secret@host`)."""


def scheme_of(path: str) -> str:
    """`https` of an address, in lower case; an empty text for what is none."""
    found = _SCHEME.match(path)
    return found[0].lower() if found else ""


def is_named(path: str) -> bool:
    """Whether this is a name that torchvision or timm knows weights by:
    `torchvision:ResNet50_Weights.IMAGENET1K_V2`.
    """
    return _NAMED.fullmatch(path) is not None


def is_address(path: str) -> bool:
    """Whether this leads elsewhere, and no file here is called so."""
    return bool(scheme_of(path) or is_named(path)) and not os.path.lexists(path)


def shown(address: str) -> str:
    """An address as it may be printed: without the name and the password that may stand in it.

    >>> shown("https://me:secret@host/model.pth")
    'https://host/model.pth'
    >>> shown("https://me:se/cret@host:80/model.pth@v1")
    'https://host:80/model.pth@v1'
    >>> shown("https://host/model.pth?v=2&X-Amz-Signature=0f3c")
    'https://host/model.pth?v=2&X-Amz-Signature=…'
    """
    return address if scheme_of(address) == "hf" else _signed(re.sub(_SECRETS, "", address))


def _signed(text: str) -> str:
    return re.sub(_QUERY, r"\1…", text) if "=" in text else text


def without_secrets(text: str) -> str:
    """A message without the names and passwords of addresses in it, whatever their scheme.

    >>> without_secrets("hf://me:secret@owner/name: no such file")
    'hf://owner/name: no such file'
    """
    return _signed(re.sub(_IN_TEXT, r"\1", text) if "@" in text else text)
