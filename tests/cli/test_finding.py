"""Where weights, rules and parameters are found."""

import json

import pytest
import torch
from running import ckpt


@pytest.fixture
def folder(tmp_path):
    state = {"a.w": torch.ones(2), "b.w": torch.ones(3)}
    ema = {key: value * 2 for key, value in state.items()}
    torch.save({"epoch": 3, "model": state, "model_ema": ema}, tmp_path / "run.pth")
    torch.save({"x.w": torch.zeros(2), "y.w": torch.zeros(3)}, tmp_path / "target.pth")
    (tmp_path / "rules.yaml").write_text("rules: [a.* -> x.*, b.* -> y.*]\n")
    return tmp_path


def values(folder, name):
    return [tensor.tolist() for tensor in torch.load(folder / name, weights_only=True).values()]


def test_the_state_dict_that_is_taken_is_said_and_another_can_be_picked(folder):
    shown = ckpt("show", "run.pth", cwd=folder).out
    assert "state dict: #model; also here: #model_ema" in shown
    assert ckpt("map", "run.pth", "target.pth", "-r", "rules.yaml", "-o", "a.pth", cwd=folder).status == 0
    assert values(folder, "a.pth") == [[1, 1], [1, 1, 1]]
    assert ckpt("map", "run.pth#model_ema", "target.pth", "-r", "rules.yaml", "-o", "b.pth", cwd=folder).status == 0
    assert values(folder, "b.pth") == [[2, 2], [2, 2, 2]]
    ran = ckpt("show", "run.pth#nope", cwd=folder)
    assert (ran.status, "model_ema" in ran.err) == (2, True)


def test_unwrap_in_rules_picks_the_first_state_dict_that_is_there(folder):
    text = (folder / "rules.yaml").read_text() + "unwrap: [state_dict_ema, model_ema, model]\n"
    (folder / "rules.yaml").write_text(text)
    assert ckpt("map", "run.pth", "target.pth", "-r", "rules.yaml", "-o", "a.pth", cwd=folder).status == 0
    assert values(folder, "a.pth") == [[2, 2], [2, 2, 2]]


def test_what_is_outside_of_the_state_dict_is_said_to_stay_behind(folder):
    ran = ckpt("map", "run.pth", "target.pth", "-r", "rules.yaml", "-o", "a.pth", cwd=folder)
    assert "note: not copied: model_ema (averaged weights, 2 tensors, 20 B), epoch" in ran.out


def test_so_is_what_the_target_has_outside_of_it(folder):
    torch.save({**torch.load(folder / "target.pth"), "_extra_state": {"steps": 3}}, folder / "target.pth")
    ran = ckpt("map", "run.pth", "target.pth", "-r", "rules.yaml", "-o", "a.pth", cwd=folder)
    assert "note: not copied from the target: _extra_state" in ran.out


def test_a_parameter_comes_from_the_command_line_or_the_config_beside_the_source(tmp_path):
    torch.save({"a.0.w": torch.ones(2), "a.1.w": torch.zeros(2)}, tmp_path / "in.pth")
    (tmp_path / "rules.yaml").write_text("params: {n: {from: layers}}\nrules: ['a.{i}.w -> b.{n-1-i}.w']\n")
    missing = ckpt("plan", "in.pth", "-r", "rules.yaml", cwd=tmp_path)
    assert (missing.status, "`n` has no number" in missing.err) == (1, True)
    assert ckpt("plan", "in.pth", "-r", "rules.yaml", "--set", "n=2", cwd=tmp_path).status == 0
    (tmp_path / "config.json").write_text(json.dumps({"layers": 2}))
    assert ckpt("map", "in.pth", "-r", "rules.yaml", "-o", "out.pth", cwd=tmp_path).status == 0
    assert list(torch.load(tmp_path / "out.pth", weights_only=True)) == ["b.1.w", "b.0.w"]


def test_rules_on_the_command_line_and_in_files_are_one_set(folder):
    (folder / "rules.yaml").write_text("rules: [a.* -> x.*]\n")
    ran = ckpt("plan", "run.pth", "target.pth", "-r", "rules.yaml", "-e", "b.* -> y.*", "--json", cwd=folder)
    assert json.loads(ran.out)["counts"] == {"mapped": 2, "kept": 0, "dropped": 0}
    ran = ckpt("plan", "run.pth", "target.pth", "-e", "a.* -> x.*", "--drop", "b.*", "--keep", "y.*", "--json", cwd=folder)
    assert json.loads(ran.out)["counts"] == {"mapped": 1, "kept": 1, "dropped": 1}


def test_inline_rules_may_have_ops(folder):
    torch.save({"w": torch.arange(6.0).reshape(2, 3)}, folder / "w.pth")
    assert ckpt("map", "w.pth", "-e", "w -> {a,b,c}: {split: 1}", "-o", "o.pth", cwd=folder).status == 0
    assert values(folder, "o.pth") == [[[0], [3]], [[1], [4]], [[2], [5]]]


def test_a_group_that_is_not_whole_is_refused(folder):
    torch.save(
        {f"h.0.{n}.w": torch.ones(2, 2) for n in ("q", "k")} | {f"h.1.{n}.w": torch.ones(2, 2) for n in ("q", "k", "v")}, folder / "w.pth"
    )
    ran = ckpt("map", "w.pth", "-e", "h.{i}.{q,k,v}.w -> h.{i}.qkv.w: {concat: 0}", "-o", "o.pth", cwd=folder)
    assert (ran.status, "`h.0.v.w` is missing from its group" in ran.err, (folder / "o.pth").exists()) == (1, True, False)


def test_sharded_folders_and_indexes_are_read(folder):
    from safetensors.torch import save_file

    shards = folder / "sharded"
    shards.mkdir()
    save_file({"a.w": torch.ones(2)}, shards / "model-00001-of-00002.safetensors")
    save_file({"b.w": torch.ones(3)}, shards / "model-00002-of-00002.safetensors")
    index = {
        "metadata": {"total_size": 20},
        "weight_map": {"a.w": "model-00001-of-00002.safetensors", "b.w": "model-00002-of-00002.safetensors"},
    }
    (shards / "model.safetensors.index.json").write_text(json.dumps(index))
    assert ckpt("map", "sharded", "target.pth", "-r", "rules.yaml", "-o", "a.pth", cwd=folder).status == 0
    assert values(folder, "a.pth") == [[1, 1], [1, 1, 1]]
    assert ckpt("diff", "sharded", "run.pth", "--values", cwd=folder).status == 0


def test_version():
    from ckpt_tool import __version__

    assert ckpt("--version").out == f"ckpt {__version__}\n"


@pytest.mark.parametrize("words", [["--partial"], ["--expect", "1"]])
def test_the_last_line_says_that_not_every_key_was_named(tmp_path, words):
    torch.save({"a": torch.ones(2), "b": torch.ones(2)}, tmp_path / "a.pth")
    ran = ckpt("plan", "a.pth", "a.pth", "-e", "a -> a", *words, cwd=tmp_path)
    assert (ran.status, ran.out.splitlines()[-1]) == (
        0, "1 mapped, 1 kept, 1 dropped; not all that is kept or dropped was named"
    )  # fmt: skip
    ran = ckpt("plan", "a.pth", "a.pth", "-e", "** -> **", *(["--partial"] if words == ["--partial"] else ["--expect", "2"]), cwd=tmp_path)
    assert ran.out.splitlines()[-1] == "2 mapped, 0 kept, 0 dropped; every key of both sides is accounted for"


@pytest.mark.parametrize(
    ("rest", "last"),
    [
        ("{source: drop, target: keep}", "1 mapped, 1 kept, 1 dropped; not all that is kept or dropped was named"),
        ("{target: keep}\ndrop: [b]", "1 mapped, 1 kept, 1 dropped; not all that is kept or dropped was named"),
        ("{target: keep}\noptional: [b -> b]", "2 mapped, 0 kept, 0 dropped; every key of both sides is accounted for"),
    ],
)
def test_the_last_line_says_that_rest_named_what_nobody_else_did(tmp_path, rest, last):
    torch.save({"a": torch.ones(2), "b": torch.ones(2)}, tmp_path / "a.pth")
    (tmp_path / "r.yaml").write_text(f"rules: [a -> a]\nrest: {rest}\n")
    ran = ckpt("plan", "a.pth", "a.pth", "-r", "r.yaml", cwd=tmp_path)
    assert (ran.status, ran.out.splitlines()[-1]) == (0, last)
