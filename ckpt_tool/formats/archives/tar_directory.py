"""A tar archive's members and where their bytes lie, read strictly: what two readers could
understand differently is refused.

POSIX.1-2017, pax, "ustar Interchange Format"; torch reads such archives with Python's tarfile.
"""

from __future__ import annotations

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
_MOST_EXTENDED = 64 << 10
_DECISIVE = (b" path=", b" linkpath=", b" size=", b" GNU.sparse.", b" SCHILY.realsize=")
"""What extended headers may not give: another name, or another number of bytes."""


def read_members(file: SourceFile) -> dict[str, tuple[int, int]]:
    """First byte and the byte after the last of each file in the archive, by name.

    Raises FormatError for what is cut or damaged, and for what torch never wrote: links, sparse
    files, names in two places.
    """
    members: dict[str, tuple[int, int]] = {}
    at = count = 0
    while at + BLOCK <= file.size:
        header = file.read(at, BLOCK)
        if not header.strip(b"\0"):
            break
        checksum, size = _number(header[_CHECKSUM]), _number(header[_SIZE])
        are_numbers = all(
            header[place][:1] in _BINARY or _number(header[place]) is not None
            for place in _OTHER_NUMBERS
        )
        if (
            size is None
            or not are_numbers
            or checksum != sum(header[:148]) + 8 * 32 + sum(header[156:])
        ):
            raise FormatError(file.path, f"the tar header at byte {at} is damaged", AGAIN)
        name, start, kind = _name(file, header), at + BLOCK, header[156:157]
        following = start + -(-size // BLOCK) * BLOCK
        if following > file.size:
            raise truncated(file.path, following, file.size)
        count += 1
        if count > TAR_MEMBERS:
            raise FormatError(
                file.path,
                f"is a tar archive of more than {TAR_MEMBERS:,} members; torch's have four",
            )
        if kind in _EXTENDED:
            _check_extended(file, start, size)
        elif kind in _FILES and not name.endswith("/"):
            if name in members:
                raise FormatError(file.path, f"two members of the tar archive are named `{name}`")
            members[name] = start, start + size
        elif kind not in _FILES + _FOLDER:
            raise FormatError(
                file.path,
                f"`{name}` is a link, a device or the like in its tar archive (type {kind!r})",
            )
        elif size:
            raise FormatError(
                file.path,
                f"the folder `{name}` of its tar archive has {size} bytes, which readers take for headers or not",
            )
        at = following
    return members


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
    if size > _MOST_EXTENDED or any(word in file.read(start, size) for word in _DECISIVE):
        raise FormatError(
            file.path,
            "its tar archive renames or resizes members in extended headers, which torch's never do",
        )
