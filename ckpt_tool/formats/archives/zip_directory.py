"""A zip archive's members and where their bytes lie, read strictly: what two readers could
understand differently is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct, unpack_from

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.archives.zip_end import End, find_end, gap_before_end
from ckpt_tool.formats.archives.zip_local_headers import (
    check_members_apart,
    content_offsets,
    has_no_checksum,
)
from ckpt_tool.formats.archives.zip_member import DEFLATED, FULL32, STORED, Member, check_method
from ckpt_tool.formats.files import AGAIN, SourceFile
from ckpt_tool.formats.limits import (
    INFLATE_ON_OPEN,
    INFLATE_RATIO,
    INFLATED_BYTES,
    ZIP_DIRECTORY_BYTES,
    ZIP_ENTRIES,
)
from ckpt_tool.formats.placements.byte_ranges import Deflated, Extent
from ckpt_tool.formats.placements.crc import crc32
from ckpt_tool.frozen import frozen

CENTRAL = b"PK\1\2"
_CENTRAL = Struct("<4s2x2xHH4xIIIHHHH2xII")
_IS_UTF8 = 0x800
_FOLDER = 0x10


@frozen
class Archive:
    """The members by name, in the directory's order; `notes` say what is odd about the file and yet
    harmless.
    """

    file: SourceFile
    members: dict[str, Member]
    notes: tuple[str, ...] = ()

    def located(self, member: Member) -> Member:
        """The member with the place of its bytes, which its local header tells. Raises
        FormatError.
        """
        if member.offset < 0:
            (member.offset,) = content_offsets(self.file, [member])
        return member

    def placement(self, member: Member) -> Extent | Deflated:
        """Where the member's content lies: a byte range, or deflated bytes."""
        if member.method == STORED:
            return Extent(self.file, member.offset, member.size, member.crc32)
        return Deflated(self.file, member.offset, member.stored, member.size, member.crc32)

    def read(self, name: str, limit: int) -> bytes:
        """The whole member, checked. Raises FormatError for one beyond `limit` bytes."""
        member = self.members[name]
        if member.size > limit:
            raise FormatError(
                self.file.path, f"`{name[:200]}` has {member.size} bytes; at most {limit} are read"
            )
        return self.placement(self.located(member)).read()

    def check(self) -> None:
        """Reads every member of a small file against its checksum; what inflates to more than that
        later, as it is read.
        """
        whole = memoryview(self.file.read(0, self.file.size))
        inflated = 0
        for member in self.members.values():
            if member.method == DEFLATED:
                inflated += member.size
                if inflated <= INFLATE_ON_OPEN:
                    self.placement(member).read()
            elif (
                member.crc32 is not None
                and crc32(whole[member.offset : member.offset + member.size]) != member.crc32
            ):
                raise FormatError(
                    self.file.path,
                    f"the bytes of `{member.name[:200]}` don't match their checksum",
                    AGAIN,
                )

    def verify(self) -> None:
        """Reads every member that is stored as it is against its checksum; the compressed ones are
        checked whenever they are read. Raises FormatError.
        """
        for member in self.members.values():
            if member.method == STORED:
                placement = self.placement(self.located(member))
                assert isinstance(placement, Extent)
                for _ in placement.pieces():
                    pass


def read_directory(file: SourceFile) -> Archive:
    """Raises FormatError for what is damaged, encrypted, ambiguous or inflates without bound.

    Of a file that isn't here, local headers are read when `located` asks for one: each would cost a
    request.
    """
    end = find_end(file)
    _check_place(file, end)
    members = _read_central(file, file.read(end.start, end.size), end.count)
    if not members:
        raise FormatError(file.path, "is an empty zip archive")
    if file.is_here:
        for member, offset in zip(members, content_offsets(file, members), strict=True):
            member.offset = offset
        check_members_apart(file, members, end.start)
    for member in _without_checksum(file, members):
        member.crc32 = None
    return Archive(file, {member.name: member for member in members}, end.notes)


def _check_place(file: SourceFile, end: End) -> None:
    """Raises FormatError for a directory that can't be where the end says, or is too large."""
    if end.count * _CENTRAL.size > end.size:
        raise FormatError(
            file.path, f"its zip directory declares {end.count} entries in {end.size} bytes", AGAIN
        )
    gap = end.position - end.start - end.size
    if gap < 0:
        raise FormatError(file.path, "its zip directory does not lie inside the file", AGAIN)
    if end.count > ZIP_ENTRIES or end.size > ZIP_DIRECTORY_BYTES:
        raise FormatError(
            file.path,
            f"its zip directory declares {end.count:,} entries in {end.size:,} bytes; "
            f"at most {ZIP_ENTRIES:,} entries in {ZIP_DIRECTORY_BYTES >> 20} MB are read",
        )
    if gap:
        raise gap_before_end(file, gap)


def _without_checksum(file: SourceFile, members: list[Member]) -> Iterator[Member]:
    """The members whose checksum was never computed, so that it is zero.

    torch.serialization.set_crc32_options(False) writes zeros everywhere.
    """
    zeros = [member for member in members if not member.crc32 and member.size]
    are_all_zero = len(zeros) == sum(member.size > 0 for member in members)
    is_told = file.is_here  # else the descriptors that tell it stay unread
    return (
        member for member in zeros if are_all_zero or (is_told and has_no_checksum(file, member))
    )


def raw_entries(file: SourceFile) -> dict[str, bytes]:
    """The directory's entries as they stand, by the members' names, of an archive that
    `read_directory` accepts.
    """
    end = find_end(file)
    raw, at, entries = file.read(end.start, end.size), 0, {}
    for _ in range(end.count):
        name, extra, comment = unpack_from("<28xHHH", raw, at)
        length = _CENTRAL.size + name + extra + comment
        entries[
            raw[at + _CENTRAL.size : at + _CENTRAL.size + name].decode("utf-8", "surrogateescape")
        ] = raw[at : at + length]
        at += length
    return entries


def _read_central(file: SourceFile, raw: bytes, count: int) -> list[Member]:
    members, at = [], 0
    for _ in range(count):
        if at + _CENTRAL.size > len(raw):
            raise FormatError(
                file.path, f"its zip directory ends before the {count} entries it declares", AGAIN
            )
        member, at = _read_entry(file, raw, at)
        members.append(member)
    if at != len(raw):
        raise FormatError(
            file.path, f"its zip directory has {len(raw) - at} bytes more than its {count} entries"
        )
    _check_names(file, [member.name for member in members])
    _check_inflation(file, members)
    return members


def _read_entry(file: SourceFile, raw: bytes, at: int) -> tuple[Member, int]:
    """The entry at this byte of the directory, and where the next begins."""
    (magic, flags, method, crc, stored, size, name_length, extra_length, comment, disk, attributes,
     header) = _CENTRAL.unpack_from(raw, at)  # fmt: skip
    start = at + _CENTRAL.size
    extra = start + name_length
    following = extra + extra_length + comment
    if magic != CENTRAL or following > len(raw):
        raise FormatError(file.path, "its zip directory is damaged", AGAIN)
    name = _name(file, raw[start:extra], flags)
    if FULL32 in (size, stored, header):
        size, stored, header = _wide_sizes(
            file, name, raw[extra : extra + extra_length], size, stored, header
        )
    member = Member(name, method, crc, stored, size, header)
    if disk > 1:  # miniz, and so torch, takes 1 for this one too
        raise FormatError(
            file.path,
            f"`{name[:200]}` is in another part of a zip archive of several files",
            AGAIN,
        )
    check_method(file, member, flags)
    if attributes & _FOLDER and size:
        raise FormatError(
            file.path,
            f"`{name[:200]}` has bytes, yet is marked as a folder, which readers take for empty",
            AGAIN,
        )
    return member, following


def _check_names(file: SourceFile, names: list[str]) -> None:
    """No two that a file system could take for the same."""
    folded = [name.casefold() for name in names]
    if len(set(folded)) < len(folded):
        last = {one: at for at, one in enumerate(folded)}
        twice = next(names[last[one]] for at, one in enumerate(folded) if last[one] != at)
        raise FormatError(
            file.path,
            f"two members of the zip archive are named `{twice[:200]}`",
            "which of them counts is not defined",
        )


def _check_inflation(file: SourceFile, members: list[Member]) -> None:
    bombs = [
        member
        for member in members
        if member.method == DEFLATED and member.size > INFLATE_RATIO * member.stored
    ]
    if sum(member.size for member in bombs) > INFLATED_BYTES:
        most = max(bombs, key=lambda member: member.size)
        raise FormatError(
            file.path,
            f"`{most.name[:200]}` inflates from {most.stored} to {most.size} bytes",
            "no real checkpoint does",
        )


def _name(file: SourceFile, raw: bytes, flags: int) -> str:
    """Zip programs that don't write UTF-8 say so: what encoding it is doesn't matter for a folder's
    name.
    """
    name = raw.decode("utf-8", "surrogateescape")
    if flags & _IS_UTF8 and not name.isascii() and name != raw.decode("utf-8", "replace"):
        raise FormatError(
            file.path, "has a member in its zip archive whose name is not UTF-8, though it says so"
        )
    if not name or "\0" in name:
        raise FormatError(file.path, "has a member in its zip archive with an impossible name")
    return name


def _wide_sizes(file: SourceFile, name: str, extra: bytes, *narrow: int) -> list[int]:
    """Sizes and offset with those that are all ones taken from the zip64 extra field, in the
    field's order.
    """
    at = 0
    while at + 4 <= len(extra):
        kind, length = unpack_from("<HH", extra, at)
        if at + 4 + length > len(extra):
            break
        if kind == 1:
            wide = [
                number
                for (number,) in Struct("<Q").iter_unpack(extra[at + 4 : at + 4 + length // 8 * 8])
            ]
            if len(wide) >= narrow.count(FULL32):
                return [wide.pop(0) if number == FULL32 else number for number in narrow]
        at += 4 + length
    raise FormatError(file.path, f"the zip64 sizes of `{name[:200]}` are missing")
