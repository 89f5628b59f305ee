"""What notebooks show, by executing one; and that it is small and inert whatever a checkpoint holds."""

import re
import warnings
from html import unescape
from pathlib import Path

import pytest
import torch
from torch import nn

import ckpt_tool

CELLS = [
    """import torch, ckpt_tool
a = {f"layers.{i}.{name}.weight": torch.full((4, 4), i + 1.0) for i in range(3) for name in ("q", "k")}
b = {f"net.{key}": value for key, value in a.items()} | {"net.head.weight": torch.zeros(2, 4)}
torch.save(a | {"old.weight": torch.ones(3)}, "a.pth")
torch.save(b, "b.pth")""",
    'ckpt_tool.open("a.pth")',
    'ckpt_tool.diff("a.pth", {**a, "old.weight": torch.zeros(3), "layers.0.q.weight": torch.ones(2, 2)}, values=True)',
    'ckpt_tool.plan("a.pth", "b.pth", rules="** -> net.**", drop="old.*", keep="net.head.*")',
    'ckpt_tool.suggest("a.pth", "b.pth")',
    """net = torch.nn.ModuleDict({"layers": torch.nn.ModuleList(torch.nn.ModuleDict({n: torch.nn.Linear(4, 4, bias=False) for n in "qk"}) for _ in range(3))})
ckpt_tool.load_into(net, "a.pth", drop="old.*")""",
    'ckpt_tool.check("** -> net.**", "a.pth", "b.pth")',
    'ckpt_tool.health({"<b>.weight": torch.full((4, 4), float("nan"))})',
    "ckpt_tool.trace(torch.nn.Sequential(torch.nn.Linear(2, 2)), torch.nn.Sequential(torch.nn.Linear(2, 2)), torch.ones(1, 2))",
    """ckpt_tool.map("a.pth", None, "out.pth", rules="** -> net.**")
ckpt_tool.verify("out.pth", "a.pth", rules="** -> net.**")""",
    'ckpt_tool.scan("a.pth")',
]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """The HTML of each cell that has any, in order."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell, id=f"cell{i}") for i, cell in enumerate(CELLS)])
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        patch.setenv("PYTHONPATH", str(Path(ckpt_tool.__file__).parent.parent))
        folder = str(tmp_path_factory.mktemp("book"))
        for name in ("IPYTHONDIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
            patch.setenv(name, str(tmp_path_factory.mktemp("jupyter")))
        nbclient.NotebookClient(book, timeout=120, resources={"metadata": {"path": folder}}).execute()
    return [out["data"]["text/html"] for cell in book.cells for out in cell.outputs if "text/html" in out.get("data", {})]


def without_tags(html):
    return re.sub(r"<[^>]*>", "", html.replace("</li>", "\n").replace("</summary>", "\n").replace("</div>", "\n"))


def test_every_answer_shows_itself_in_a_notebook(outputs):
    shown, diff, plan, suggested, loaded, *texts = map(without_tags, outputs)
    for text, answer in zip(texts, ("2 problems", "1 finding", "they diverge", "is what the plan says", "no calls or imports"), strict=True):
        assert answer in text
    assert "&lt;b&gt;.weight" in texts[1]
    assert "7 tensors" in shown
    assert "\nlayers.2.k.weight F32 4×4\n" in shown
    assert "layers.0.q.weight F32 4×4 → F32 2×2" in diff
    assert "old.weight F32 3, max |Δ| 1.0e+00, cosine -, 100.0% changed" in diff
    assert "** → net.** 6 keys\n" in plan
    assert "net.layers.0.q.weight ← layers.0.q.weight\n" in plan
    assert "kept: 1 tensor\n" in plan
    assert "mapped by" in suggested
    assert "6 loaded, 0 kept fresh, 1 dropped" in loaded
    assert "layers.0.q.weight F32 4×4 ← layers.0.q.weight\n" in loaded


def test_what_unfolds_needs_no_program_and_asks_nobody(outputs):
    for html in outputs:
        assert "<details" in html or html.startswith("<pre>")
        assert not any(word in html for word in ("<script", "<img", "<link", "http", "onclick"))


def test_renames_have_the_pattern_of_both_sides():
    one = {f"bn1.{name}": torch.ones(3) for name in ("weight", "bias", "running_mean", "running_var")} | {"fc.weight": torch.ones(2, 3)}
    other = {key.replace("bn1", "layer0.1").replace("fc", "head"): value for key, value in one.items()}
    html = ckpt_tool.diff(one, other, renames=True)._repr_html_()
    assert "<code>bn1.* → layer0.1.*<" in html
    assert "→ head.weight" in html


def test_drafted_rules_stand_without_quotes_as_python_takes_them():
    one, other = ({f"{name}.{i}.weight": torch.ones(size) for i in range(3) for name, size in pairs} for pairs in ((("conv", 3), ("norm", 5)), (("kernel", 3), ("layer", 5))))
    found = ckpt_tool.suggest(one, other)
    rule = "{conv,norm}.{i}.** -> {kernel,layer}.{i}.**"
    assert [(each.line, each.text) for each in found.rules] == [(f'"{rule}"', rule)]
    assert f"<code>{rule}<".replace("->", "-&gt;") in found._repr_html_()
    assert ckpt_tool.plan(one, other, rules=[rule])


def many(count):
    return [f"model.layers.{i // 400}.mlp.experts.{i % 400 // 3}.w{i % 3}.weight{i}" for i in range(count)]


def test_many_keys_are_some_kilobytes(tmp_path):
    rows = "".join(f"{key}\tF32\t1\n" for key in many(15_000))
    (tmp_path / "a.txt").write_text(rows)
    (tmp_path / "b.txt").write_text(rows.replace("model.", "net."))
    with ckpt_tool.open(tmp_path / "a.txt") as checkpoint:
        assert len(checkpoint._repr_html_()) < 100_000
    paths = [str(tmp_path / name) for name in ("a.txt", "b.txt")]
    assert len(ckpt_tool.diff(*paths)._repr_html_()) < 100_000
    assert len(ckpt_tool.plan(*paths, rules="model.** -> net.**")._repr_html_()) < 100_000


HOSTILE = ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\x1b[2J", "a\u202eb", "m" * 1_000_000]


def test_names_are_text(tmp_path):
    state = {name: torch.ones(2) for name in HOSTILE}
    torch.save(state, tmp_path / "a.pth")
    with ckpt_tool.open(tmp_path / "a.pth") as checkpoint:
        html = checkpoint._repr_html_()
    assert "<script" not in html
    assert "<img" not in html
    assert "\x1b" not in html
    assert "\u202e" not in html
    assert len(html) < 10_000
    report = ckpt_tool.load_into(nn.Linear(2, 2), {"weight": torch.ones(2, 2), "bias": torch.ones(2), "<b>x": torch.ones(1)}, drop="<*")
    assert "<code>&lt;b&gt;x</code>" in report._repr_html_()


def test_keys_inside_a_plan_read_as_on_a_terminal():
    keys = ["*", "a*b", "{x}.y", "a\nb", "", "  lead", "two  blanks", "`x`"]
    plan = ckpt_tool.plan(dict.fromkeys(keys, torch.ones(2)) | {"a*c": torch.ones(3)}, dict.fromkeys(keys, torch.ones(2)), drop=[r"a\*c"])
    html = plan._repr_html_()
    shown = ["\\*", "a\\*b", "\\{x\\}.y", "a\\x0ab", "''", "\\x20 lead", "two  blanks", "\\`x\\`"]
    assert re.findall(r"<li>(.*)", unescape(without_tags(html.replace("<li>", "\n&lt;li&gt;")))) == [f"{each} ← {each}" for each in shown]
    printed = [re.split(r"   +", line.strip())[0] for line in str(plan).splitlines()[5:-4]]
    assert printed == shown
    # One key is a line of its own, with its form; and blanks in a name stay.
    assert "<code>a\\*c</code> <span" in html
    assert html.startswith('<div style="white-space: pre-wrap">')


def test_reports_that_are_text_show_it_in_a_notebook_from_one_place():
    from ckpt_tool.library import health, mapping, rules, scanning, tracing
    from ckpt_tool.library.notebook import PrintedInNotebooks

    for report in (health.HealthReport, rules.CheckReport, rules.VerifyReport, rules.MappingsReport, mapping.MapReport, scanning.ScanReport, tracing.TraceReport):
        assert issubclass(report, PrintedInNotebooks)
        assert "_repr_html_" not in vars(report)
