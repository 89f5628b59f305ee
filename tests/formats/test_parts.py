"""Boxes of tensors read from files: the same as the box of the whole tensor, and not many more bytes."""

from itertools import pairwise
from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from ckpt_tool.formats import SourceFile, open_checkpoint
from ckpt_tool.formats.placements import parts
from ckpt_tool.formats.placements.assembled import Box, Joined, assemble
from ckpt_tool.formats.placements.byte_ranges import Extent
from ckpt_tool.regions import Region
from ckpt_tool.tensors import DType


def values(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))).to(dtype)


def read(checkpoint, key, region):
    raw = bytearray(prod(region.shape) * checkpoint.catalog[key].dtype.itemsize)
    checkpoint.read_part(key, region, memoryview(raw))
    return raw


def raw(tensor):
    return bytearray(tensor.contiguous().reshape(-1).view(torch.uint8).tolist())


@st.composite
def boxes(draw):
    shape = tuple(draw(st.lists(st.integers(1, 6), max_size=4)))
    starts = [draw(st.integers(0, size - 1)) for size in shape]
    return shape, Region(tuple(starts), tuple(draw(st.integers(1, size - start)) for start, size in zip(starts, shape, strict=True)))


@settings(max_examples=100, deadline=None)
@given(boxes(), st.sampled_from([torch.float32, torch.bfloat16, torch.int8]))
def test_a_box_of_a_tensor_in_a_file(tmp_path_factory, box, dtype):
    shape, region = box
    tensor = values(*shape, dtype=dtype)
    path = tmp_path_factory.getbasetemp() / "box.safetensors"
    save_file({"before": torch.ones(3), "w": tensor}, path)
    with open_checkpoint(path) as checkpoint:
        assert read(checkpoint, "w", region) == raw(tensor[region.slices])
        extent, into = checkpoint.extent("w"), bytearray(prod(region.shape) * tensor.itemsize)
        third = extent.length // 3
        two = Extent(extent.file, extent.offset, third), Extent(extent.file, extent.offset + third, extent.length - third)
        parts.read_part(Joined(two), region, checkpoint.catalog["w"].dtype, shape, "x", memoryview(into))
        assert into == raw(tensor[region.slices])


@pytest.mark.parametrize("limit", [1, 1 << 30])
def test_columns_by_themselves_and_in_bands(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(parts, "MIN_RUN", limit)
    tensor = values(300, 700)
    save_file({"w": tensor}, tmp_path / "a.safetensors")
    with open_checkpoint(tmp_path / "a.safetensors") as checkpoint:
        for region in (Region((0, 100), (300, 50)), Region((7, 0), (200, 699)), Region((299, 699), (1, 1))):
            assert read(checkpoint, "w", region) == raw(tensor[region.slices])


@settings(max_examples=60, deadline=None)
@given(boxes(), st.data())
def test_a_box_of_a_tensor_that_is_made_of_boxes(tmp_path_factory, box, data):
    shape, region = box
    tensor = values(*shape)
    cuts = [sorted({0, size, data.draw(st.integers(0, size))}) for size in shape]
    regions = [Region((), ())]
    for some in cuts:
        regions = [
            Region((*one.offsets, a), (*one.shape, b - a)) for one in regions for a, b in pairwise(some)
        ]
    path = tmp_path_factory.getbasetemp() / "boxes.bin"
    content = b"".join(bytes(raw(tensor[one.slices])) for one in regions)
    path.write_bytes(content)
    with SourceFile(path) as file:
        at, some = 0, []
        for one in regions:
            some.append(Box(one, Extent(file, at, prod(one.shape) * 4)))
            at += prod(one.shape) * 4
        placement = assemble(some, shape, DType.F32)
        into = bytearray(prod(region.shape) * 4)
        parts.read_part(placement, region, DType.F32, shape, "x", memoryview(into))
        assert into == raw(tensor[region.slices])


def test_a_view_is_cut_out(tmp_path):
    base = values(20, 30)
    torch.save({"t": base.t()}, tmp_path / "a.pth")
    with open_checkpoint(tmp_path / "a.pth") as checkpoint:
        assert not checkpoint.has_parts("t")
        region = Region((3, 4), (10, 5))
        assert read(checkpoint, "t", region) == raw(base.t()[region.slices])


def test_rows_read_their_bytes_and_no_others(tmp_path, monkeypatch):
    save_file({"w": values(1000, 100)}, tmp_path / "a.safetensors")
    count = 0
    own = SourceFile.read_into

    def counted(self, buffer, offset):
        nonlocal count
        count += len(buffer)
        own(self, buffer, offset)

    with open_checkpoint(tmp_path / "a.safetensors") as checkpoint:
        monkeypatch.setattr(SourceFile, "read_into", counted)
        read(checkpoint, "w", Region((250, 0), (250, 100)))
    assert count == 250 * 100 * 4
