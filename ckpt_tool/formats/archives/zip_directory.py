"""A zip archive's members and where their bytes lie, read strictly: what two readers could
understand differently is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct, unpack_from

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.archives.crc import crc32
from ckpt_tool.formats.byte_ranges import Deflated, Extent
from ckpt_tool.formats.files import AGAIN, SourceFile
from ckpt_tool.formats.limits import (
    INFLATE_ON_OPEN,
    INFLATE_RATIO,
    INFLATED_BYTES,
    ZIP_DIRECTORY_BYTES,
    ZIP_ENTRIES,
)

END, END64, LOCATOR64, CENTRAL, LOCAL, DESCRIPTOR = (
    b"PK\5\6",
    b"PK\6\6",
    b"PK\6\7",
    b"PK\1\2",
    b"PK\3\4",
    b"PK\7\x08",
)
_CENTRAL = Struct("<4s2x2xHH4xIIIHHHH2xII")
_LOCAL = Struct("<4s2xHH4xIIIHH")
LOCAL_BYTES = _LOCAL.size
_ALLOWED_FLAGS = 0x080E
"""Deflate's level (bits 1 and 2), data descriptor (3), UTF-8 names (11); others mean encryption,
patches, hidden headers.
"""
_IS_UTF8 = 0x800
_FOLDER = 0x10
STORED, DEFLATED = 0, 8
WINDOW, DENSE = 64 << 10, 4 << 10
"""What is read at a time of an archive whose members have fewer bytes than `DENSE` on average."""
FULL32 = 0xFFFFFFFF


class CutOff(FormatError):
    """An archive without its end."""


@dataclass(slots=True)
class Member:
    """One entry: where its header is, where its bytes are, and what the directory says of them.
    `crc32` is None where not computed.
    """

    name: str
    method: int
    crc32: int | None
    stored: int
    size: int
    header: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Archive:
    """The members by name, in the directory's order; `notes` say what is odd about the file and yet
    harmless.
    """

    file: SourceFile
    members: dict[str, Member]
    notes: tuple[str, ...] = ()

    def placement(self, member: Member) -> Extent | Deflated:
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
        return self.placement(member).read()

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


def read_directory(file: SourceFile) -> Archive:
    """Raises FormatError for what is damaged, encrypted, ambiguous or inflates without bound."""
    end, count, size, start, notes = _find_end(file)
    if count * _CENTRAL.size > size:
        raise FormatError(
            file.path, f"its zip directory declares {count} entries in {size} bytes", AGAIN
        )
    if start + size > end:
        raise FormatError(file.path, "its zip directory does not lie inside the file", AGAIN)
    if count > ZIP_ENTRIES or size > ZIP_DIRECTORY_BYTES:
        most = f"at most {ZIP_ENTRIES:,} entries in {ZIP_DIRECTORY_BYTES >> 20} MB are read"
        raise FormatError(
            file.path, f"its zip directory declares {count:,} entries in {size:,} bytes; {most}"
        )
    if start + size < end:
        raise _is_several(file, end - start - size)
    members = _read_central(file, file.read(start, size), count)
    if not members:
        raise FormatError(file.path, "is an empty zip archive")
    _read_locals(file, members)
    _check_overlaps(file, members, start)
    # torch.serialization.set_crc32_options(False) writes zeros everywhere.
    zeros = [member for member in members if not member.crc32 and member.size]
    are_all_zero = bool(zeros) and len(zeros) == sum(member.size > 0 for member in members)
    for member in zeros:
        if are_all_zero or _has_no_checksum(file, member):
            member.crc32 = None
    return Archive(file, {member.name: member for member in members}, notes)


def raw_entries(file: SourceFile) -> dict[str, bytes]:
    """The directory's entries as they stand, by the members' names, of an archive that
    `read_directory` accepts.
    """
    _, count, size, start, _ = _find_end(file)
    raw, at, entries = file.read(start, size), 0, {}
    for _ in range(count):
        name, extra, comment = unpack_from("<28xHHH", raw, at)
        length = _CENTRAL.size + name + extra + comment
        entries[
            raw[at + _CENTRAL.size : at + _CENTRAL.size + name].decode("utf-8", "surrogateescape")
        ] = raw[at : at + length]
        at += length
    return entries


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


def _find_end(file: SourceFile) -> tuple[int, int, int, int, tuple[str, ...]]:
    """(where the directory must have ended, number of entries, bytes and offset of the directory,
    notes).
    """
    tail_start = max(0, file.size - 22 - 0xFFFF)
    tail = file.read(tail_start, file.size - tail_start)
    at = tail.rfind(
        END, 0, max(0, len(tail) - 22 + len(END))
    )  # a comment may have these letters too
    if at < 0:
        raise CutOff(file.path, "is cut off: a zip archive without its directory at the end", AGAIN)
    disk, first_disk, here, count, size, start, comment = unpack_from("<4xHHHHIIH", tail, at)
    end = tail_start + at
    if disk or first_disk or here != count:
        raise FormatError(file.path, "is one part of a zip archive of several files")
    after = len(tail) - at - 22 - comment
    if after < 0:
        raise FormatError(file.path, "is cut off inside the zip archive's comment", AGAIN)
    notes = (f"{after} bytes follow the zip archive",) if after else ()
    if at >= 20 and tail[at - 20 : at - 16] == LOCATOR64:
        narrow = (count, 0xFFFF), (size, FULL32), (start, FULL32)
        end, count, size, start = _read_end64(file, end - 20)
        if any(
            said not in (number, full)
            for (said, full), number in zip(narrow, (count, size, start), strict=True)
        ):
            raise FormatError(
                file.path,
                "its two zip end records contradict each other",
                "readers differ in which of them counts",
            )
    elif count == 0xFFFF or FULL32 in (size, start):
        raise FormatError(file.path, "its zip64 directory is missing")
    return end, count, size, start, notes


def _is_several(file: SourceFile, gap: int) -> FormatError:
    """zipfile and unzip take the last of two archives; miniz, and so torch, what stands at the last
    one's places in the whole file.
    """
    fact = f"{gap} bytes lie between its zip directory and its end, as in several archives one behind the other"
    return FormatError(
        file.path,
        fact,
        "readers differ in which of them counts; of a distributed checkpoint (.distcp) name the folder",
    )


def _read_end64(file: SourceFile, locator: int) -> tuple[int, int, int, int]:
    disk, at, disks = unpack_from("<4xIQI", file.read(locator, 20))
    if disk or disks != 1 or at + 56 > locator:
        raise FormatError(file.path, "its zip64 end record does not lie inside the file", AGAIN)
    magic, length, disk, first_disk, here, count, size, start = unpack_from(
        "<4sQ4xIIQQQQ", file.read(at, 56)
    )
    if magic != END64 or length < 44 or disk or first_disk or here != count:
        raise FormatError(file.path, "its zip64 end record is damaged", AGAIN)
    if at + 56 != locator:
        raise _is_several(file, locator - at - 56)
    return at, count, size, start


def _read_central(file: SourceFile, raw: bytes, count: int) -> list[Member]:
    members, at, end, unpack, fixed = [], 0, len(raw), _CENTRAL.unpack_from, _CENTRAL.size
    for _ in range(count):
        if at + fixed > end:
            raise FormatError(
                file.path, f"its zip directory ends before the {count} entries it declares", AGAIN
            )
        (
            magic,
            flags,
            method,
            crc,
            stored,
            size,
            name_length,
            extra_length,
            comment,
            disk,
            attributes,
            header,
        ) = unpack(raw, at)
        start = at + fixed
        extra = start + name_length
        at = extra + extra_length + comment
        if magic != CENTRAL or at > end:
            raise FormatError(file.path, "its zip directory is damaged", AGAIN)
        name = _name(file, raw[start:extra], flags)
        if size == FULL32 or stored == FULL32 or header == FULL32:
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
        if flags & ~_ALLOWED_FLAGS or method or stored != size:
            _check_method(file, member, flags)
        if attributes & _FOLDER and size:
            raise FormatError(
                file.path,
                f"`{name[:200]}` has bytes, yet is marked as a folder, which readers take for empty",
                AGAIN,
            )
        members.append(member)
    if at != end:
        raise FormatError(
            file.path, f"its zip directory has {end - at} bytes more than its {count} entries"
        )
    _check_names(file, [member.name for member in members])
    _check_inflation(file, members)
    return members


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


def _check_method(file: SourceFile, member: Member, flags: int) -> None:
    if flags & ~_ALLOWED_FLAGS:
        raise FormatError(
            file.path,
            f"`{member.name[:200]}` is encrypted, or of an unknown kind (flags {flags:#06x})",
        )
    if member.method not in (STORED, DEFLATED):
        raise FormatError(
            file.path,
            f"`{member.name[:200]}` is compressed by method {member.method}, which torch does not read",
        )
    if member.method == DEFLATED and member.stored > 2 * member.size + WINDOW:
        raise FormatError(
            file.path,
            f"`{member.name[:200]}` is compressed from {member.size} to {member.stored} bytes, as nobody does",
        )
    if member.method == STORED and member.stored != member.size:
        raise FormatError(
            file.path,
            f"`{member.name[:200]}` is stored as it is, yet in {member.stored} instead of {member.size} bytes",
        )


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


def _read_locals(file: SourceFile, members: list[Member]) -> None:
    """Finds where each member's bytes begin: only the local header knows, whose padding differs
    from the directory's.
    """
    size = _LOCAL.size
    # Of small members many headers come with one read.
    ahead = WINDOW if file.size < DENSE * len(members) else 0
    window, start = b"", 0
    for member in members:
        name = member.name.encode("utf-8", "surrogateescape")
        at = member.header - start
        if at < 0 or at + size + len(name) > len(window):
            start, at = member.header, 0
            window = (
                file.read(start, min(size + len(name) + ahead, file.size - start))
                if start < file.size
                else b""
            )
        raw = window[at : at + size + len(name)]
        if len(raw) < size + len(name):
            raise FormatError(
                file.path, f"`{member.name[:200]}` does not lie inside the file", AGAIN
            )
        magic, flags, method, crc, stored, full, name_length, extra_length = _LOCAL.unpack_from(raw)
        if (
            magic != LOCAL
            or name_length != len(name)
            or raw[size:] != name
            or method != member.method
        ):
            raise FormatError(
                file.path, f"the zip directory and the file disagree about `{member.name[:200]}`"
            )
        if flags & ~_ALLOWED_FLAGS:
            _check_method(file, member, flags)
        if not flags & 8 or crc or stored or full:
            _check_numbers(file, member, flags, crc, stored, full)
        member.offset = member.header + size + name_length + extra_length


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


def _has_no_checksum(file: SourceFile, member: Member) -> bool:
    """Whether the descriptor behind a member says zero too: torch.serialization.skip_data leaves
    room for bytes that come later.
    """
    at = member.offset + member.stored
    return at + 8 <= file.size and file.read(at, 8) == DESCRIPTOR + bytes(4)


def _check_overlaps(file: SourceFile, members: list[Member], directory: int) -> None:
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
