"""A tar archive's members and where their bytes lie, read strictly: what two readers could
understand differently is refused.

POSIX.1-2017, pax, "ustar Interchange Format"; torch reads such archives with Python's tarfile.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.files import AGAIN, SourceFile, truncated
from ckpt_tool.formats.limits import TAR_MEMBERS

BLOCK = 512
_SIZE, _CHECKSUM = slice(124, 136), slice(148, 156)
_OTHER_NUMBERS = tuple(
    slice(*ends)
    for ends in ((100, 108), (108, 116), (116, 124), (136, 148), (329, 337), (337, 345))
)
"""Mode, owner, group, time, and a device's: nothing that matters, but a reader may end the archive
where one of them is none.
"""
_BINARY = (b"\x80", b"\xff")
"""How GNU tar marks numbers too large for octal digits."""
_FILES, _FOLDER, _EXTENDED = b"0\0", b"5", b"xg"
_MAX_EXTENDED = 64 << 10
_DECISIVE = (b" path=", b" linkpath=", b" size=", b" GNU.sparse.", b" SCHILY.realsize=")
"""What extended headers may not give: another name, or another number of bytes."""


def read_members(file: SourceFile) -> dict[str, tuple[int, int]]:
    """First byte and the byte after the last of each file in the archive, by name.

    Raises FormatError for what is cut or damaged, and for what torch never wrote: links, sparse
    files, names in two places.
    """
    members: dict[str, tuple[int, int]] = {}
    for count, member in enumerate(_entries(file), 1):
        if count > TAR_MEMBERS:
            raise FormatError(
                file.path,
                f"is a tar archive of more than {TAR_MEMBERS:,} members; torch's have four",
            )
        _check_kind(file, member)
        if member.is_file:
            if member.name in members:
                raise FormatError(
                    file.path, f"two members of the tar archive are named `{member.name}`"
                )
            members[member.name] = member.start, member.start + member.size
    return members


class _Entry(NamedTuple):
    """One header and where what it is about lies; `kind` is its type flag."""

    name: str
    kind: bytes
    start: int
    size: int

    @property
    def is_extended(self) -> bool:
        return self.kind in _EXTENDED

    @property
    def is_file(self) -> bool:
        return not self.is_extended and self.kind in _FILES and not self.name.endswith("/")


def _entries(file: SourceFile) -> Iterator[_Entry]:
    """The entries up to the first empty block. Raises FormatError for damaged and cut ones."""
    at = 0
    while at + BLOCK <= file.size:
        header = file.read(at, BLOCK)
        if not header.strip(b"\0"):
            return
        size = _number(header[_SIZE])
        if size is None or not _is_sound(header):
            raise FormatError(file.path, f"the tar header at byte {at} is damaged", AGAIN)
        entry = _Entry(_name(file, header), header[156:157], at + BLOCK, size)
        at = entry.start + -(-size // BLOCK) * BLOCK
        if at > file.size:
            raise truncated(file.path, at, file.size)
        yield entry


def _is_sound(header: bytes) -> bool:
    """Whether the checksum is right, and numbers stand where numbers belong."""
    are_numbers = all(
        header[place][:1] in _BINARY or _number(header[place]) is not None
        for place in _OTHER_NUMBERS
    )
    total = sum(header[:148]) + 8 * 32 + sum(header[156:])
    return are_numbers and _number(header[_CHECKSUM]) == total


def _check_kind(file: SourceFile, member: _Entry) -> None:
    """Raises FormatError for what is neither a file, an empty folder nor harmless metadata."""
    if member.is_extended:
        _check_extended(file, member.start, member.size)
    elif member.is_file:
        return
    elif member.kind not in _FILES + _FOLDER:
        raise FormatError(
            file.path,
            f"`{member.name}` is a link, a device or the like in its tar archive "
            f"(type {member.kind!r})",
        )
    elif member.size:
        raise FormatError(
            file.path,
            f"the folder `{member.name}` of its tar archive has {member.size} bytes, "
            "which readers take for headers or not",
        )


def _name(file: SourceFile, header: bytes) -> str:
    if header[345:500].strip(b"\0"):
        raise FormatError(
            file.path, "has a name in two places of a tar header, which torch's never have"
        )
    return header[:100].partition(b"\0")[0].decode("latin-1").removeprefix("./")


def _number(field: bytes) -> int | None:
    """Octal digits up to a NUL; None for anything else."""
    digits = field.partition(b"\0")[0].strip(b" ")
    return int(digits or b"0", 8) if all(48 <= digit < 56 for digit in digits) else None


def _check_extended(file: SourceFile, start: int, size: int) -> None:
    """Extended headers may give times and owners; torch's never rename or resize a member."""
    if size > _MAX_EXTENDED or any(word in file.read(start, size) for word in _DECISIVE):
        raise FormatError(
            file.path,
            "its tar archive renames or resizes members in extended headers, "
            "which torch's never do",
        )
