"""A tensor's digest: the BLAKE3 hash of its contiguous little-endian bytes, by which values compare
without being there.
"""

from __future__ import annotations

from collections.abc import Iterable

PREFIX = "blake3:"


def digest_of(pieces: Iterable[bytes | memoryview]) -> str:
    """`blake3:` and 64 hex digits."""
    from blake3 import blake3

    digest = blake3()
    for piece in pieces:
        digest.update(piece)
    return PREFIX + digest.hexdigest()
