"""A page's digest of itself: what was changed, or written by others, is no page of ours."""

from __future__ import annotations

from hashlib import sha256

_BEFORE = '<meta name="digest" content="sha256-'
_EMPTY = f'{_BEFORE}">'
_HEAD = 2048
"""Bytes at the beginning of a page that have its digest."""


def sealed(text: str) -> str:
    """The page with the digest of all else in it, in the tag that has room for it."""
    digest = sha256(text.encode()).hexdigest()
    return text.replace(_EMPTY, f'{_BEFORE}{digest}">', 1)


def is_sealed(page: bytes) -> bool:
    """Whether these are the bytes of a page as it was written.

    >>> text = sealed('<meta name="digest" content="sha256-">and more')
    >>> is_sealed(text.encode()), is_sealed(text.encode() + b"!"), is_sealed(b"<html>")
    (True, False, False)
    """
    before = page.find(_BEFORE.encode(), 0, _HEAD)
    start = before + len(_BEFORE)
    end = start + sha256().digest_size * 2
    if before < 0:
        return False
    return sha256(page[:start] + page[end:]).hexdigest().encode() == page[start:end]
