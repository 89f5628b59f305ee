"""Values: equal bytes are equal, NaN equals NaN, and what differs is measured as torch would."""

import json
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from running import ckpt
from safetensors.torch import save_file

from ckpt_tool.comparing import compare_values, values
from ckpt_tool.formats import open_checkpoint
from ckpt_tool.torch_bridge import DTYPES, to_bytes


class Side:
    """One tensor under the key `x`, in pieces of a size of its own."""

    def __init__(self, tensor, piece=1 << 20):
        self.raw, self.piece = bytes(to_bytes(tensor)), piece

    def extent(self, key):
        """No byte range of a file."""

    def chunks(self, key, size=0):
        yield from (self.raw[i : i + self.piece] for i in range(0, len(self.raw), self.piece))


def compare(a, b, piece=1 << 20):
    return compare_values(Side(a, piece), Side(b, 64), "x", DTYPES[str(a.dtype).removeprefix("torch.")])


def test_equal_bytes_are_equal_nan_too():
    tensor = torch.tensor([1.0, math.nan, math.inf])
    assert compare(tensor, tensor.clone()) is None


EQUAL = [
    (torch.tensor([0x7FC00000, 0], dtype=torch.int32).view(torch.float32), torch.tensor([0x7FC00001, -(1 << 31)], dtype=torch.int32).view(torch.float32)),
    (torch.tensor([0.0, 1.0]), torch.tensor([-0.0, 1.0])),
    (torch.tensor([0, 1], dtype=torch.uint8).view(torch.bool), torch.tensor([0, 2], dtype=torch.uint8).view(torch.bool)),
]


@pytest.mark.parametrize(("a", "b"), EQUAL)
def test_what_is_equal_but_not_bit_for_bit_is_told_as_that(tmp_path, a, b):
    """NaN equals NaN of other bits, 0 equals -0, and any byte but 0 is true."""
    found = compare(a, b)
    assert (found.changed, found.beyond) == (0, 0)
    save_file({"x": a, "y": torch.ones(1)}, tmp_path / "a.safetensors")
    save_file({"x": b, "y": torch.ones(1)}, tmp_path / "b.safetensors")
    ran = ckpt("diff", "a.safetensors", "b.safetensors", "--values", cwd=tmp_path)
    assert (ran.status, "identical" in ran.out) == (0, False)
    assert ran.out.splitlines()[-1] == "2 same: equal, but not bit for bit: 1 tensor with 0 for -0 or NaNs of other bits (x)"
    report = json.loads(ckpt("diff", "a.safetensors", "b.safetensors", "--values", "--json", cwd=tmp_path).out)
    assert (report["identical"], report["differs"], report["equal"], report["counts"]["same"]) == (False, False, ["x"], 2)


def test_one_sided_nan_is_a_difference():
    found = compare(torch.tensor([1.0, math.nan]), torch.tensor([1.0, 2.0]))
    assert (found.changed, found.elements, math.isnan(found.max_abs)) == (1, 2, True)


def test_large_integers_are_compared_exactly():
    found = compare(torch.tensor([2**62]), torch.tensor([2**62 + 1]))
    assert found.changed == 1


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2, torch.int32, torch.uint8, torch.bool]),
    st.integers(1, 300),
    st.integers(0, 9),
)
def test_statistics_are_those_of_float64(dtype, count, seed):
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(count, generator=generator).to(dtype) for _ in range(2))
    found = compare(a, b, piece=48)
    x, y = a.double(), b.double()
    if torch.equal(x, y):
        assert found is None
        return
    assert found.max_abs == (x - y).abs().max().item()
    assert found.changed == int((x != y).sum())
    if x.any() and y.any():
        assert found.cosine == pytest.approx(torch.nn.functional.cosine_similarity(x, y, dim=0).item(), abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_what_is_not_finite_is_left_out_of_sums(dtype):
    a = torch.tensor([math.inf, 1.0, 2.0, math.nan, -math.inf], dtype=dtype)
    b = torch.tensor([math.inf, 3.0, -math.inf, math.nan, math.inf], dtype=dtype)
    found = compare(a, b)
    assert (found.elements, found.changed, found.dot, found.squares_a, found.squares_b) == (5, 3, 3.0, 1.0, 9.0)
    assert found.max_abs == math.inf


def test_the_norm_of_a_side_is_its_own_whatever_the_other_is():
    a, b = torch.arange(200_000.0), torch.full((200_000,), math.nan)
    b[100_000:] = 2.0
    found = compare(a, b)
    assert found.norms[0] == pytest.approx(a.double().norm().item())
    assert math.isnan(found.norms[1])
    assert compare(a, -a).norms == (compare(a, -a).squares_a ** 0.5,) * 2


def test_complex_numbers_count_as_two():
    found = compare(torch.tensor([1 + 2j, 0j]), torch.tensor([1 + 3j, 0j]))
    assert (found.elements, found.changed, found.max_abs, found.dot) == (4, 1, 1.0, 7.0)


def test_memory_does_not_grow_with_the_tensor(monkeypatch):
    largest = []
    real = values.measure_difference  # type: ignore[attr-defined]
    monkeypatch.setattr(values, "measure_difference", lambda ours, *more: largest.append(len(ours)) or real(ours, *more))
    compare(torch.zeros(1 << 20), torch.ones(1 << 20))
    assert max(largest) <= 1 << 20


def test_exit_status_and_counts(tmp_path):
    torch.save({"a": torch.ones(2), "b": torch.tensor([math.nan]), "c": torch.ones(3)}, tmp_path / "a.pth")
    torch.save({"a": torch.ones(2), "b": torch.tensor([math.nan]), "c": torch.zeros(3)}, tmp_path / "b.pth")
    assert ckpt("diff", "a.pth", "a.pth", "--values", cwd=tmp_path).status == 0
    assert ckpt("diff", "a.pth", "b.pth", cwd=tmp_path).status == 0
    ran = ckpt("diff", "a.pth", "b.pth", "--values", cwd=tmp_path)
    assert (ran.status, ran.out.splitlines()[-1]) == (1, "2 same, 1 differs")


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 200_000), st.sampled_from([torch.float32, torch.bfloat16, torch.float64]), st.sampled_from([".safetensors", ".pth"]))
def test_files_are_measured_as_tensors_are(tmp_path, size, dtype, suffix):
    a, b = torch.randn(size).to(dtype), torch.randn(size).to(dtype)
    for name, tensor in (("a", a), ("b", b)):
        state = {"x": tensor}
        save_file(state, tmp_path / f"{name}{suffix}") if suffix == ".safetensors" else torch.save(state, tmp_path / f"{name}{suffix}")
    with open_checkpoint(str(tmp_path / f"a{suffix}")) as one, open_checkpoint(str(tmp_path / f"b{suffix}")) as other:
        found = compare_values(one, other, "x", one.catalog["x"].dtype)
        assert compare_values(one, one, "x", one.catalog["x"].dtype) is None
    wanted = compare(a, b)
    if wanted is None:
        assert found is None
    else:
        assert (found.elements, found.changed, found.max_abs) == (wanted.elements, wanted.changed, wanted.max_abs)
        assert found.dot == pytest.approx(wanted.dot)
