"""One entry of a zip archive, and which flags and compressions are read."""

from __future__ import annotations

from dataclasses import dataclass

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.files import SourceFile

ALLOWED_FLAGS = 0x080E
"""Deflate's level (bits 1 and 2), data descriptor (3), UTF-8 names (11); others mean encryption,
patches, hidden headers.
"""
STORED = 0
DEFLATED = 8
DEFLATE_OVERHEAD = 64 << 10
FULL32 = 0xFFFFFFFF


@dataclass(slots=True, eq=False)
class Member:
    """One entry: where its header is, where its bytes are, and what the directory says of them.
    `crc32` is None where not computed, `offset` -1 where its local header was not read.
    """

    name: str
    method: int
    crc32: int | None
    stored: int
    size: int
    header: int
    offset: int = -1


def check_method(file: SourceFile, member: Member, flags: int) -> None:
    """Raises FormatError for a member that torch does not read, or whose numbers contradict."""
    if not (flags & ~ALLOWED_FLAGS or member.method or member.stored != member.size):
        return
    if flags & ~ALLOWED_FLAGS:
        raise FormatError(
            file.path,
            f"`{member.name[:200]}` is encrypted, or of an unknown kind (flags {flags:#06x})",
        )
    if member.method not in (STORED, DEFLATED):
        raise FormatError(
            file.path,
            f"`{member.name[:200]}` is compressed by method {member.method}, "
            "which torch does not read",
        )
    if member.method == DEFLATED and member.stored > 2 * member.size + DEFLATE_OVERHEAD:
        raise FormatError(
            file.path,
            f"`{member.name[:200]}` is compressed from {member.size} to {member.stored} bytes, "
            "as nobody does",
        )
    if member.method == STORED and member.stored != member.size:
        raise FormatError(
            file.path,
            f"`{member.name[:200]}` is stored as it is, "
            f"yet in {member.stored} instead of {member.size} bytes",
        )
