"""How far numbers are apart where float64 would round them, and which type is the other's cast: Python's integers and torch are the oracles."""

import json
from math import inf, isnan, nextafter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from running import ckpt
from safetensors.torch import save_file

from ckpt_tool.comparing.measure import Tolerance, Values, measure_across, measure_difference
from ckpt_tool.torch_bridge import DTYPES, to_bytes

BIG = 2**53
I64, U64, F64 = torch.int64, torch.uint64, torch.float64


def measured(a, b, tolerance=None):
    types = DTYPES[str(a.dtype)[6:]], DTYPES[str(b.dtype)[6:]]
    raw = bytes(to_bytes(a)), bytes(to_bytes(b))
    return measure_difference(*raw, types[0], tolerance) if types[0] is types[1] else measure_across(*raw, types, tolerance)


@pytest.mark.parametrize(("a", "b", "types", "apart"), [
    (BIG + 1, BIG, (I64, I64), 1), (BIG + 1, BIG, (I64, U64), 1), (BIG + 1, BIG, (I64, F64), 1), (BIG, BIG + 1, (F64, I64), 1),
    (-(2**63), 2**64 - 1, (I64, U64), 2**64), (-1, 2**64 - 1, (I64, U64), 2**64), (2**63 - 1, -(2**63), (I64, I64), 2**64), (-(2**63), 2**63, (I64, U64), 2**64),
    (2**64 - 1, 2**64 - 2, (U64, U64), 1), (-3, -4, (I64, I64), 1), (-3, 4, (I64, I64), 7), (3, 2.5, (I64, F64), 0.5), (0, 0, (I64, U64), 0),
])  # fmt: skip
def test_64_bit_integers_are_measured_exactly(a, b, types, apart):
    found = measured(torch.tensor([a], dtype=types[0]), torch.tensor([b], dtype=types[1]))
    assert (found.changed, found.max_abs) == (int(a != b), apart)
    for tolerance in (0.4, 0.75, 1.5, 6.5, 7.0):
        assert (measured(torch.tensor([a], dtype=types[0]), torch.tensor([b], dtype=types[1]), Tolerance(0, tolerance)).beyond == 0) is (apart <= tolerance)


@given(st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**64 - 1)), min_size=1, max_size=20), st.integers(0, 2**64))
@settings(deadline=None, max_examples=100)
def test_what_is_tolerated_of_integers_is_what_python_finds(pairs, atol):
    a, b = torch.tensor([x for x, _ in pairs], dtype=I64), torch.tensor([y for _, y in pairs], dtype=U64)
    bound = int(float(atol))
    assert measured(a, b, Tolerance(0, float(atol))).beyond == sum(x != y and min(abs(x - y), 2**64 - 1) > bound for x, y in pairs)


ODD = torch.tensor([1.0009765625, 2.0])


@pytest.mark.parametrize(("a", "b", "cast"), [
    (ODD.half(), torch.tensor([1.0, 2.0]).bfloat16(), "BF16"), (torch.tensor([1.0, 2.0]).half(), torch.tensor([1.0, 2.0]).bfloat16(), "BF16"),
    (torch.tensor([1e-8, 1.0]).bfloat16(), torch.tensor([0.0, 1.0]).half(), "F16"), (torch.tensor([BIG + 1]), torch.tensor([float(BIG)], dtype=F64), "F64"),
    (torch.tensor([2**24 + 1], dtype=torch.int32), torch.tensor([2.0**24]), "F32"), (ODD.half(), torch.tensor([1.0, 3.0]).bfloat16(), None),
])  # fmt: skip
def test_a_cast_is_named_by_the_type_that_was_cast_to_in_any_order(tmp_path, a, b, cast):
    save_file({"x": a}, tmp_path / "a.safetensors")
    save_file({"x": b}, tmp_path / "b.safetensors")
    for sides in (("a.safetensors", "b.safetensors"), ("b.safetensors", "a.safetensors")):
        (line,) = [line for line in ckpt("diff", *sides, "--values", cwd=tmp_path).out.splitlines() if line.startswith("  ~")]
        assert line.partition(", equal after a cast to ")[2] == (cast or "")
    if cast:
        narrow, wide = (a, b) if DTYPES[str(a.dtype)[6:]].value == cast else (b, a)
        assert torch.equal(wide.to(narrow.dtype), narrow)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=30), st.sampled_from([torch.float32, torch.float16, torch.bfloat16, F64]))
@settings(deadline=None, max_examples=60)
def test_integers_are_cast_as_torch_casts_them(numbers, narrow):
    """One rounding: by way of float64 there would be two."""
    tensor = torch.tensor(numbers, dtype=I64)
    assert measured(tensor, tensor.to(narrow)).casts[1]


def test_renames_with_values_keeps_the_tolerance(tmp_path):
    save_file({"w": torch.tensor([1.0, 2.0, 3.0])}, tmp_path / "a.safetensors")
    save_file({"w": torch.tensor([1.0, 2.0, 3.001])}, tmp_path / "b.safetensors")
    for options, status in (([], 1), (["--rtol", "1e-2"], 0), (["--atol", "1e-4"], 1)):
        assert ckpt("diff", "a.safetensors", "b.safetensors", "--values", "--renames", *options, cwd=tmp_path).status == status


def test_what_is_not_finite_takes_one_line_a_pattern(tmp_path):
    torch.save({f"l.{i}.w": torch.ones(4) for i in range(12)}, tmp_path / "a.pth")
    torch.save({f"l.{i}.w": torch.full((4,), float("nan")) if i != 3 else torch.tensor([float("inf"), 1, 1, 1]) for i in range(12)}, tmp_path / "b.pth")
    lines = ckpt("diff", "a.pth", "b.pth", "--values", cwd=tmp_path).out.splitlines()
    assert [line for line in lines if "NaN" in line or "Inf" in line] == [
        "  ~ l.{0..11}.w  12      NaN       -    93.8%  worst: l.0.w",
        "  l.{0..2,4..11}.w (11): 4 NaN in b.pth of 4 numbers each",
        "  l.3.w: 1 Inf in b.pth of 4 numbers",
    ]
    verbose = ckpt("diff", "a.pth", "b.pth", "--values", "-v", cwd=tmp_path).out
    assert "  l.0.w: 4 NaN in b.pth of 4 numbers\n" in verbose
    assert json.loads(ckpt("diff", "a.pth", "b.pth", "--values", "--json", cwd=tmp_path).out)["entries"][0]["nans"] == [0, 4]


def test_no_cosine_is_beyond_one_for_the_rounding_of_its_sums():
    assert Values(3, 1, 1.0, nextafter(9.0, 10.0), 9.0, 9.0).cosine == 1
    assert Values(3, 1, 1.0, -nextafter(9.0, 10.0), 9.0, 9.0).cosine == -1
    assert isnan(Values(3, 1, 1.0, inf, inf, inf).cosine), "numbers that are too large to be squared"
