"""Tensors that lie in several places: byte ranges one after the other, boxes of a grid. And where
any tensor lies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod

from ckpt_tool.formats.limits import MiB
from ckpt_tool.formats.placements.boxes import BoxFault
from ckpt_tool.formats.placements.byte_ranges import CHUNK, Extent, Storage
from ckpt_tool.formats.placements.crc import crc32
from ckpt_tool.formats.placements.views import View, read_view
from ckpt_tool.frozen import frozen
from ckpt_tool.regions import Region, is_one_run, start_in_order
from ckpt_tool.tensors import DType, Shape

BAND = 8 * MiB
"""What is put together at a time of a tensor that is made of boxes."""


@frozen
class Joined:
    """Byte ranges that are a tensor when they stand one after the other."""

    extents: tuple[Extent, ...]

    def chunks(self, size: int = CHUNK) -> Iterator[bytes]:
        """The bytes in pieces, each range checked against its checksum. Raises FormatError."""
        for extent in self.extents:
            yield from extent.chunks(size)


@frozen
class Box:
    """A part of a tensor: where it lies in it, and where its own bytes lie."""

    region: Region
    placement: Extent | View


@frozen
class Assembled:
    """Boxes that fill a tensor, none over another, in the order of their first elements."""

    boxes: tuple[Box, ...]

    def chunks(self, dtype: DType, shape: Shape, path: str) -> Iterator[bytes]:
        """The contiguous little-endian bytes in pieces of about `BAND`, each box read once and
        checked. Raises FormatError.
        """
        readers = [_Reader(box, dtype, path) for box in self.boxes]
        yield from _bands(readers, shape, dtype.itemsize)
        for reader in readers:
            reader.finish()


Placement = Extent | View | Joined | Assembled


def assemble(boxes: Iterable[Box], shape: Shape, dtype: DType) -> Placement:
    """Where a tensor lies whose boxes fill it (`boxes.check_filled` asks that): as few byte ranges
    as possible, so that they can be copied as they are. Raises BoxFault for elements below a byte
    that are cut along their rows.
    """
    some = sorted(
        (box for box in boxes if prod(box.region.shape)),
        key=lambda box: start_in_order(box.region, shape),
    )
    if len(some) == 1 and type(some[0].placement) is View:
        return some[0].placement
    extents = [box.placement for box in some if type(box.placement) is Extent]
    if len(extents) == len(some) and all(is_one_run(box.region, shape) for box in some):
        return extents[0] if len(extents) == 1 else Joined(tuple(_merged(extents)))
    if not dtype.itemsize:
        raise BoxFault(f"of {dtype.value} is cut along its rows, inside of bytes")
    return Assembled(tuple(some))


def join(extents: Iterable[Extent]) -> Extent | Joined:
    """Byte ranges one after the other, as one where they are: flat partitions of several files."""
    some = list(_merged(extent for extent in extents if extent.length))
    return some[0] if len(some) == 1 else Joined(tuple(some))


def _merged(extents: Iterable[Extent]) -> Iterator[Extent]:
    """The same ranges, those as one that continue each other in their file; one with a checksum
    stays by itself.
    """
    last: Extent | None = None
    for extent in extents:
        if last is not None and _continues(last, extent):
            last = Extent(last.file, last.offset, last.length + extent.length)
            continue
        if last is not None:
            yield last
        last = extent
    if last is not None:
        yield last


def _continues(last: Extent, extent: Extent) -> bool:
    are_unchecked = last.crc32 is None and extent.crc32 is None
    is_next = last.file is extent.file and last.offset + last.length == extent.offset
    return are_unchecked and is_next


def storages_of(placement: Placement) -> tuple[Storage, ...]:
    """What holds the bytes of a tensor, maybe with those of others."""
    match placement:
        case View():
            return (placement.storage,)
        case Joined():
            return placement.extents
        case Assembled():
            return tuple(each for box in placement.boxes for each in storages_of(box.placement))
        case _:
            return (placement,)


class _Reader:
    """The bytes of one box from its first to its last, as they are asked for."""

    def __init__(self, box: Box, dtype: DType, path: str) -> None:
        self.offsets, self.shape = box.region.offsets, box.region.shape
        self._placement, self._dtype, self._path = box.placement, dtype, path
        self._at, self._crc, self._content = 0, 0, b""

    def take(self, size: int) -> bytes:
        """The next bytes."""
        at, self._at = self._at, self._at + size
        if isinstance(self._placement, Extent):
            piece = self._placement.file.read(self._placement.offset + at, size)
            if self._placement.crc32 is not None:
                self._crc = crc32(piece, self._crc)
            return piece
        self._content = self._content or read_view(
            self._placement, self._dtype, self.shape, self._path
        )
        return self._content[at : at + size]

    def finish(self) -> None:
        """Raises FormatError where the box's bytes are not those of its checksum."""
        self._content = b""
        if isinstance(self._placement, Extent):
            self._placement.check(self._crc)


def _bands(readers: list[_Reader], shape: Shape, itemsize: int, axis: int = 0) -> Iterator[bytes]:
    """The bytes of one place in the axes before `axis`, where all `readers` have some."""
    row = prod(shape[axis + 1 :]) * itemsize
    if row > BAND and len(readers) > 1 and axis + 1 < len(shape):
        for at in range(shape[axis]):
            here = [
                one
                for one in readers
                if one.offsets[axis] <= at < one.offsets[axis] + one.shape[axis]
            ]
            yield from _bands(here, shape, itemsize, axis + 1)
        return
    rows = max(1, BAND // max(row, 1))
    for start in range(0, shape[axis], rows):
        stop = min(start + rows, shape[axis])
        yield _band(readers, start, stop, shape[axis:], axis, itemsize)


def _band(
    readers: list[_Reader], start: int, stop: int, shape: Shape, axis: int, itemsize: int
) -> bytes:
    """Rows `start` to `stop` of the axis, from the boxes that have some of them."""
    import numpy as np

    band = np.empty((stop - start, *shape[1:], itemsize), np.uint8)
    for reader in readers:
        first = max(start, reader.offsets[axis])
        last = min(stop, reader.offsets[axis] + reader.shape[axis])
        if first >= last:
            continue
        size = (last - first, *reader.shape[axis + 1 :])
        content = np.frombuffer(reader.take(prod(size) * itemsize), np.uint8)
        inner = zip(reader.offsets[axis + 1 :], reader.shape[axis + 1 :], strict=True)
        place = (slice(first - start, last - start), *(slice(at, at + n) for at, n in inner))
        band[place] = content.reshape(*size, itemsize)
    return band.tobytes()
