"""The headers in front of a zip archive's members: only they know where bytes begin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import Struct

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.archives.zip_member import FULL32, Member, check_method
from ckpt_tool.formats.files import AGAIN, SourceFile

LOCAL = b"PK\3\4"
DESCRIPTOR = b"PK\7\x08"
_LOCAL = Struct("<4s2xHH4xIIIHH")
LOCAL_BYTES = _LOCAL.size
WINDOW = 64 << 10
DENSE = 4 << 10
"""What is read at a time of an archive whose members have fewer bytes than `DENSE` on average."""


def first_member(file: SourceFile) -> tuple[str, int]:
    """The name of the archive's first member and where its bytes begin, without a directory; an
    empty name where there is none.
    """
    if file.size < LOCAL_BYTES:
        return "", 0
    signature, *_, name, extra = _LOCAL.unpack(file.read(0, LOCAL_BYTES))
    start = LOCAL_BYTES + name + extra
    if signature != LOCAL or start > file.size:
        return "", 0
    return file.read(LOCAL_BYTES, name).decode("utf-8", "replace"), start


def content_offsets(file: SourceFile, members: Sequence[Member]) -> Iterator[int]:
    """Where each member's bytes begin: only the local header knows, whose padding differs from the
    directory's. Raises FormatError where it contradicts the directory.
    """
    size = _LOCAL.size
    file.expect((member.header, size + len(member.name)) for member in members)
    headers = _Headers(file, WINDOW if file.size < DENSE * len(members) else 0)
    for member in members:
        name = member.name.encode("utf-8", "surrogateescape")
        raw = headers.read(member.header, size + len(name))
        if len(raw) < size + len(name):
            raise FormatError(
                file.path, f"`{member.name[:200]}` does not lie inside the file", AGAIN
            )
        magic, flags, method, crc, stored, full, name_length, extra_length = _LOCAL.unpack_from(raw)
        found, expected = (magic, name_length, method), (LOCAL, len(name), member.method)
        if found != expected or raw[size:] != name:
            raise FormatError(
                file.path, f"the zip directory and the file disagree about `{member.name[:200]}`"
            )
        check_method(file, member, flags)
        if not flags & 8 or crc or stored or full:
            _check_numbers(file, member, flags, crc, stored, full)
        yield member.header + size + name_length + extra_length


class _Headers:
    """Reads headers, and `ahead` bytes behind each, so that one read gets many small members'."""

    def __init__(self, file: SourceFile, ahead: int) -> None:
        self._file, self._ahead = file, ahead
        self._start, self._window = 0, b""

    def read(self, position: int, size: int) -> bytes:
        """These bytes; fewer where the file ends before them."""
        at = position - self._start
        if at < 0 or at + size > len(self._window):
            left = max(0, self._file.size - position)
            self._start, at = position, 0
            self._window = self._file.read(position, min(size + self._ahead, left)) if left else b""
        return self._window[at : at + size]


def _check_numbers(
    file: SourceFile, member: Member, flags: int, crc: int, stored: int, full: int
) -> None:
    """A local header has the directory's numbers; zeros where a descriptor follows, all ones where
    they are wider.
    """
    free = {FULL32} | ({0} if flags & 8 else set())
    agrees = crc == member.crc32 or (flags & 8 and crc == 0)
    if (
        not agrees
        or (stored != member.stored and stored not in free)
        or (full != member.size and full not in free)
    ):
        raise FormatError(
            file.path,
            f"the zip directory and the file disagree about the bytes of `{member.name[:200]}`",
        )


def has_no_checksum(file: SourceFile, member: Member) -> bool:
    """Whether the descriptor behind a member says zero too: torch.serialization.skip_data leaves
    room for bytes that come later.
    """
    at = member.offset + member.stored
    return at + 8 <= file.size and file.read(at, 8) == DESCRIPTOR + bytes(4)


def check_members_apart(file: SourceFile, members: Sequence[Member], directory: int) -> None:
    """Raises FormatError where two members share bytes, or one reaches into the directory."""
    end, last = 0, ""
    for member in sorted(members, key=lambda one: one.header):
        if member.header < end:
            raise FormatError(
                file.path,
                f"`{member.name[:200]}` and `{last[:200]}` lie over each other in the zip archive",
            )
        end, last = member.offset + member.stored, member.name
    if end > directory:
        raise FormatError(file.path, f"`{last[:200]}` does not lie before the zip directory", AGAIN)
