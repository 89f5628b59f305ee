"""Tensors that lie in several places: any cut of a tensor gives its bytes, and no other set of boxes is taken."""

from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.files import SourceFile
from ckpt_tool.formats.placements import assembled
from ckpt_tool.formats.placements.assembled import Assembled, Box, Joined, assemble, join
from ckpt_tool.formats.placements.boxes import BoxFault, check_filled
from ckpt_tool.formats.placements.byte_ranges import Extent
from ckpt_tool.formats.placements.crc import crc32
from ckpt_tool.formats.placements.views import View
from ckpt_tool.regions import Region
from ckpt_tool.tensors import DType

shapes = st.lists(st.integers(0, 6), min_size=1, max_size=4).map(tuple)


@st.composite
def cuts(draw):
    """A shape, and regions that fill it: each is cut in two again and again, in any dimension."""
    shape = draw(shapes)
    regions = [Region((0,) * len(shape), shape)]
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(regions) - 1))
        region = regions.pop(at)
        axis = draw(st.integers(0, len(shape) - 1))
        first = draw(st.integers(0, region.shape[axis]))
        for start, count in ((0, first), (first, region.shape[axis] - first)):
            offsets, sizes = list(region.offsets), list(region.shape)
            offsets[axis] += start
            sizes[axis] = count
            regions.append(Region(tuple(offsets), tuple(sizes)))
    return shape, draw(st.permutations(regions))


def index(region):
    return tuple(slice(a, a + n) for a, n in zip(region.offsets, region.shape, strict=True))


def stored(tmp_path_factory, parts):
    """The parts one after the other in a file, a byte between them, with their checksums."""
    path = tmp_path_factory.mktemp("parts") / "parts.bin"
    extents, content = [], b""
    for part in parts:
        raw = part.tobytes()
        extents.append((len(content) + 1, len(raw), crc32(raw)))
        content += b"-" + raw
    path.write_bytes(content + b"-")
    file = SourceFile(path)
    return [Extent(file, *extent) for extent in extents]


def bytes_of(placement, dtype, shape):
    return b"".join(
        placement.chunks(dtype, shape, "it")
        if isinstance(placement, Assembled)
        else placement.chunks()
    )


@settings(max_examples=150, deadline=None)
@given(cuts(), st.sampled_from([1, 16, 1 << 20]), st.booleans())
def test_any_cut_of_a_tensor_gives_its_bytes(tmp_path_factory, cut, band, has_checksums):
    shape, regions = cut
    check_filled(regions, shape)
    whole = np.arange(prod(shape), dtype="<i4").reshape(shape)
    extents = stored(
        tmp_path_factory, [np.ascontiguousarray(whole[index(region)]) for region in regions]
    )
    if not has_checksums:
        extents = [extent.unchecked() for extent in extents]
    placement = assemble(map(Box, regions, extents), shape, DType.I32)
    before, assembled.BAND = assembled.BAND, band
    try:
        assert bytes_of(placement, DType.I32, shape) == whole.tobytes()
    finally:
        assembled.BAND = before


@settings(max_examples=150, deadline=None)
@given(cuts(), st.data())
def test_a_part_more_or_less_is_refused(cut, data):
    shape, regions = cut
    full = [region for region in regions if prod(region.shape)]
    if not full:
        return
    one = data.draw(st.sampled_from(full))
    with pytest.raises(BoxFault, match="a part of it is missing"):
        check_filled([region for region in regions if region is not one], shape)
    with pytest.raises(BoxFault, match=r"lie over each other|is one number"):
        check_filled([*regions, one], shape)


@pytest.mark.parametrize(
    ("regions", "reason"),
    [
        (
            [Region((0, 0), (2, 4)), Region((1, 0), (2, 4))],
            "lie over each other: .0:2, 0:4. and .1:3, 0:4.",
        ),
        (
            [Region((0, 0), (2, 4)), Region((3, 0), (2, 4))],
            r"a part \[3:5, 0:4\] outside of its shape",
        ),
        ([Region((0, 0), (2, 4)), Region((-1, 0), (2, 4))], "outside"),
        ([Region((0, 0), (2, 4)), Region((2, 0), (-2, 4))], "outside"),
        ([Region((0,), (4,))], "1 dimensions at 1 offsets"),
        ([Region((0, 0), (2, 4)), Region((2, 0), (1, 4))], "has 12 of its 16 elements"),
        ([Region((0, 0), (4, 3)), Region((0, 2), (4, 2))], "over each other"),
        ([], "has 0 of its 16 elements"),
    ],
)
def test_boxes_that_are_no_tensor_are_refused(regions, reason):
    with pytest.raises(BoxFault, match=reason):
        check_filled(regions, (4, 4))


def test_many_boxes_are_checked_quickly():
    rows = [Region((row, 0), (1, 4)) for row in range(100_000)]
    check_filled(rows, (100_000, 4))
    with pytest.raises(BoxFault, match="over each other"):
        check_filled([*rows, rows[-1]], (100_000, 4))


def test_rows_are_byte_ranges_that_can_be_copied(tmp_path_factory):
    whole = np.arange(24, dtype="<f4").reshape(6, 4)
    extents = [
        each.unchecked() for each in stored(tmp_path_factory, [whole[:2], whole[2:3], whole[3:]])
    ]
    regions = [
        Region((0, 0), (2, 4)),
        Region((2, 0), (1, 4)),
        Region((3, 0), (3, 4)),
        Region((6, 0), (0, 4)),
    ]
    boxes = [*map(Box, regions, [*extents, extents[0]])]
    assert assemble(reversed(boxes), (6, 4), DType.F32) == Joined(tuple(extents))
    assert assemble([Box(Region((0, 0), (2, 4)), extents[0])], (2, 4), DType.F32) == extents[0]


def test_ranges_that_continue_each_other_are_one(tmp_path_factory):
    (extent,) = stored(tmp_path_factory, [np.arange(10, dtype="u1")])
    halves = [Extent(extent.file, extent.offset, 4), Extent(extent.file, extent.offset + 4, 6)]
    assert join(halves) == extent.unchecked()
    assert join([halves[1], halves[0]]) == Joined((halves[1], halves[0]))


def test_a_wrong_checksum_of_a_part_is_noticed(tmp_path_factory):
    whole = np.arange(16, dtype="<i4").reshape(4, 4)
    left, right = stored(
        tmp_path_factory, [np.ascontiguousarray(whole[:, :2]), np.ascontiguousarray(whole[:, 2:])]
    )
    wrong = Extent(right.file, right.offset, right.length, 1)
    boxes = [Box(Region((0, 0), (4, 2)), left), Box(Region((0, 2), (4, 2)), wrong)]
    with pytest.raises(FormatError, match="checksum"):
        bytes_of(assemble(boxes, (4, 4), DType.I32), DType.I32, (4, 4))


def test_views_are_assembled_too(tmp_path_factory):
    whole = np.arange(16, dtype="<i4").reshape(4, 4)
    (extent,) = stored(tmp_path_factory, [np.ascontiguousarray(whole.T)])
    boxes = [Box(Region((0, at), (4, 2)), View(extent, 4 * at, (1, 4))) for at in (0, 2)]
    assert bytes_of(assemble(boxes, (4, 4), DType.I32), DType.I32, (4, 4)) == whole.tobytes()
