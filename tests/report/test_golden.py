"""Whole reports, as a person sees them; `pytest --update-golden` rewrites them."""

import json

import pytest
import torch
from literals import catalog, rules

from ckpt_tool.comparing import Diff, Entry, Values, diff_catalogs
from ckpt_tool.errors import Location, Problem, RuleError
from ckpt_tool.formats import open_checkpoint
from ckpt_tool.mapping import compile_plan, plan_by_name
from ckpt_tool.mapping.accounting.account import A_PART
from ckpt_tool.report.diff import diff_text
from ckpt_tool.report.layouts.diff_json import diff_json
from ckpt_tool.report.parts.json_text import to_json
from ckpt_tool.report.parts.problems import concise_text, problems_text
from ckpt_tool.report.parts.style import Style, safe, size_text
from ckpt_tool.report.parts.table import width_of
from ckpt_tool.report.plan import PlanNames, plan_json, plan_names, plan_text
from ckpt_tool.report.show import show_json, show_text


def blocks(*kinds, stages=3):
    return [f"layer4.{b}.{kind}{n}.weight 8x4" for b in range(stages) for kind in kinds for n in (1, 2, 3)]


A = catalog(*blocks("conv", "bn"), "fc.weight 1000x4", "fc.bias 1000", "step - I64", "old.x 3")
B = catalog(*blocks("conv", "bn"), "fc.weight 10x4", "fc.bias 10", "step - I32", "ema_step - I64", "head.a.w 2", "head.b.w 2x2")


def test_diff(golden):
    golden("diff.txt", diff_text(diff_catalogs(A, B), ("a.pth", "b.safetensors"), hints=["all 3 keys …"]))


def test_diff_of_equal_sides(golden):
    golden("diff_same.txt", diff_text(diff_catalogs(A, A), ("a.pth", "b.pth")))


def test_diff_with_values(golden):
    def compare(keys):
        return [Values(32, 16, 0.5, 30.0, 32.0, 32.0) if "conv" in key else None for key in keys]

    golden("diff_values.txt", diff_text(diff_catalogs(A, A, compare), ("a.pth", "b.pth")))


def test_diff_verbose(golden):
    golden("diff_verbose.txt", diff_text(diff_catalogs(A, B), ("a.pth", "b.pth"), Style(is_folded=False)))


def test_diff_json_keeps_the_contract():
    report = json.loads(to_json(diff_json(diff_catalogs(A, B), ("a", "b"))))
    assert list(report) == ["schema", "a", "b", "identical", "counts", "entries", "differs", "equal", "uncompared"]
    assert report["a"] == {"path": "a", "tensors": 22, "bytes": A.nbytes}
    assert list(report["counts"]) == ["same", "value", "dtype", "shape", "only_a", "only_b", "renamed"]
    assert {entry["kind"] for entry in report["entries"]} == {"dtype", "shape", "only_a", "only_b"}
    assert report["entries"][0] == {
        "kind": "shape",
        "a": {"key": "fc.weight", "dtype": "F32", "shape": [1000, 4]},
        "b": {"key": "fc.weight", "dtype": "F32", "shape": [10, 4]},
    }
    assert len(json.loads(to_json(diff_json(diff_catalogs(A, B), ("a", "b"), verbose=True)))["entries"]) == len(A) + 3


def test_nan_is_null_in_json():
    info = A["fc.bias"]
    entry = Entry("value", info, info, Values(1, 1, float("nan"), 0.0, 0.0, 0.0))
    assert json.loads(to_json(diff_json(Diff(A, A, (entry,), True), ("a", "b"))))["entries"][0]["max_abs"] is None


RULES = """\
rules:
  - layer4.{b}.conv{n}.* -> stage.{b}.{2*n-2}.*
  - layer4.{b}.bn{n}.* -> stage.{b}.{2*n-1}.*
drop: [fc.*, step, old.x]
keep: ["head.**"]
"""
TARGET = catalog(*(f"stage.{b}.{n}.weight 8x4" for b in range(3) for n in range(6)), "head.w 2", "head.b.x 3")


def test_plan_by_rules(golden, tmp_path):
    plan = compile_plan(rules(tmp_path, RULES), A, TARGET)
    names = PlanNames("a.pth", "b.pth", ("rules.yaml",))
    golden("plan_rules.txt", plan_text(plan, names))
    report = json.loads(to_json(plan_json(plan, names, A, TARGET)))
    assert list(report)[:9] == ["schema", "source", "target", "steps", "dropped", "kept", "counts", "problems", "notes"]
    step = {"inputs": ["layer4.0.conv1.weight"], "outputs": ["stage.0.0.weight"], "ops": []}
    assert report["steps"][0] == step | {"origin": {"by": "rule", "file": f"{tmp_path}/rules.yaml", "line": 2}}


def test_plan_by_name(golden):
    golden("plan_name.txt", plan_text(plan_by_name(A, B, "source", A_PART), plan_names("a.pth", "b.pth", None)))


def test_problems(golden, tmp_path):
    broken = RULES.replace("2*n-2", "2*n-3").replace("- layer4.{b}.bn", "- layer4.{b}.bm").replace("[fc.*", "[fd.*")
    try:
        compile_plan(rules(tmp_path, broken), A, TARGET)
    except RuleError as error:
        golden("problems.txt", problems_text(error.problems).replace(str(tmp_path), "."))
        golden("problems_concise.txt", "\n".join(map(concise_text, error.problems)).replace(str(tmp_path), "."))


def test_show(golden, tmp_path):
    shared = torch.zeros(4, 2)
    state = {"emb.w": shared, "head.w": shared, "n": torch.tensor(1), **{f"h.{i}.w": torch.zeros(3, 3) for i in range(4)}}
    path = tmp_path / "run.pth"
    torch.save(
        {"epoch": 3, "model": state, "ema": dict(state), "optimizer": {"state": {0: {"exp_avg": torch.zeros(4, 2)}}, "param_groups": []}},
        path,
    )
    with open_checkpoint(str(path)) as checkpoint:
        golden("show.txt", show_text(checkpoint).replace(str(tmp_path), "."))
        report = json.loads(to_json(show_json(checkpoint)))
    assert list(report)[:8] == ["schema", "path", "format", "tensors", "bytes", "entries", "metadata", "extras"]
    assert report["entries"][1] == {"key": "head.w", "dtype": "F32", "shape": [4, 2], "shares": "emb.w"}
    assert (report["tensors"], report["state_dict"]) == (7, "model")
    assert [entry["key"] for entry in report["entries"] if entry.get("elsewhere")][-1] == "optimizer.state.0.exp_avg"


def test_colour_is_only_paint():
    diff = diff_catalogs(A, B)
    painted = diff_text(diff, ("a", "b"), Style(is_coloured=True))
    assert "\x1b[" in painted
    import re

    assert re.sub(r"\x1b\[\d+m", "", painted) == diff_text(diff, ("a", "b"))


@pytest.mark.parametrize(("column", "length", "marked"), [(1, 3, "abc"), (500, 5, "xxxxx"), (99_998, 3, "end"), (4, 99_000, "x" * 396)])
def test_of_a_very_long_line_the_place_is_shown(column, length, marked):
    line = "abc" + "x" * 99_994 + "end"
    *_, shown, carets = problems_text([Problem("bad", "it is", Location("a.yaml", 1, column, length, line))]).split("\n")
    assert len(shown) < 420
    begin, end = carets.index("^"), carets.rindex("^") + 1
    assert shown[begin:end] == marked


@pytest.mark.parametrize("width", [40, 80, 100])
@pytest.mark.parametrize(("column", "length"), [(1, 3), (60, 5), (148, 3), (20, 125)])
def test_a_terminal_gets_what_it_has_room_for_of_a_rule(width, column, length):
    line = "".join(f"{i:03}." for i in range(38))[:150]
    *_, shown, carets = problems_text([Problem("bad", "it is", Location("a.yaml", 12, column, length, line))], Style(width=width)).split("\n")
    assert max(len(shown), len(carets)) <= width
    marked = shown[carets.index("^") : carets.rindex("^") + 1]
    assert marked
    assert line[column - 1 :].startswith(marked)
    assert len(marked) == length or shown[len(carets.rstrip()) :] == "…"


@pytest.mark.parametrize(("encoding", "width"), [("utf-8", None), ("utf-8", 200), ("utf-8", 60), ("ascii", None), ("ascii", 80), ("ascii", 40)])
@pytest.mark.parametrize("word", ["**", "層{j}", "\N{PARTY POPPER}", "e\u0301", "end"])
def test_carets_stand_below_what_they_mark_as_the_terminal_writes_it(encoding, width, word):
    line = f"  - \"{'層.' * 17}{{i}}.** -> 層{{j}}.ｗｅｉｇｈｔ.\N{PARTY POPPER}.e\u0301 end"
    style = Style(width=width, encoding=encoding)
    *_, shown, carets = problems_text([Problem("bad", "it is", Location("a.yaml", 2, line.index(word) + 1, len(word), line))], style).split("\n")
    written = style.text(word)
    assert width_of(shown[: shown.index(written)]) == carets.index("^")
    assert carets.count("^") == width_of(written)
    assert width is None or max(width_of(shown), len(carets)) <= width


def test_sizes_and_safe_text():
    assert [size_text(n) for n in (0, 999, 1000, 102_400_000, 10**12)] == ["0 B", "999 B", "1.0 kB", "102.4 MB", "1.0 TB"]
    assert safe("a\x1b[0m\n\u202eb") == "a\\x1b[0m\\x0a\\u202eb"
