"""Tensors' bytes from where they lie to where they belong, unchanged: what lies side by side is
moved as one range.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from ckpt_tool.engine.copying import checksum_of, copy_extent, start_writing, write_at
from ckpt_tool.engine.layouts.layout import Layout
from ckpt_tool.engine.sources import ByteSource
from ckpt_tool.formats import Extent
from ckpt_tool.formats.placements.crc import crc32
from ckpt_tool.frozen import frozen

BATCH = 64 << 20
"""Bytes that a thread moves at a time, unless one tensor has more."""
WORTH_STARTING = 4 << 20
"""Bytes of one output, side by side, that are worth a call to start their way to the disk."""
Move = tuple[str, ByteSource]


@frozen
class OpenOutput:
    """An open file that a tensor belongs to, and where everything lies in it."""

    fd: int
    layout: Layout


@dataclass(slots=True)
class Run:
    """A byte range of the source that goes to one place as a whole, with the keys of the tensors in
    it.
    """

    extent: Extent
    fd: int
    offset: int
    needs_checksum: bool
    length: int
    keys: list[str]

    def takes(self, extent: Extent, place: OpenOutput, offset: int) -> bool:
        """Whether a tensor goes on where this range ends, on both sides, and nobody asks for the
        checksum of either.
        """
        source = self.extent
        if (
            source.file is not extent.file
            or self.fd != place.fd
            or self.needs_checksum
            or (source.crc32, extent.crc32) != (None, None)
        ):
            return False
        return extent.offset - source.offset == offset - self.offset == self.length


@dataclass(slots=True)
class Written:
    """A byte range of an output that was just written and isn't on its way to the disk yet."""

    fd: int = -1
    offset: int = 0
    length: int = 0

    def add(self, fd: int, offset: int, length: int) -> None:
        """Takes one more range, and starts what is large enough, or doesn't go on here."""
        if (fd, offset) != (self.fd, self.offset + self.length):
            self.start()
            self.fd, self.offset, self.length = fd, offset, 0
        self.length += length
        if self.length >= WORTH_STARTING:
            start_writing(self.fd, self.offset, self.length)
            self.offset, self.length = self.offset + self.length, 0

    def start(self) -> None:
        """Starts what is left, if that is worth it."""
        if self.length >= WORTH_STARTING // 4:
            start_writing(self.fd, self.offset, self.length)


def move_tensors(
    places: Mapping[str, OpenOutput],
    moves: Sequence[Move],
    done: Callable[[str], None],
    jobs: int = 1,
) -> dict[str, int]:
    """Copies tensors, `jobs` at a time; gives their checksums, and reports each that is done.
    Raises FormatError for a wrong checksum.
    """
    checksums: dict[str, int] = {}
    if jobs == 1:
        for batch in _batches(moves):
            checksums |= _move_batch(places, batch, done)
        return checksums
    with ThreadPoolExecutor(jobs) as threads:
        for sums in threads.map(lambda batch: _move_batch(places, batch, done), _batches(moves)):
            checksums |= sums
    return checksums


def _batches(moves: Sequence[Move]) -> Iterator[list[Move]]:
    batch: list[Move] = []
    size = 0
    for key, origin in moves:
        nbytes = origin.checkpoint.catalog[origin.key].nbytes
        if batch and size + nbytes > BATCH:
            yield batch
            batch, size = [], 0
        batch.append((key, origin))
        size += nbytes
    if batch:
        yield batch


def _move_batch(
    places: Mapping[str, OpenOutput], batch: Sequence[Move], done: Callable[[str], None]
) -> dict[str, int]:
    checksums: dict[str, int] = {}
    written = Written()
    for run in _runs(places, batch):
        checksums |= dict.fromkeys(run.keys, copy_run(run))
        written.add(run.fd, run.offset, run.length)
        for key in run.keys:
            done(key)
    written.start()
    for key, origin in batch:
        if not _extents(places[key], origin):
            checksums[key] = _write_chunks(
                places[key], places[key].layout.offset(key), origin.checkpoint.chunks(origin.key)
            )
            done(key)
    return checksums


def _runs(places: Mapping[str, OpenOutput], batch: Sequence[Move]) -> Iterator[Run]:
    run: Run | None = None
    for key, origin in batch:
        place = places[key]
        offset = place.layout.offset(key)
        for extent in _extents(place, origin):
            if run is not None and run.takes(extent, place, offset):
                run.length += extent.length
            else:
                if run is not None:
                    yield run
                run = Run(extent, place.fd, offset, place.layout.needs_checksums, extent.length, [])
            offset += extent.length
        if run is not None and _extents(place, origin):
            run.keys.append(key)  # it ends here
    if run is not None:
        yield run


def _extents(place: OpenOutput, origin: ByteSource) -> tuple[Extent, ...]:
    """The byte ranges to copy as they are; none where the bytes have to pass through a buffer, as
    those of several ranges whose common checksum is needed.
    """
    extents = origin.checkpoint.extents(origin.key)
    return () if len(extents) > 1 and place.layout.needs_checksums else extents


def copy_run(run: Run) -> int:
    """Copies a byte range and gives its CRC-32, 0 where nobody needs it.

    A checksum that the source has is carried over to a container that stores it, and verified where
    it would be lost.
    """
    is_one = run.length == run.extent.length
    whole = run.extent if is_one else replace(run.extent, length=run.length)
    copy_extent(whole, run.fd, run.offset)
    is_checked = run.extent.crc32 is not None and not run.extent.file.has_descriptor
    if is_checked or (run.extent.crc32 is None) is not run.needs_checksum:
        return run.extent.crc32 or 0
    return checksum_of(run.extent)


def _write_chunks(place: OpenOutput, offset: int, chunks: Iterator[bytes]) -> int:
    crc = 0
    for chunk in chunks:
        write_at(place.fd, chunk, offset)
        offset += len(chunk)
        crc = crc32(chunk, crc) if place.layout.needs_checksums else 0
    return crc
