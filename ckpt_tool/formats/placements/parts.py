"""Boxes of tensors, read from where the tensors lie, and no more of them than that takes.
Checksums are those of whole tensors, and aren't looked at here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, product
from math import prod

from ckpt_tool.formats.limits import MiB
from ckpt_tool.formats.placements.assembled import Assembled, Joined, Placement
from ckpt_tool.formats.placements.byte_ranges import Extent
from ckpt_tool.formats.placements.views import View, read_view
from ckpt_tool.regions import Region, is_one_run, start_in_order
from ckpt_tool.tensors import DType, Shape

BAND = 4 * MiB
"""What is read at a time where the rows of a box are short, with what lies between them."""
MIN_RUN = 32 << 10
"""Runs of a box from here on are read by themselves: below, many reads take longer than all of it
(8192 × 6400 float32 by columns on 8 processes, warm and cold).
"""
MAX_GAP = 128 << 10
"""What lies between two runs is read with them up to here, as the system does in any case."""


def read_part(
    placement: Placement, region: Region, dtype: DType, shape: Shape, path: str, into: memoryview
) -> None:
    """Fills `into` with the contiguous little-endian bytes of a box. Elements below a byte can be
    read as a whole tensor only. Raises FormatError where a file ends before them.
    """
    match placement:
        case Extent() if region.shape == shape:
            placement.file.read_into(into, placement.offset)
        case Extent():
            _read_runs(_Bytes((placement,)), region, shape, dtype.itemsize, into)
        case Joined():
            _read_runs(_Bytes(placement.extents), region, shape, dtype.itemsize, into)
        case Assembled():
            _read_boxes(placement, region, dtype, shape, path, into)
        case View():
            _cut_out(read_view(placement, dtype, shape, path), region, dtype, shape, into)


def read_size(region: Region, shape: Shape, itemsize: int) -> int:
    """About how many bytes are read for a box of a tensor whose bytes stand one after the other."""
    size = prod(region.shape) * itemsize
    if not size or region.shape == shape or is_one_run(region, shape):
        return size
    _, run, stride = _rows_of(region, shape, itemsize)
    return size if _are_apart(run, stride) else size * stride // run


def _rows_of(region: Region, shape: Shape, itemsize: int) -> tuple[int, int, int]:
    """The last dimension that is cut, the bytes of a run, and those from one to the next."""
    cut = max(axis for axis, size in enumerate(shape) if region.shape[axis] != size)
    return cut, prod(region.shape[cut:]) * itemsize, prod(shape[cut:]) * itemsize


def _are_apart(run: int, stride: int) -> bool:
    """Whether runs are read by themselves."""
    return run >= MIN_RUN or stride - run > MAX_GAP


class _Bytes:
    """Byte ranges one after the other, as one."""

    def __init__(self, extents: Sequence[Extent]) -> None:
        self._extents = extents
        self._starts = [0, *accumulate(extent.length for extent in extents)]

    def read_into(self, into: memoryview, offset: int) -> None:
        """Fills `into` with what stands from `offset` on."""
        while into:
            index = bisect_right(self._starts, offset) - 1
            extent, inside = self._extents[index], offset - self._starts[index]
            count = min(len(into), extent.length - inside)
            extent.file.read_into(into[:count], extent.offset + inside)
            into, offset = into[count:], offset + count


def _read_runs(
    source: _Bytes, region: Region, shape: Shape, itemsize: int, into: memoryview
) -> None:
    """A box of a tensor whose bytes stand one after the other."""
    if region.shape == shape or is_one_run(region, shape):
        source.read_into(into, start_in_order(region, shape) * itemsize)
        return
    cut, run, stride = _rows_of(region, shape, itemsize)
    size = region.shape[cut - 1] * run
    outer = zip(region.offsets[: cut - 1], region.shape[: cut - 1], strict=True)
    for at in product(*(range(start, start + count) for start, count in outer)):
        first = Region((*at, *region.offsets[cut - 1 :]), region.shape)
        _read_rows(source, start_in_order(first, shape) * itemsize, run, stride, into[:size])
        into = into[size:]


def _read_rows(source: _Bytes, offset: int, run: int, stride: int, into: memoryview) -> None:
    """Runs of the same length at equal distances."""
    import numpy as np

    rows = len(into) // run
    if _are_apart(run, stride):
        for row in range(rows):
            source.read_into(into[row * run : (row + 1) * run], offset + row * stride)
        return
    at_once = max(1, BAND // stride)
    for first in range(0, rows, at_once):
        count = min(at_once, rows - first)
        band = bytearray((count - 1) * stride + run)
        source.read_into(memoryview(band), offset + first * stride)
        runs = np.ndarray((count, run), np.uint8, band, 0, (stride, 1))
        place = np.frombuffer(into[first * run : (first + count) * run], np.uint8)
        place.reshape(count, run)[:] = runs


def _read_boxes(
    placement: Assembled, region: Region, dtype: DType, shape: Shape, path: str, into: memoryview
) -> None:
    """A box of a tensor that is made of boxes: each is asked for what it has of it."""
    import numpy as np

    size = dtype.itemsize
    place = np.frombuffer(into, np.uint8).reshape(*region.shape, size)
    for box in placement.boxes:
        common = _common(region, box.region)
        if common is None:
            continue
        for band in common.bands(max(BAND // size, 1)) if not _is_run(common, region) else [common]:
            inside = _relative(band, box.region)
            here = _relative(band, region)
            if _is_run(band, region):
                start = start_in_order(here, region.shape) * size
                part = into[start : start + prod(band.shape) * size]
                read_part(box.placement, inside, dtype, box.region.shape, path, part)
                continue
            part = memoryview(bytearray(prod(band.shape) * size))
            read_part(box.placement, inside, dtype, box.region.shape, path, part)
            place[here.slices] = np.frombuffer(part, np.uint8).reshape(*band.shape, size)


def _common(one: Region, other: Region) -> Region | None:
    """What lies in both."""
    ranges = list(_overlaps(one, other))
    if any(first >= last for first, last in ranges):
        return None
    return Region(
        tuple(first for first, _ in ranges), tuple(last - first for first, last in ranges)
    )


def _overlaps(one: Region, other: Region) -> Iterator[tuple[int, int]]:
    for a, n, b, m in zip(one.offsets, one.shape, other.offsets, other.shape, strict=True):
        yield max(a, b), min(a + n, b + m)


def _relative(region: Region, frame: Region) -> Region:
    """The same box, counted from where another begins."""
    starts = zip(region.offsets, frame.offsets, strict=True)
    return Region(tuple(start - first for start, first in starts), region.shape)


def _is_run(part: Region, frame: Region) -> bool:
    return is_one_run(_relative(part, frame), frame.shape)


def _cut_out(content: bytes, region: Region, dtype: DType, shape: Shape, into: memoryview) -> None:
    import numpy as np

    if region.shape == shape:
        into[:] = content
        return
    whole = np.frombuffer(content, np.uint8).reshape(*shape, dtype.itemsize)
    place = np.frombuffer(into, np.uint8).reshape(*region.shape, dtype.itemsize)
    place[:] = whole[region.slices]
