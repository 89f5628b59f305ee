"""What a box of a result needs: made from those boxes of the inputs alone, it is the box of the whole result, bit for bit."""

from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ckpt_tool.ops import parse_ops, run_chain
from ckpt_tool.ops.chain import leaves_of, needed_part, run_part
from ckpt_tool.ops.op import TensorForm
from ckpt_tool.regions import Region
from ckpt_tool.tensors import DType

ONE = [
    {"cast": "F64"}, {"affine": {"scale": 2.0, "shift": 1.0}}, {"unary": "neg"}, "transpose", {"transpose": [0, -1]},
    {"slice": {"dim": 0, "start": 1}}, {"slice": {"dim": -1, "start": 1, "stop": -1, "step": 2}}, {"slice": {"dim": 1, "step": 3}},
    {"pad": {"dim": 0, "before": 2, "after": 3, "value": 1}}, {"pad": {"dim": -1, "after": 4}},
    {"index": {"dim": 0, "order": "reverse"}}, {"index": {"dim": -1, "order": {"roll": 2}}}, {"index": {"dim": 1, "order": [3, 0, 2, 2]}},
    {"repeat": {"dim": 0, "times": 3}}, {"repeat": {"dim": -1, "times": 2}},
    {"rearrange": "(h two d) ... -> (two h d) ...", "two": 2, "d": 2}, {"rearrange": "(h d two) ... -> (h two d) ...", "two": 2, "h": 2},
    {"rearrange": "(a b) c (d e) -> (d b) (a c e)", "b": 2, "e": 4}, {"rearrange": "a ... c -> c ... a"}, {"rearrange": "a b c -> (a b c)"},
    {"rearrange": "a b (c d) -> (c a) (b d)", "d": 2}, {"reshape": [-1]}, {"reshape": [8, -1]}, {"reshape": [8, 2, 2, 12]}, {"reshape": [-1, 16]},
    {"sum": 0}, {"split": {"dim": 0, "sizes": [3, 5]}}, {"split": {"dim": -1, "sizes": [4, 4, 4]}}, {"unstack": 0}, {"unstack": -1}, {"copy": None},
]  # fmt: skip
MANY = [{"concat": 0}, {"concat": -1}, {"stack": 0}, {"stack": 1}, {"stack": -1}, "sum", "mean"]
SHAPE = (8, 4, 12)
FOUR = {"copy": 4, "unstack": None, "split": None}


def chain_of(links):
    ops = []
    for link in links:
        (op,) = parse_ops(link)
        ops.append(op.with_parts(2) if op.name == "copy" else op)
    return tuple(ops)


def check(ops, tensors, region_of):
    whole = run_chain(ops, tensors)
    forms = [TensorForm(DType.F32, tuple(tensor.shape)) for tensor in tensors]
    found = 0
    for output, result in enumerate(whole):
        if not result.numel():
            continue
        region = region_of(tuple(result.shape))
        part = needed_part(ops, forms, output, region)
        if part is None:
            continue
        found += 1
        for leaf in leaves_of(part):
            ends = [start + count for start, count in zip(leaf.region.offsets, leaf.region.shape, strict=True)]
            assert all(end <= size for end, size in zip(ends, tensors[leaf.input].shape, strict=True))
            assert min((*leaf.region.offsets, 0)) == 0
            assert prod(leaf.region.shape)
        made = run_part(part, lambda leaf: tensors[leaf.input][leaf.region.slices])
        assert torch.equal(made, result[region.slices]), (ops, region)
        assert made.dtype == result.dtype
    return found


@st.composite
def regions(draw, shape):
    starts = [draw(st.integers(0, size - 1)) for size in shape]
    return Region(tuple(starts), tuple(draw(st.integers(1, size - start)) for start, size in zip(starts, shape, strict=True)))


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(ONE), min_size=1, max_size=3), st.data())
def test_a_box_of_what_ops_make_of_one_tensor(links, data):
    ops = chain_of(links)
    tensor = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    try:
        run_chain(ops, [tensor])
    except (ValueError, IndexError, RuntimeError):
        return  # ops that don't fit each other
    check(ops, [tensor], lambda shape: data.draw(regions(shape)))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(ONE), max_size=1), st.sampled_from(MANY), st.lists(st.sampled_from(ONE), max_size=1), st.data())
def test_a_box_of_what_ops_make_of_several(before, joining, after, data):
    ops = chain_of([*before, joining, *after])
    tensors = [torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    try:
        run_chain(ops, tensors)
    except (ValueError, IndexError, RuntimeError):
        return
    check(ops, tensors, lambda shape: data.draw(regions(shape)))


@pytest.mark.parametrize("link", [link for link in ONE if link != {"sum": 0}], ids=str)
def test_every_op_that_moves_elements_knows_its_part(link):
    tensor = torch.randn(SHAPE, generator=torch.Generator().manual_seed(2))
    assert check(chain_of([link]), [tensor], Region.whole) >= 1


@pytest.mark.parametrize(
    ("link", "rows", "elements"),
    [
        ({"split": {"dim": 0, "sizes": [3, 5]}}, (1, 2), 2),
        ({"rearrange": "(h d) ... -> (d h) ...", "d": 1}, (2, 3), 3),
        ({"rearrange": "(h two d) ... -> (h d two) ...", "two": 2, "d": 2}, (4, 4), 4),
        ({"index": {"dim": 0, "order": "reverse"}}, (0, 3), 3),
        ({"reshape": [16, -1]}, (2, 4), 2),
    ],
    ids=str,
)
def test_rows_need_no_more_than_rows(link, rows, elements):
    ops = chain_of([link])
    (form,) = [TensorForm(DType.F32, SHAPE)]
    shape = tuple(run_chain(ops, [torch.zeros(SHAPE)])[0].shape)
    part = needed_part(ops, [form], 0, Region.whole(shape).along(0, *rows))
    assert sum(prod(leaf.region.shape) for leaf in leaves_of(part)) == elements * 48


def test_bands_are_the_region_one_after_the_other():
    whole = torch.arange(7 * 3 * 11).reshape(7, 3, 11)
    for most in (1, 4, 11, 20, 33, 70, 1000):
        bands = [whole[band.slices] for band in Region((1, 0, 2), (5, 3, 9)).bands(most)]
        assert torch.equal(torch.cat([band.reshape(-1) for band in bands]), whole[1:6, :, 2:].reshape(-1))
        assert max(band.numel() for band in bands) <= most
