"""The end records of a zip archive: where they are, and what they say of its directory."""

from __future__ import annotations

from dataclasses import replace
from struct import unpack_from

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.archives.zip_member import FULL32
from ckpt_tool.formats.files import AGAIN, SourceFile, Truncated
from ckpt_tool.frozen import frozen

END = b"PK\5\6"
END64 = b"PK\6\6"
LOCATOR64 = b"PK\6\7"
_ENDS = 56 + 20 + 22
"""The bytes of all three end records."""


class CutOff(Truncated):
    """An archive without its end."""


@frozen
class End:
    """The end records: where they begin, and the directory's number of entries, bytes and start."""

    position: int
    count: int
    size: int
    start: int
    notes: tuple[str, ...] = ()


def find_end(file: SourceFile) -> End:
    """Raises CutOff without end records, FormatError for those that contradict each other."""
    tail_start, tail = _read_tail(file)
    # A comment may have these letters too.
    at = tail.rfind(END, 0, max(0, len(tail) - 22 + len(END)))
    if at < 0:
        raise CutOff(file.path, "is cut off: a zip archive without its directory at the end", AGAIN)
    disk, first_disk, here, count, size, start, comment = unpack_from("<4xHHHHIIH", tail, at)
    if disk or first_disk or here != count:
        raise FormatError(file.path, "is one part of a zip archive of several files")
    notes = _notes_on_rest(file, len(tail) - at - 22 - comment)
    end = End(tail_start + at, count, size, start, notes)
    if at >= 20 and tail[at - 20 : at - 16] == LOCATOR64:
        return _widened(file, end)
    if count == 0xFFFF or FULL32 in (size, start):
        raise FormatError(file.path, "its zip64 directory is missing")
    return end


def _read_tail(file: SourceFile) -> tuple[int, bytes]:
    """The end of the file, and where it begins: the end records alone where no comment follows
    them, as of what torch writes; else as much as a comment may have.
    """
    for most in (_ENDS, 22 + 0xFFFF):
        start = max(0, file.size - most)
        tail = file.read(start, file.size - start)
        if tail[-22:-18] == END:
            break
    return start, tail


def _notes_on_rest(file: SourceFile, after: int) -> tuple[str, ...]:
    """What is odd about so many bytes behind the comment. Raises FormatError for a cut comment."""
    if after < 0:
        raise Truncated(file.path, "is cut off inside the zip archive's comment", AGAIN)
    return (f"{after} bytes follow the zip archive",) if after else ()


def _widened(file: SourceFile, narrow: End) -> End:
    """The zip64 end record, which must agree with the narrow one but where that is full."""
    wide = _read_end64(file, narrow.position - 20)
    for number, given, full in (
        (wide.count, narrow.count, 0xFFFF),
        (wide.size, narrow.size, FULL32),
        (wide.start, narrow.start, FULL32),
    ):
        if given not in (number, full):
            raise FormatError(
                file.path,
                "its two zip end records contradict each other",
                "readers differ in which of them counts",
            )
    return replace(wide, notes=narrow.notes)


def gap_before_end(file: SourceFile, gap: int) -> FormatError:
    """The error of a directory that does not end where the end records begin.

    zipfile and unzip take the last of two archives; miniz, and so torch, what stands at the last
    one's places in the whole file.
    """
    fact = (
        f"{gap} bytes lie between its zip directory and its end, "
        "as in several archives one behind the other"
    )
    return FormatError(
        file.path,
        fact,
        "readers differ in which of them counts; of a distributed checkpoint (.distcp) name the "
        "folder",
    )


def _read_end64(file: SourceFile, locator: int) -> End:
    disk, at, disks = unpack_from("<4xIQI", file.read(locator, 20))
    if disk or disks != 1 or at + 56 > locator:
        raise FormatError(file.path, "its zip64 end record does not lie inside the file", AGAIN)
    magic, length, disk, first_disk, here, count, size, start = unpack_from(
        "<4sQ4xIIQQQQ", file.read(at, 56)
    )
    if magic != END64 or length < 44 or disk or first_disk or here != count:
        raise FormatError(file.path, "its zip64 end record is damaged", AGAIN)
    if at + 56 != locator:
        raise gap_before_end(file, locator - at - 56)
    return End(at, count, size, start)
