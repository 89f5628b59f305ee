"""Folders that training libraries write: weights mapped, optimizers following, every other file copied; all of it at once."""

import json
import os
import shutil
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import ckpt_tool
from ckpt_tool.errors import InputError
from tests.running import ckpt

RULES = ("-e", "0.* -> stem.*", "-e", "2.* -> head.*")


@pytest.fixture
def run(tmp_path):
    """A folder as accelerate writes one, its weights in a torch file, which keeps the order of the parameters."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    folder = tmp_path / "run"
    folder.mkdir()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    torch.save(optimizer.state_dict(), folder / "optimizer.bin")
    torch.save({"last_epoch": 3, "hooks": None}, folder / "scheduler.bin")
    torch.save({"cpu": torch.get_rng_state(), "step": 7}, folder / "random_states_0.pkl")
    (folder / "config.json").write_text("{}")
    (folder / "empty.txt").write_bytes(b"")
    return folder, model.state_dict(), optimizer.state_dict()


def safe(folder):
    """The same folder with its weights in a safetensors file."""
    save_file(torch.load(folder / "pytorch_model.bin"), folder / "model.safetensors", {"format": "pt"})
    os.unlink(folder / "pytorch_model.bin")


def test_a_folder_is_copied_but_for_what_changes(run, tmp_path):
    folder, _, state = run
    shapes = {"stem.a.weight": (2, 3), "stem.b.weight": (2, 3), "stem.bias": (4,), "head.weight": (2, 4), "head.bias": (2,)}
    torch.save({key: torch.zeros(shape) for key, shape in shapes.items()}, tmp_path / "init.pth")
    ran = ckpt("map", "run", "init.pth", "-e", "0.weight -> stem.{a,b}.weight: split", "-e", "0.bias -> stem.bias", *RULES[2:], "-o", "new", cwd=tmp_path)
    assert ran.status == 0, ran.err
    assert "`optimizer.bin`: 5 states of the optimizer moved" in ran.out
    assert "copied unchanged: config.json, empty.txt, random_states_0.pkl, scheduler.bin" in ran.out
    new = tmp_path / "new"
    assert {one.name for one in new.iterdir()} == {one.name for one in folder.iterdir()}
    made = torch.load(new / "pytorch_model.bin")
    assert list(made) == ["stem.a.weight", "stem.b.weight", "stem.bias", "head.weight", "head.bias"]
    found = torch.load(new / "optimizer.bin")
    assert found["param_groups"][0]["params"] == list(range(5))
    assert torch.equal(torch.cat([found["state"][0]["exp_avg"], found["state"][1]["exp_avg"]]), state["state"][0]["exp_avg"])
    assert found["state"][0]["step"].data_ptr() != found["state"][1]["step"].data_ptr()
    for name in ("config.json", "empty.txt", "random_states_0.pkl", "scheduler.bin"):
        assert (new / name).read_bytes() == (folder / name).read_bytes()
    ran = ckpt("map", "run", *RULES, "-o", "new", cwd=tmp_path)
    assert (ran.status, "exists already" in ran.err or "holds" in ran.err) == (2, True), ran.err
    report: Any = ckpt_tool.map(folder, None, new, rules=list(RULES[1::2]), force=True, checksum=True)
    assert (report.is_whole, sorted(report.shards)) == (True, sorted(os.listdir(folder)))
    assert list(torch.load(new / "pytorch_model.bin")) == ["stem.weight", "stem.bias", "head.weight", "head.bias"]
    assert (new / "optimizer.bin").read_bytes() == (folder / "optimizer.bin").read_bytes()


def test_sorted_keys_say_nothing_of_the_order_of_parameters(run, tmp_path):
    folder, _, _ = run
    safe(folder)
    ran = ckpt("map", "run", *RULES, "-o", "names", cwd=tmp_path)
    assert ran.status == 0, ran.err
    assert load_file(tmp_path / "names" / "model.safetensors").keys() == {"stem.weight", "stem.bias", "head.weight", "head.bias"}
    assert (tmp_path / "names" / "optimizer.bin").read_bytes() == (folder / "optimizer.bin").read_bytes()
    wide = {"state": {number: {"exp_avg": torch.zeros(4)} for number in range(4)}, "param_groups": [{"lr": 1, "betas": (0.9, 0.9), "params": [0, 1, 2, 3]}]}
    torch.save(wide, folder / "optimizer.bin")
    save_file({"a": torch.ones(4), "b": torch.ones(4), "c": torch.ones(4), "d": torch.ones(4)}, folder / "model.safetensors")
    words = ("map", "run", "-e", "a -> a.{x,y}: split", "-e", "** -> **", "-o", "new")
    ran = ckpt(*words, cwd=tmp_path)
    assert (ran.status, "optimizer.bin: which parameter has which number" in ran.err, "`--fresh-optimizer '**'`" in ran.err) == (2, True, True), ran.err
    assert not (tmp_path / "new").exists()
    ran = ckpt(*words, "--fresh-optimizer", "**", cwd=tmp_path)
    assert (ran.status, "`optimizer.bin` is left out" in ran.out, (tmp_path / "new" / "optimizer.bin").exists()) == (0, True, False), ran.err


def test_shards_stay_shards(run, tmp_path):
    folder, weights, _ = run
    os.unlink(folder / "pytorch_model.bin")
    names = {"model-00001-of-00002.safetensors": ["0.weight", "0.bias"], "model-00002-of-00002.safetensors": ["2.weight", "2.bias"]}
    for name, keys in names.items():
        save_file({key: weights[key] for key in keys}, folder / name, {"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": {key: name for name, keys in names.items() for key in keys}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert ckpt("map", "run", *RULES, "-o", "new", cwd=tmp_path).status == 0
    with ckpt_tool.open(tmp_path / "new") as made:
        assert set(made) == {"stem.weight", "stem.bias", "head.weight", "head.bias"}
        assert torch.equal(made["head.weight"].read() if hasattr(made["head.weight"], "read") else made["head.weight"][:], weights["2.weight"])
    made_names = set(os.listdir(tmp_path / "new"))
    assert "model.safetensors.index.json" in made_names
    assert (tmp_path / "new" / "optimizer.bin").read_bytes() == (folder / "optimizer.bin").read_bytes()


def test_what_would_be_mixed_up_is_refused(run, tmp_path):
    folder, weights, _ = run
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    ran = ckpt("map", "run", *RULES, "-o", "new", cwd=tmp_path)
    assert (ran.status, "is a folder with 2 checkpoints" in ran.err) == (2, True), ran.err
    os.rename(folder / "pytorch_model.bin", folder / "before.pt")
    ran = ckpt("map", "run", *RULES, "-o", "new", cwd=tmp_path)
    assert (ran.status, "holds weights once more, in `before.pt`" in ran.err) == (2, True), ran.err
    os.unlink(folder / "before.pt")
    (folder / "tf_model.h5").write_bytes(b"\x89HDF")
    assert "holds weights once more, in `tf_model.h5`" in ckpt("map", "run", *RULES, "-o", "new", cwd=tmp_path).err
    os.unlink(folder / "tf_model.h5")
    (folder / "logs").mkdir()
    assert "holds a folder, `logs`" in ckpt("map", "run", *RULES, "-o", "new", cwd=tmp_path).err
    shutil.rmtree(folder / "logs")
    assert "is one of the inputs" in ckpt("map", "run", *RULES, "-o", "run", "--force", cwd=tmp_path).err
    with pytest.raises(InputError, match="one file"):
        ckpt_tool.map(folder, None, tmp_path / "new", rules=list(RULES[1::2]), also="#ema")
    assert not (tmp_path / "new").exists()
    assert ckpt("map", "run", *RULES, "-o", "weights.safetensors", cwd=tmp_path).status == 0
    assert ckpt("map", "run", *RULES, "--only-weights", "-o", "new", cwd=tmp_path).status == 2


def test_a_training_checkpoint_in_a_folder_is_named_itself(tmp_path):
    (tmp_path / "run").mkdir()
    torch.save({"model": {"a": torch.ones(2)}, "epoch": 3}, tmp_path / "run" / "pytorch_model.bin")
    ran = ckpt("map", "run", "-e", "** -> x.**", "-o", "new", cwd=tmp_path)
    assert (ran.status, "its name does not say the format to write" in ran.err) == (2, True), ran.err
    assert ckpt("map", "run", "-e", "** -> x.**", "-o", "new.bin", cwd=tmp_path).status == 0
    assert torch.load(tmp_path / "new.bin")["epoch"] == 3


@pytest.mark.parametrize("source", ["folder", "file"])
def test_a_folder_of_weights_has_the_form_of_the_target(tmp_path, source):
    """Meta's folder into that of a model of transformers: shards, configuration and tokenizer are the target's."""
    meta, hub = tmp_path / "meta", tmp_path / "hub"
    for folder in (meta, hub):
        folder.mkdir()
    state = {f"layers.{at}.w": torch.randn(64, 64) for at in range(4)}
    torch.save(state, meta / "consolidated.00.pth")
    (meta / "params.json").write_text('{"dim": 64}')
    ckpt_tool.map({f"model.{key}": torch.zeros(64, 64) for key in state}, None, hub, rules="** -> **", max_shard_size=40_000)
    (hub / "config.json").write_text('{"model_type": "llama"}')
    (hub / "tokenizer.json").write_text("{}")
    torch.save({"state": {0: {"exp_avg": torch.ones(64, 64)}}, "param_groups": [{"params": [0]}]}, hub / "optimizer.pt")
    given = "meta" if source == "folder" else "meta/consolidated.00.pth"
    ran = ckpt("map", given, "hub", "-e", "** -> model.**", "-o", "out", cwd=tmp_path)
    assert ran.status == 0, ran.err
    assert "copied from hub: config.json, tokenizer.json" in ran.out
    assert "left out, as the target's optimizer: optimizer.pt" in ran.out
    names = {one.name for one in hub.iterdir()} - {"optimizer.pt"}
    assert {one.name for one in (tmp_path / "out").iterdir()} == names
    assert (tmp_path / "out" / "config.json").read_text() == '{"model_type": "llama"}'
    with ckpt_tool.open(tmp_path / "out") as made:
        assert all(torch.equal(made[f"model.{key}"][:], value) for key, value in state.items())
