"""A tensor's digest: the BLAKE3 hash of its contiguous little-endian bytes, by which values compare
without being there.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ckpt_tool.formats.placements.byte_ranges import Extent

PREFIX = "blake3:"
SAMPLED = 64
"""Bytes of a range by which two processes tell whether they read the same."""


def digest_of(pieces: Iterable[bytes | memoryview]) -> str:
    """`blake3:` and 64 hex digits."""
    from blake3 import blake3

    digest = blake3()
    for piece in pieces:
        digest.update(piece)
    return PREFIX + digest.hexdigest()


def sample_of(extent: Extent) -> tuple[object, ...]:
    """How long a byte range is and its checksum, or some of its bytes where it has none: the same
    for two copies of a tensor, and others for those of two runs.
    """
    known: object = extent.crc32
    if known is None and extent.file.has_descriptor and extent.length:
        middle = extent.length // 2
        known = extent.file.read(extent.offset + middle, min(SAMPLED, extent.length - middle))
    return extent.length, known
