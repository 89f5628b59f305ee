"""What `show` says of what can't be read, of what stays outside, of files that are no whole model and of state dicts that are equally likely."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from running import ckpt

from ckpt_tool.formats import open_checkpoint
from ckpt_tool.report.layouts.tree import tree_text
from ckpt_tool.report.page.document import page_data
from ckpt_tool.report.page.show import show_page
from ckpt_tool.report.parts.json_text import to_json
from ckpt_tool.report.parts.style import Style
from ckpt_tool.report.show import show_json, show_text
from ckpt_tool.training.live import LiveState

W = torch.ones(2, 3)
V = torch.ones(4, 6)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A training checkpoint with everything."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        packed = {f"layers.{i}.weight": torch.quantize_per_tensor(W, 0.1, 0, torch.qint8) for i in range(3)}
    state = {"b": W, **packed, "adj": torch.eye(3).to_sparse()}
    optimizer = {"state": {0: {"exp_avg": W}}, "param_groups": []}
    torch.save({"epoch": 3, "state_dict": state, "ema": {"b": W.clone()}, "optimizer": optimizer, "cfg": {"a": 1}}, tmp_path / "run.pth")
    return tmp_path / "run.pth"


def text(path: Path | str, is_folded: bool = True) -> str:
    with open_checkpoint(path) as checkpoint:
        return show_text(checkpoint, Style(is_folded=is_folded))


def test_what_can_not_be_read_is_counted_by_kind_and_folded(run: Path) -> None:
    lines = text(run).splitlines()
    at = lines.index("3 quantised tensors that can't be read")
    assert lines[at + 1].split() == ["layers.{0..2}.weight", "3", "2×3", "quantised", "QInt8", "2×3"]
    at = lines.index("1 sparse tensor that can't be read")
    assert lines[at + 1].split() == ["adj", "3×3", "sparse", "(torch.sparse_coo)", "3×3"]
    end = "1 tensor, 6 parameters, 24 B, and 3 quantised tensors that can't be read, and 1 sparse tensor that can't be read, and 2 tensors (48 B) elsewhere in the file"
    assert lines[-1] == end


def test_nothing_is_folded_where_that_is_asked(run: Path) -> None:
    told = text(run, is_folded=False)
    assert all(f"layers.{i}.weight" in told for i in range(3))
    assert "optimizer.state.0.exp_avg" in told


def test_what_stays_outside_is_a_line_each(run: Path) -> None:
    lines = text(run).splitlines()
    at = lines.index("outside of the state dict")
    assert [line.split() for line in lines[at + 1 : at + 3]] == [
        ["ema", "averaged", "weights", "1", "tensor", "24", "B"], ["optimizer", "optimizer", "1", "tensor", "24", "B"],
    ]  # fmt: skip


def test_the_json_has_all_of_it(run: Path) -> None:
    with open_checkpoint(run) as checkpoint:
        report = json.loads(to_json(show_json(checkpoint)))
    assert report["unreadable"][0] == {"key": "layers.0.weight", "kind": "quantised", "shape": [2, 3], "text": "quantised QInt8 2×3"}
    assert [one["path"] for one in report["left_behind"]] == ["epoch", "ema", "optimizer", "cfg"]
    assert report["left_behind"][1] == {"path": "ema", "kind": "averaged weights", "tensors": 1, "bytes": 24}
    assert report["rivals"] == []
    assert report["layout"].startswith("quantised weights (3 of them)")
    assert report["tensors"] == len([entry for entry in report["entries"] if "elsewhere" not in entry]) == 1


def test_state_dicts_that_are_equally_likely_are_named_over_the_whole_file(tmp_path: Path) -> None:
    torch.save({"netG": {"state_dict": {"w": W}}, "netD": {"state_dict": {"w": W.clone()}}}, tmp_path / "gan.pth")
    sentence = "all of the file is shown: it holds 2 equally likely state dicts, #netG.state_dict, #netD.state_dict"
    assert text(tmp_path / "gan.pth").splitlines()[1] == sentence
    with open_checkpoint(tmp_path / "gan.pth") as checkpoint:
        assert show_json(checkpoint)["rivals"] == ["netG.state_dict", "netD.state_dict"]


def test_a_sentence_says_what_kind_of_file_it_is(tmp_path: Path) -> None:
    torch.save({"q.lora_A.weight": W, "q.lora_B.weight": W.clone()}, tmp_path / "a.pth")
    assert text(tmp_path / "a.pth").splitlines()[1].startswith("a LoRA adapter (2 of 2 tensors)")


def test_no_name_in_a_file_reaches_the_terminal_as_it_is(tmp_path: Path) -> None:
    evil = {"state_dict": {"\x1b[2J": torch.eye(3).to_sparse(), "w": W}, "\x1bopt": {"x": W, "param_groups": [], "state": {}}}
    torch.save(evil, tmp_path / "a.pth")
    assert "\x1b" not in text(tmp_path / "a.pth")


def test_totals_count_a_tied_weight_once_and_say_so(tmp_path: Path) -> None:
    tied = torch.ones(500, 8)
    torch.save({"emb.weight": tied, "mid.weight": torch.ones(8, 8), "lm.weight": tied}, tmp_path / "tied.pth")
    end = "3 tensors, 4,064 parameters, 16.3 kB (shared counted once)"
    path = tmp_path / "tied.pth"
    assert text(path).splitlines()[-1] == end
    with open_checkpoint(path) as checkpoint:
        tree = tree_text(checkpoint).splitlines()
        report = show_json(checkpoint)
        page = page_data(show_page(checkpoint, ""))
    assert (report["bytes"], report["distinct_bytes"]) == (32_256, 16_256)
    assert tree[3].split() == ["all", "3", "4,064", "16.3", "kB", "100.0%", "shared", "counted", "once"]
    assert tree[6].endswith("  shares emb.weight")
    assert tree[-1] == end
    assert page["sides"][0]["tied"] == [2]
    diff = ckpt("diff", "tied.pth", "tied.pth", cwd=tmp_path).out
    assert diff.splitlines()[0] == "--- tied.pth  3 tensors  16.3 kB  (shared counted once)"


def test_lines_of_several_tied_tensors_say_with_what(tmp_path: Path) -> None:
    state = {f"l.{i}.w": torch.ones(4, 4) for i in range(9)}
    torch.save({"state_dict": state, "best": state}, tmp_path / "run.pth")
    lines = text(f"{tmp_path / 'run.pth'}#.").splitlines()
    assert lines[4].split() == ["state_dict.l.{0..8}.w", "9", "F32", "4×4", "576", "B"]
    assert lines[5].split() == ["best.l.{0..8}.w", "9", "F32", "4×4", "576", "B", "=", "state_dict.**"]
    assert lines[-1] == "18 tensors, 144 parameters, 576 B (shared counted once)"
    one = torch.ones(10, 10)
    torch.save({"tied.a": one, "tied.b": one, "tied.T": one.t(), "w": torch.ones(2)}, tmp_path / "views.pth")
    lines = text(tmp_path / "views.pth").splitlines()
    assert [line.split()[-2:] for line in lines[4:6]] == [["=", "tied.a"], ["in", "tied.a"]]
    assert lines[-1] == "4 tensors, 102 parameters, 408 B (shared counted once)"


@pytest.mark.parametrize(("views", "count"), [
    ({"a": V, "t": V.t(), "tail": V[1:]}, V.numel()),  # the whole, and what lies in it
    ({"q": V[:2], "k": V[2:]}, V.numel()),  # parts beside each other
    ({"q": V[:2], "k": V[1:3]}, 3 * V.shape[1]),  # parts over each other
    ({"even": V.view(-1)[::2], "odd": V.view(-1)[1::2]}, V.numel()),
    ({"t": V.t(), "all": V, "also": V, "one": V[1, 1]}, V.numel()),
])  # fmt: skip
def test_totals_count_what_views_share_once(tmp_path: Path, views: dict[str, torch.Tensor], count: int) -> None:
    torch.save({**views, "alone": torch.ones(5)}, tmp_path / "views.pth")
    total = f"{len(views) + 1} tensors, {count + 5} parameters, {4 * count + 20} B"
    assert text(tmp_path / "views.pth").splitlines()[-1].removesuffix(" (shared counted once)") == total
    with open_checkpoint(tmp_path / "views.pth") as checkpoint:
        assert show_json(checkpoint)["distinct_bytes"] == 4 * count + 20
    assert LiveState("live", views).catalog.distinct_nbytes == 4 * count


def test_a_line_has_no_list_of_hundreds_of_numbers(tmp_path: Path) -> None:
    state = {f"layers.{i}.w": torch.zeros(1) for i in range(300)}
    torch.save(state, tmp_path / "a.pth")
    torch.save({key: value + (i % 3 == 0) for i, (key, value) in enumerate(state.items())}, tmp_path / "b.pth")
    lines = ckpt("diff", "a.pth", "b.pth", "--values", cwd=tmp_path).out.splitlines()
    assert lines[4].split()[:3] == ["~", "layers.{0,3,6,…,291,294,297}.w", "100"]
    assert max(map(len, lines)) < 120
