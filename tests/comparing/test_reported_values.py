"""`diff --values` as a person relies on it: the worst of a group by name, casts, tolerances, and nothing uncompared called the same."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from running import ckpt
from safetensors.torch import save_file

import ckpt_tool
from ckpt_tool.comparing.numbers import as_numbers, rounded_to
from ckpt_tool.errors import InputError
from ckpt_tool.torch_bridge import DTYPES, to_bytes

NOISE = torch.Generator().manual_seed(0)


def random(*shape):
    return torch.randn(*shape, generator=NOISE)


@pytest.fixture
def noisy(tmp_path):
    """Eight tensors, seven of which are noise on the other side; the eighth is a thousand times as large and nearly the same."""
    a = {f"l.{i}.weight": random(64, 64) for i in range(8)}
    a["l.0.weight"] *= 1000
    b = {key: random(64, 64) for key in a} | {"l.0.weight": a["l.0.weight"] + 0.01}
    save_file(a, tmp_path / "a.safetensors")
    save_file(b, tmp_path / "b.safetensors")
    save_file({key: value.bfloat16() for key, value in a.items()}, tmp_path / "cast.safetensors")
    save_file({key: (random(64, 64) if "3" in key else value).bfloat16() for key, value in a.items()}, tmp_path / "destroyed.safetensors")
    return tmp_path


def diffed(folder, *arguments):
    return ckpt("diff", *arguments, "--values", cwd=folder)


def test_a_folded_line_tells_the_worst_of_its_group(noisy):
    ran = diffed(noisy, "a.safetensors", "b.safetensors")
    line, other = [line.split() for line in ran.out.splitlines() if line.startswith("  ~")]
    assert (line[:3], other[:2]) == (["~", "l.{1..7}.weight", "7"], ["~", "l.0.weight"])
    each = json.loads(diffed(noisy, "a.safetensors", "b.safetensors", "--json").out)["entries"]
    worst = min(each, key=lambda entry: entry["cosine"])
    assert (float(line[4]), line[-1]) == (round(worst["cosine"], 4), worst["a"]["key"])
    assert worst["cosine"] < 0.1


def test_layers_that_changed_ten_times_as_much_have_a_line_of_their_own(tmp_path):
    a = {f"encoder.{i}.{name}": random(8, 8) for i in range(9) for name in ("weight", "bias")}
    b = {key: value + (1e-1, 1e-3, 1e-2)[int(key[8]) // 3] * (2 if key.endswith("bias") else 1) for key, value in a.items()}
    save_file(a, tmp_path / "a.safetensors")
    save_file(b, tmp_path / "b.safetensors")
    ran = diffed(tmp_path, "a.safetensors", "b.safetensors")
    lines = [line.split()[1:4] for line in ran.out.splitlines() if line.startswith("  ~")]
    assert lines == [["encoder.{0..2}.*", "6", "2.0e-01"], ["encoder.{6..8}.*", "6", "2.0e-02"], ["encoder.{3..5}.*", "6", "2.0e-03"]]
    table = diffed(tmp_path, "a.safetensors", "b.safetensors", "--format", "csv").out.splitlines()
    assert table[0].endswith(",changed,worst")
    assert [row.split(",")[1] for row in table[1:]] == ["encoder.{0..2}.*", "encoder.{6..8}.*", "encoder.{3..5}.*"]
    worst = [row.rpartition(",")[2] for row in table[1:]]
    assert worst == [line.split("worst: ")[1] for line in ran.out.splitlines() if "worst: " in line]


def test_the_worst_comes_first(tmp_path):
    a = {"a.w": random(50), "b.w": random(3, 5), "c.w": random(40)}
    save_file(a, tmp_path / "a.safetensors")
    save_file({"a.w": a["a.w"] + 1e-3, "b.w": -a["b.w"], "c.w": a["c.w"] * 2 + random(40) / 2}, tmp_path / "b.safetensors")
    ran = ckpt("diff", "a.safetensors", "b.safetensors", "--values", "-v", cwd=tmp_path)
    assert [line.split()[1] for line in ran.out.splitlines() if line.startswith("  ~")] == ["b.w", "c.w", "a.w"]


def test_an_export_is_measured_and_told_to_be_a_cast(noisy):
    ran = diffed(noisy, "a.safetensors", "cast.safetensors")
    (line,) = [line for line in ran.out.splitlines() if line.startswith("  ~")]
    assert line.endswith("F32 → BF16, equal after a cast to BF16")
    assert ran.status == 1


def test_a_tensor_that_an_export_destroyed_is_told(noisy):
    ran = diffed(noisy, "a.safetensors", "destroyed.safetensors")
    lines = [line.split() for line in ran.out.splitlines() if line.startswith("  ~")]
    assert [line[1] for line in lines] == ["l.3.weight", "l.{0..2,4..7}.weight"]
    assert "equal" not in lines[0]
    assert abs(float(lines[0][3])) < 0.1


DTYPES_CAST = [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(width=32, allow_nan=True), min_size=1, max_size=40),
    st.sampled_from(DTYPES_CAST),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_numbers_are_rounded_as_torch_casts(numbers, narrow, wide):
    """The law behind `equal after a cast`: every number, subnormal, infinite or NaN, is rounded to what torch makes of it."""
    tensor = torch.tensor(numbers, dtype=wide)
    ours = rounded_to(as_numbers(bytes(to_bytes(tensor)), DTYPES[str(wide)[6:]]), DTYPES[str(narrow)[6:]])
    theirs = tensor.to(narrow).double()
    assert torch.equal(torch.nan_to_num(torch.from_numpy(ours), nan=123.0), torch.nan_to_num(theirs, nan=123.0))


PAIRS = [(torch.float32, torch.float16), (torch.bfloat16, torch.float16), (torch.float64, torch.float32), (torch.int32, torch.float32), (torch.float8_e5m2, torch.float32)]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_statistics_across_types_are_those_of_float64(tmp_path, one, other):
    a, b = (random(300) * 10).to(one), (random(300) * 10).to(other)
    for suffix, save in ((".pth", torch.save), (".safetensors", save_file)):
        save({"x": a, "n": torch.ones(1)}, tmp_path / f"a{suffix}")
        save({"x": b, "n": torch.ones(1)}, tmp_path / f"b{suffix}")
        (entry,) = json.loads(diffed(tmp_path, f"a{suffix}", f"b{suffix}", "--json").out)["entries"]
        x, y = a.double(), b.double()
        assert (entry["kind"], entry["elements"], entry["changed"]) == ("dtype", 300, int((x != y).sum()))
        assert entry["max_abs"] == (x - y).abs().max().item()
        assert entry["cosine"] == pytest.approx(torch.nn.functional.cosine_similarity(x, y, dim=0).item(), abs=1e-9)
        assert entry["equal_after_cast"] is False


def test_complex_and_real_numbers_are_not_compared(tmp_path):
    torch.save({"x": torch.ones(2)}, tmp_path / "a.pth")
    torch.save({"x": torch.ones(2, dtype=torch.complex64)}, tmp_path / "b.pth")
    ran = diffed(tmp_path, "a.pth", "b.pth")
    assert ran.status == 1
    assert "not compared" in ran.out


def test_what_is_not_finite_is_counted_and_named(tmp_path):
    a = {f"l.{i}.w": random(10) for i in range(4)}
    b = {key: value + 1e-3 for key, value in a.items()}
    b["l.2.w"][3] = math.nan
    b["l.2.w"][4] = math.inf
    torch.save(a, tmp_path / "a.pth")
    torch.save(b, tmp_path / "b.pth")
    ran = diffed(tmp_path, "a.pth", "b.pth")
    (line,) = [line for line in ran.out.splitlines() if line.startswith("  ~")]
    assert line.split()[3] == "NaN"
    assert "  l.2.w: 1 NaN and 1 Inf in b.pth of 10 numbers" in ran.out.splitlines()


@pytest.mark.parametrize(("options", "status"), [([], 1), (["--atol", "1e-3"], 0), (["--atol", "1e-5"], 1), (["--rtol", "0.01"], 0), (["--rtol", "1e-5"], 1)])
def test_a_tolerance_decides_the_exit_status(tmp_path, options, status):
    torch.save({"x": torch.tensor([1.0, 2.0]), "y": torch.ones(3)}, tmp_path / "a.pth")
    torch.save({"x": torch.tensor([1.0005, 2.0]), "y": torch.ones(3)}, tmp_path / "b.pth")
    ran = diffed(tmp_path, "a.pth", "b.pth", *options)
    assert (ran.status, ran.out.splitlines()[-1]) == (status, "1 same, 1 within the tolerance" if status == 0 else "1 same, 1 differs")


@given(st.lists(st.tuples(st.floats(width=32), st.floats(width=32)), min_size=1, max_size=30), st.floats(0, 1), st.floats(0, 1))
@settings(deadline=None, max_examples=60)
def test_what_is_tolerated_is_what_torch_calls_close(pairs, rtol, atol):
    from ckpt_tool.comparing.measure import Tolerance, measure_difference

    a, b = (torch.tensor(side, dtype=torch.float64) for side in zip(*pairs, strict=True))
    found = measure_difference(bytes(to_bytes(a)), bytes(to_bytes(b)), DTYPES["float64"], Tolerance(rtol, atol))
    assert (found.beyond == 0) == torch.isclose(a, b, rtol, atol, equal_nan=True).all().item()


def test_patterns_choose_what_is_compared(noisy):
    for options, keys in ((["--include", "l.{0..1}.*"], 2), (["--exclude", "l.0.weight"], 7)):
        report = json.loads(diffed(noisy, "a.safetensors", "b.safetensors", *options, "--json").out)
        assert (report["a"]["tensors"], sum(report["counts"].values())) == (keys, keys)
    ran = diffed(noisy, "a.safetensors", "b.safetensors", "--exclude", "l.{i}.weight", "--include", "**")
    assert (ran.status, ran.err) == (2, "error: --exclude: leaves no key that could be compared; exclude less\n")
    ran = diffed(noisy, "a.safetensors", "a.safetensors", "--exclude", "l.0.weight")
    assert ran.out.startswith("--- a.safetensors  7 of 8 tensors")
    assert ran.out.endswith("7 same: what was compared is the same, bit for bit\n")
    ran = diffed(noisy, "a.safetensors", "b.safetensors", "--include", "l.0.wieght")
    assert (ran.status, ran.err) == (2, "error: --include: `l.0.wieght` matches no key of either side; nearest key: l.0.weight\n")
    ran = diffed(noisy, "a.safetensors", "b.safetensors", "--include", "l.*")
    assert ran.err == "error: --include: `l.*` matches no key of either side; `l.**` matches 8 keys: `*` stands for one part of a name\n"
    with pytest.raises(InputError, match=r"`exclude=`: `\{`"):
        ckpt_tool.diff(noisy / "a.safetensors", noisy / "b.safetensors", exclude="{")


def test_what_is_left_out_takes_its_partner_along(tmp_path):
    a = {f"l{i}.w": torch.rand(3, i + 2) for i in range(4)}
    torch.save(a, tmp_path / "a.pth")
    torch.save({f"net.{key}": value for key, value in a.items()}, tmp_path / "b.pth")
    for pattern in ("l0.*", "net.l0.*"):
        ran = ckpt("diff", "a.pth", "b.pth", "--renames", "--values", "--exclude", pattern, cwd=tmp_path)
        assert ran.out.splitlines()[-1] == "0 same, 3 renamed"


def test_the_way_on_from_values_that_moved_goes_by_values(tmp_path):
    a = {f"l.{i}.w": torch.rand(3, 3) for i in range(4)}
    torch.save(a, tmp_path / "a.pth")
    torch.save({**a, "l.1.w": a["l.2.w"], "l.2.w": a["l.1.w"]}, tmp_path / "b.pth")
    ran = ckpt("diff", "a.pth", "b.pth", "--values", "--renames", cwd=tmp_path)
    assert ran.out.splitlines()[-1] == "2 same, 2 renamed"
    assert ran.err == "next: ckpt suggest a.pth b.pth --values\n"


def test_what_differs_beside_the_state_dict_is_in_every_form(tmp_path):
    weights = {"x": torch.rand(3), "y": torch.rand(2)}
    torch.save({"model": weights, "ema": weights}, tmp_path / "a.pth")
    torch.save({"model": weights, "ema": {key: value + 1 for key, value in weights.items()}}, tmp_path / "b.pth")
    sides = ("diff", "a.pth", "b.pth", "--values")
    assert [line.split(",")[:3] for line in ckpt(*sides, "--format", "csv", cwd=tmp_path).out.splitlines()[1:]] == [["values outside the state dict", "ema.*", "ema.*"]]
    assert "outside the state dict\n" in ckpt(*sides, "--side-by-side", cwd=tmp_path).out
    assert "ema" in ckpt_tool.diff(tmp_path / "a.pth", tmp_path / "b.pth", values=True)._repr_html_()
    ckpt(*sides, "--html", "d.html", cwd=tmp_path)
    assert "outside the state dicts" in (tmp_path / "d.html").read_text()
    assert "ema.*" in (tmp_path / "d.html").read_text()


@pytest.mark.parametrize(("options", "message"), [(["--rtol", "1"], "add `--values`"), (["--values", "--atol", "-1"], "-1 is not a tolerance"), (["--values", "--rtol", "nan"], "nan is not a tolerance")])
def test_tolerances_that_mean_nothing_are_refused(noisy, options, message):
    ran = ckpt("diff", "a.safetensors", "b.safetensors", *options, cwd=noisy)
    assert ran.status == 2
    assert message in ran.err


def test_a_difference_that_is_not_finite_is_not_shown_as_none(tmp_path):
    torch.manual_seed(0)
    a = {key: torch.randn(100) for key in ("inf", "nan", "both", "large")}
    b = {key: tensor.clone() for key, tensor in a.items()}
    a["both"][7] = b["both"][7] = float("inf")
    b["both"][8] += 1
    b["inf"][3], b["nan"][3], b["large"][3] = float("-inf"), float("nan"), 1e30
    torch.save(a, tmp_path / "a.pth")
    torch.save(b, tmp_path / "b.pth")
    ran = ckpt("diff", "a.pth", "b.pth", "--values", cwd=tmp_path)
    lines = {line.split()[1]: line.split()[2:] for line in ran.out.splitlines() if line.startswith("  ~")}
    for key, tensor in a.items():
        apart = (tensor - b[key])[tensor != b[key]].abs().max().item()
        assert lines[key][0] == {"inf": "Inf", "nan": "NaN"}.get(str(apart), f"{apart:.1e}")
        assert (lines[key][1] == "-") is (key in ("inf", "nan"))
