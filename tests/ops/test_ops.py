"""Ops: shapes without data, runs against torch, inverses that give back what went in."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ckpt_tool.ops import (
    OPS,
    OpError,
    TensorForm,
    infer_chain,
    invert_chain,
    ops_argument,
    parse_ops,
    run_chain,
)
from ckpt_tool.ops.casts import FLOATS, losses
from ckpt_tool.ops.fits import FITS
from ckpt_tool.tensors import TORCH_NAMES, DType
from ckpt_tool.torch_bridge import DTYPES, to_bytes

DTYPE_CHOICES = [
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.int64,
    torch.uint8,
    torch.bool,
    torch.complex64,
]


def form(tensor):
    return TensorForm(DTYPES[str(tensor.dtype).removeprefix("torch.")], tuple(tensor.shape))


def made(dtype, shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * 4).to(dtype)


def raw(tensor):
    return bytes(to_bytes(tensor))


def same(one, other):
    return one.dtype == other.dtype and one.shape == other.shape and raw(one) == raw(other)


def with_parts(ops, parts):
    return tuple(op.with_parts(parts) for op in ops)


X, Y = torch.arange(12.0).reshape(3, 4), torch.arange(12.0, 24.0).reshape(3, 4)
V, G = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(1)), torch.rand(4, 1, 1) + 0.5

RUNS = [
    ("transpose", [X], [X.t()]),
    ({"transpose": [0, 2]}, [V], [V.permute(2, 1, 0)]),
    ({"rearrange": "(h p two) d -> (h two p) d", "h": 1, "two": 2}, [Y.t()], [Y.t().reshape(2, 2, 3).transpose(0, 1).reshape(4, 3)]),
    ({"rearrange": "(h d) ... -> (d h) ...", "h": 2}, [torch.arange(6)], [torch.tensor([0, 3, 1, 4, 2, 5])]),
    ({"rearrange": "o i -> o i 1 1"}, [X], [X[:, :, None, None]]),
    ({"reshape": [2, -1]}, [X], [X.reshape(2, 6)]),
    ({"concat": 0}, [X, Y], [torch.cat([X, Y])]),
    ({"concat": -1}, [X, Y], [torch.cat([X, Y], -1)]),
    ({"split": {"dim": 1, "sizes": [1, 3]}}, [X], [X[:, :1], X[:, 1:]]),
    ({"stack": 1}, [X, Y], [torch.stack([X, Y], 1)]),
    ({"unstack": 0}, [X], list(X)),
    ({"slice": {"dim": 1, "start": 1, "stop": -1}}, [X], [X[:, 1:-1]]),
    ({"slice": {"dim": 0, "start": 0, "step": 2}}, [X], [X[::2]]),
    ({"pad": {"dim": 0, "before": 1, "after": 2, "value": 7}}, [X], [torch.cat([torch.full((1, 4), 7.0), X, torch.full((2, 4), 7.0)])]),
    ({"index": {"dim": 0, "order": [2, 0, 1]}}, [X], [X[[2, 0, 1]]]),
    ({"index": {"dim": 1, "order": "reverse"}}, [X], [X.flip(1)]),
    ({"index": {"dim": 0, "order": {"roll": 1}}}, [X], [X.roll(1, 0)]),
    ({"repeat": {"dim": 0, "times": 2}}, [X], [X.repeat(2, 1)]),
    ({"cast": "BF16"}, [X / 3], [(X / 3).bfloat16()]),
    ({"affine": {"scale": 2, "shift": -1}}, [X], [X * 2 - 1]),
    ({"unary": "exp"}, [X], [X.exp()]),
    ({"unary": {"function": "neg", "compute": "F64"}}, [X.half()], [-X.half()]),
    ("sum", [X, Y], [X + Y]),
    ({"mean": None}, [X, Y], [(X + Y) / 2]),
    ({"sum": {"dim": 1, "keep": True}}, [X], [X.sum(1, keepdim=True)]),
    ({"weight_norm": 0}, [G, V], [torch._weight_norm(V, G, 0)]),
    ("same", [X, X.clone()], [X]),
    ({"init": {"fill": 0.5, "shape": [2, 3], "dtype": "BF16"}}, [], [torch.full((2, 3), 0.5).bfloat16()]),
    ({"init": {"kind": "arange", "shape": [1, 5], "dtype": "I64"}}, [], [torch.arange(5)[None]]),
    (
        [{"concat": 0}, "transpose", {"split": {"dim": 1, "sizes": [4, 2]}}],
        [X, Y],
        [torch.cat([X, Y]).t()[:, :4], torch.cat([X, Y]).t()[:, 4:]],
    ),
]


@pytest.mark.parametrize(
    ("argument", "inputs", "expected"), RUNS, ids=lambda value: str(value)[:40] if isinstance(value, str | dict) else ""
)
def test_op_runs_as_torch_does_and_knew_its_result(argument, inputs, expected):
    ops = parse_ops(argument)
    assert parse_ops(ops_argument(ops)) == ops
    results = run_chain(ops, inputs)
    assert len(results) == len(expected)
    assert all(same(one, other) for one, other in zip(results, expected, strict=True))
    assert infer_chain(ops, [form(tensor) for tensor in inputs]) == tuple(form(tensor) for tensor in results)


def test_every_op_has_a_run_row():
    tried = {op.name for argument, _, _ in RUNS for op in parse_ops(argument)}
    assert tried == set(OPS) - {"copy", "each"}


def test_each_works_on_the_tensors_that_its_words_stand_for():
    (each,) = parse_ops({"each": {"q": "transpose", "v": [{"affine": {"scale": 2}}]}})
    labelled = each.with_labels((frozenset({"q"}), frozenset({"k"}), frozenset({"v"})), frozenset())
    results = labelled.run([X, X, X])
    assert [same(a, b) for a, b in zip(results, [X.t(), X, X * 2], strict=True)] == [True] * 3
    assert labelled.infer([form(X)] * 3) == tuple(form(result) for result in results)
    assert parse_ops(ops_argument([each])) == (each,)
    back = invert_chain([labelled], [form(X)] * 3)
    assert back.verdict == "numeric"
    assert all(same(one, X) for one in run_chain(back.ops, results))


def test_parts_make_groups_in_row_major_order():
    tensors = [torch.tensor([float(i)]) for i in range(8)]
    ops = (*with_parts(parse_ops({"concat": 0}), 2), *parse_ops({"stack": 0}))
    (result,) = run_chain(ops, tensors)
    assert result.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    back = (*parse_ops({"unstack": 0}), *with_parts(parse_ops({"split": 0}), 2))
    assert [tensor.item() for tensor in run_chain(back, [result])] == list(range(8))


sizes = st.integers(1, 4)
INVERTIBLE = [
    ("transpose", 2, 1), ({"rearrange": "(a b) c -> (b a) c", "a": 1}, 2, 1), ({"rearrange": "a b -> b a 1"}, 2, 1), ({"reshape": [-1]}, 3, 1),
    ({"concat": 0}, 2, 3), ({"concat": -1}, 3, 2), ({"stack": 0}, 2, 3), ({"stack": -1}, 1, 2), ({"unstack": 0}, 2, 1),
    ({"pad": {"dim": 0, "before": 1, "after": 2}}, 2, 1), ({"index": {"dim": 0, "order": "reverse"}}, 2, 1),
    ({"index": {"dim": 1, "order": {"roll": 2}}}, 2, 1), ({"repeat": {"dim": 0, "times": 3}}, 2, 1),
    ([{"stack": 0}, {"transpose": [0, 1]}, {"reshape": [-1]}], 2, 2),
]  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(INVERTIBLE), st.sampled_from(DTYPE_CHOICES), st.lists(sizes, min_size=3, max_size=3))
def test_inverse_after_op_gives_back_every_bit(case, dtype, lengths):
    argument, rank, count = case
    inputs = [made(dtype, lengths[:rank], seed) for seed in range(count)]
    ops = parse_ops(argument)
    forms = [form(tensor) for tensor in inputs]
    results = run_chain(ops, inputs)
    assert infer_chain(ops, forms) == tuple(form(tensor) for tensor in results)
    inverse = invert_chain(ops, forms)
    assert inverse.verdict in ("exact", "exact with a check")
    back = run_chain(inverse.ops, results)
    assert all(same(one, other) for one, other in zip(back, inputs, strict=True))


@settings(deadline=None)
@given(st.sampled_from(DTYPE_CHOICES), st.integers(1, 3), st.integers(1, 4), st.integers(2, 4))
def test_split_and_concat_undo_each_other(dtype, rows, columns, parts):
    tensor = made(dtype, (rows * parts, columns))
    ops = with_parts(parse_ops({"split": 0}), parts)
    pieces = run_chain(ops, [tensor])
    assert infer_chain(ops, [form(tensor)]) == tuple(form(piece) for piece in pieces)
    assert same(run_chain(invert_chain(ops).ops, pieces)[0], tensor)


def test_copies_are_checked_on_the_way_back():
    ops = with_parts(parse_ops("copy"), 2)
    inverse = invert_chain(ops)
    assert inverse.verdict == "exact with a check"
    assert same(run_chain(inverse.ops, run_chain(ops, [X]))[0], X)
    with pytest.raises(OpError, match="tensors that must be the same differ"):
        run_chain(inverse.ops, [X, Y])


VERDICTS = [
    (DType.F32, {"cast": "F64"}, "exact with a check"), (DType.F32, {"cast": "BF16"}, "numeric"), (DType.F32, {"cast": "F32"}, "exact"),
    (DType.BF16, {"cast": "F32"}, "exact with a check"), (DType.F8_E4M3FNUZ, {"cast": "BF16"}, "exact"), (DType.U8, {"cast": "I16"}, "exact"),
    (DType.F8_E4M3FNUZ, {"cast": "F8_E4M3"}, "numeric"), (DType.I8, {"cast": "F16"}, "exact"), (DType.I64, {"cast": "F64"}, "numeric"),
    (DType.F32, {"affine": {"scale": 2}}, "numeric"), (DType.F32, {"unary": "neg"}, "exact"), (DType.F32, {"unary": "exp"}, "numeric"),
    (DType.BF16, {"unary": "neg"}, "exact with a check"), (DType.F8_E5M2FNUZ, {"unary": "neg"}, "exact"), (DType.U8, {"unary": "neg"}, "numeric"),
    (DType.F8_E8M0, {"unary": "neg"}, "numeric"), (DType.F32, {"unary": {"function": "neg", "compute": "F16"}}, "numeric"),
    (DType.F32, {"unary": "abs"}, "lossy"), (DType.F32, {"slice": {"dim": 0, "start": 1}}, "lossy"), (DType.F32, {"sum": {"dim": 0}}, "lossy"),
    (DType.F32, {"index": {"dim": 0, "order": [0]}}, "lossy"),
]  # fmt: skip


@pytest.mark.parametrize(("dtype", "argument", "verdict"), VERDICTS, ids=str)
def test_verdict_of_an_inverse(dtype, argument, verdict):
    assert invert_chain(parse_ops(argument), [TensorForm(dtype, (3, 4))]).verdict == verdict


INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
SPECIAL = {
    torch.float32: [0, 1, 0x7FFFFF, 0x800000, 0x3F800001, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC00000, 0x7FC12345, 0x7FFFFFFF],
    torch.float64: [0, 1, 0xFFFFFFFFFFFFF, 0x7FEFFFFFFFFFFFFF, 0x7FF0000000000000, 0x7FF0000000000001, 0x7FF8000000000001, 0x3FF0000000000001],
    torch.int64: [0, 1, 2**53 + 1, 2**63 - 1], torch.int32: [0, 1, 2**24 + 1, 2**31 - 1], torch.int16: [],
}  # fmt: skip


def every_value(dtype):
    """All values of a type of one or two bytes, of others the special ones with either sign."""
    size = dtype.itemsize
    if dtype is torch.bool:
        return torch.tensor([False, True])
    if size <= 2:
        return torch.arange(1 << 8 * size).to(INTEGERS[size]).view(dtype)
    patterns = SPECIAL[dtype] + [pattern - (1 << 8 * size - 1) for pattern in SPECIAL[dtype]]
    return torch.tensor(patterns, dtype=INTEGERS[size]).view(dtype)


def patterns(tensor):
    return tensor.contiguous().view(INTEGERS[tensor.dtype.itemsize]).to(torch.int64)


def changed(before, after):
    """Which values differ as numbers, the sign of zero included; a NaN is no number before and after."""
    one, other = before.double(), after.double()
    is_same = torch.where(one.isnan(), other.isnan(), (one == other) & (one.signbit() == other.signbit()))
    return ~is_same


FLOAT_TYPES = [getattr(torch, name) for name in map(TORCH_NAMES.__getitem__, FLOATS) if hasattr(torch, name)]


@pytest.mark.parametrize("ours", FLOAT_TYPES, ids=str)
@pytest.mark.parametrize("theirs", FLOAT_TYPES, ids=str)
def test_casts_of_floats_lose_what_is_said_and_nothing_else(ours, theirs):
    """Every value of the small types, and the special ones of the large, through torch."""
    values = every_value(ours)
    cast = values.to(theirs)
    said = losses(*(DTYPES[str(dtype).removeprefix("torch.")] for dtype in (ours, theirs)))
    numbers = "" if said is None else said.partition(" keeps every number")[0]
    assert bool(changed(values, cast).any()) is (said is not None and numbers == said)
    if said is None and ours is not theirs:
        nans = patterns(cast)[values.isnan()].tolist()
        assert len(set(nans)) == len(nans)
    inverse = invert_chain(parse_ops({"cast": str(theirs).removeprefix("torch.")}), [form(values)])
    (back,) = run_chain(inverse.ops, [cast])
    if inverse.verdict == "exact":
        assert same(back, values)
    elif inverse.verdict == "exact with a check":
        assert not changed(values, back).any()


@pytest.mark.parametrize("ours", [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("theirs", [*FLOAT_TYPES, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64], ids=str)
def test_casts_of_integers_that_are_said_to_lose_nothing_lose_nothing(ours, theirs):
    values = every_value(ours) if ours is not torch.int8 else every_value(torch.uint8).view(torch.int8)
    if losses(*(DTYPES[str(dtype).removeprefix("torch.")] for dtype in (ours, theirs))) is None:
        assert same(values.to(theirs).to(ours), values)


@pytest.mark.filterwarnings("ignore:ComplexHalf", "ignore:Casting complex")
@pytest.mark.parametrize("ours", FLOAT_TYPES, ids=str)
@pytest.mark.parametrize("theirs", [torch.complex32, torch.complex64, torch.complex128], ids=str)
def test_casts_to_complex_numbers_that_are_called_exact_give_back_every_bit(ours, theirs):
    values = every_value(ours)
    inverse = invert_chain(parse_ops({"cast": str(theirs).removeprefix("torch.")}), [form(values)])
    (back,) = run_chain(inverse.ops, [values.to(theirs)])
    if inverse.verdict == "exact":
        assert same(back, values)
    elif inverse.verdict == "exact with a check":
        assert not changed(values, back).any()


def test_a_fit_in_the_place_of_an_op_is_named_with_its_place():
    for name in FITS:
        with pytest.raises(OpError, match=f"`{name}` is not an op but a fit, which goes under `fit:`, as in"):
            parse_ops({name: {}})


@pytest.mark.parametrize("dtype", FLOAT_TYPES, ids=str)
def test_negated_twice_is_what_it_was_as_far_as_is_said(dtype):
    values = every_value(dtype)
    ops = parse_ops({"unary": "neg"})
    inverse = invert_chain(ops, [form(values)])
    (back,) = run_chain(inverse.ops, run_chain(ops, [values]))
    assert inverse.verdict != "exact" or same(back, values)
    assert inverse.verdict == "numeric" or not changed(values, back).any()


def test_nothing_is_cast_to_types_that_torch_calculates_nothing_with():
    for ours, theirs in (("F32", "F4"), ("F4", "BF16"), ("F32", "F6_E2M3")):
        with pytest.raises(OpError, match=f"`cast` of {ours} to {theirs}: torch calculates nothing with F[46]"):
            infer_chain(parse_ops({"cast": theirs}), [TensorForm(DType(ours), (2, 2))])


LOSSES = [
    (DType.F32, DType.BF16, "F32 to BF16 keeps 8 of 24 significand bits"),
    (DType.F32, DType.F16, "F32 to F16 keeps 11 of 24 significand bits and overflows above 65504"),
    (DType.I64, DType.F32, "I64 to F32 is exact up to 2^24 only"),
    (DType.BF16, DType.F32, None),
    (DType.F16, DType.F32, "F16 to F32 keeps every number, but may give a NaN other bits"),
    (DType.BF16, DType.F16, "BF16 to F16 overflows above 65504 and loses precision below 2^-14"),
    (DType.F8_E4M3FNUZ, DType.F8_E4M3, "F8_E4M3FNUZ to F8_E4M3 loses precision below 2^-6"),
    (DType.F8_E4M3, DType.F8_E4M3FNUZ, "F8_E4M3 to F8_E4M3FNUZ overflows above 240 and has no negative zero"),
    (DType.F8_E5M2, DType.F8_E5M2FNUZ, "F8_E5M2 to F8_E5M2FNUZ has no infinity and has no negative zero"),
    (DType.F8_E5M2, DType.F8_E4M3, "F8_E5M2 to F8_E4M3 overflows above 448 and loses precision below 2^-6"),
    (DType.C128, DType.C64, "C128 to C64 keeps 24 of 53 significand bits and overflows above 3.40282e+38"),
    (DType.C64, DType.F32, "C64 to F32 drops the imaginary part"),
    (DType.F32, DType.C64, None),
    (DType.F16, DType.C32, "F16 to C32 keeps every number, but may give a NaN other bits"),
    (DType.F16, DType.BF16, "F16 to BF16 keeps 8 of 11 significand bits"),
    (DType.U8, DType.I64, None),
    (DType.I64, DType.I32, "I64 to I32 can't hold every value"),
]


@pytest.mark.parametrize(("ours", "theirs", "loss"), LOSSES)
def test_what_a_cast_loses_is_said(ours, theirs, loss):
    assert losses(ours, theirs) == loss


REFUSED = [
    ("foo", [], f"`foo` is not an op; there are {', '.join(OPS)}"),
    ("spilt", [], f"`spilt` is not an op; did you mean `split`? there are {', '.join(OPS)}"),
    ({"split": 0, "concat": 0}, [], "`split` and `concat` in one mapping; ops that follow each other are a list"),
    ({"split": {"dims": 0}}, [], "`split` has no `dims`; it has `dim`, `sizes`"),
    ({"concat": "x"}, [], "`concat`: `dim` is a whole number, not 'x'"),
    ({"rearrange": "a b -> b c"}, [], "`a` is on one side of `a b -> b c` only"),
    ({"rearrange": "(h 2) d -> h 2 d"}, [], "an axis of `(h 2) d -> h 2 d` is a number; name it, and give its length beside the pattern"),
    ({"rearrange": "a b -> b a", "c": 2}, [], "`c` is not an axis of `a b -> b a`"),
    ({"rearrange": "(a b) -> a b"}, [(6,)], "the lengths of `a` and `b` can't both be worked out; give one"),
    ({"rearrange": "(h d) -> h d", "h": 32}, [(100,)], "32 h do not divide 100 rows (100)"),
    ({"rearrange": "a b -> b a"}, [(2, 3, 4)], "`a b -> b a` is for 2 dimensions, the tensor is 2×3×4"),
    ({"concat": 0}, [(2, 3), (2, 4)], "`concat` along dimension 0 of 2×3 and 2×4"),
    ({"stack": 0}, [(2,), (3,)], "`stack` of 2 and 3: the shapes differ"),
    ({"split": {"dim": 0, "sizes": [1, 2]}}, [(4,)], "the sizes 1 + 2 make 3, not 4 (4)"),
    ({"split": 0}, [(4,)], "`split` does not know into how many parts"),
    ({"transpose": [0, 2]}, [(2, 3)], "`transpose` along dimension 2 of a tensor that has 2"),
    ({"reshape": [5]}, [(2, 3)], "2×3 has 6 elements, which 5 can't hold"),
    ({"index": {"dim": 0, "order": [3]}}, [(3,)], "`index` has place 3, and there are 3"),
    ({"cast": "F99"}, [], "`cast`: 'F99' is not a dtype; write BF16 or bfloat16, for example"),
    ({"unary": "sin"}, [], "`unary` is one of neg, exp, log, sqrt, square, reciprocal, abs, sigmoid, tanh, atanh, not 'sin'"),
    ({"weight_norm": 0}, [(4, 1), (4, 3, 2)], "`weight_norm` of g F32 4×1 and v F32 4×3×2: g would be F32 4×1×1"),
    ("init", [], "`init` does not know its shape: give `shape` and `dtype`, or a target"),
    ({"pad": {"dim": 0, "before": -1}}, [], "`pad` adds; `slice` takes away"),
]


@pytest.mark.parametrize(("argument", "shapes", "message"), REFUSED, ids=lambda value: str(value)[:30])
def test_op_that_does_not_fit_is_refused_with_the_numbers(argument, shapes, message):
    with pytest.raises(OpError) as caught:
        infer_chain(parse_ops(argument), [TensorForm(DType.F32, shape) for shape in shapes])
    assert str(caught.value) == message


def test_a_parameter_is_called_by_its_name():
    (op,) = parse_ops({"rearrange": "(h d) ... -> h d ...", "h": "heads"})
    assert op.parameters() == {"heads"}
    with pytest.raises(OpError, match="`rearrange`: the parameter `heads` has no number"):
        op.infer([TensorForm(DType.F32, (100,))])
    with pytest.raises(OpError, match=r"32 heads do not divide 100 rows \(100×2\)"):
        op.bind({"heads": 32}).infer([TensorForm(DType.F32, (100, 2))])


def test_planning_needs_no_torch():
    code = (
        "import sys; from ckpt_tool.ops import *; from ckpt_tool.ops import TensorForm; from ckpt_tool.tensors import DType;"
        "infer_chain(parse_ops([{'rearrange': '(a b) ... -> (b a) ...', 'a': 2}, 'transpose']), [TensorForm(DType.F32, (4, 3))]);"
        "print({'torch', 'numpy'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
