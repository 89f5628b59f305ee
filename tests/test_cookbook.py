"""The commands of docs/cookbook.md do what is written above them, on inputs of the kind that it speaks of."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from running import ckpt
from seeded import fill_with_seeded_values
from torch import nn

COOKBOOK = Path(__file__).parent.parent / "docs" / "cookbook.md"
RECIPES = re.findall(r"<!-- run: (\w+) -->\n```\n(.*?)```", COOKBOOK.read_text(), re.DOTALL)


def network(seed):
    layers = {"conv1": nn.Conv2d(3, 8, 3), "bn1": nn.BatchNorm2d(8), "fc": nn.Linear(8, 10)}
    model = nn.Sequential()
    for name, layer in layers.items():
        model.add_module(name, layer)
    return dict(fill_with_seeded_values(model, seed).state_dict())


OURS, FRESH = network(1), network(2)
HEAD = {"head.0.weight": torch.rand(6, 8), "head.0.bias": torch.rand(6)}
BACKBONE = {key: value for key, value in FRESH.items() if not key.startswith("fc.")}


def below(prefix, tensors):
    return {prefix + key: value for key, value in tensors.items()}


LIGHTNING = {
    "state_dict": below("model.", OURS) | {"criterion.weight": torch.rand(10)},
    "optimizer_states": [{"state": {0: {"exp_avg": torch.rand(8)}}, "param_groups": [{"params": [0]}]}],
    "epoch": 3,
    "pytorch-lightning_version": "2.5.0",
}
INPUTS = {
    "prefix": {"run.pth": below("module.", OURS), "init.pth": FRESH},
    "backbone": {"backbone.pth": OURS, "net.pth": below("backbone.", BACKBONE) | HEAD},
    "lightning": {"run.ckpt": LIGHTNING, "init.pth": FRESH},
    "part": {"old.pth": {"conv1.weight": OURS["conv1.weight"], "bn1.weight": OURS["bn1.weight"], "old.weight": torch.rand(3)}, "new.pth": FRESH},
}
MADE = {
    "prefix": OURS,
    "backbone": below("backbone.", {key: OURS[key] for key in BACKBONE}) | HEAD,
    "lightning": OURS,
    "part": FRESH | {key: OURS[key] for key in ("conv1.weight", "bn1.weight")},
}


@pytest.mark.parametrize(("name", "line"), [(name, line) for name, lines in RECIPES for line in lines.strip().splitlines()])
def test_a_recipe_makes_what_it_says(tmp_path, name, line):
    for file, content in INPUTS[name].items():
        torch.save(content, tmp_path / file)
    words = shlex.split(line)
    ran = ckpt(*words[1:], cwd=tmp_path)
    assert ran.status == 0, ran.err
    made = torch.load(tmp_path / words[words.index("-o") + 1])
    assert made.keys() == MADE[name].keys()
    assert all(torch.equal(made[key], value) for key, value in MADE[name].items())


def test_every_kind_of_recipe_is_run():
    assert {name for name, _ in RECIPES} == INPUTS.keys() == MADE.keys()


def test_a_recipe_without_its_drop_is_refused_with_the_recipe(tmp_path):
    for file, content in INPUTS["lightning"].items():
        torch.save(content, tmp_path / file)
    ran = ckpt("map", "run.ckpt", "init.pth", "-o", "out.pth", cwd=tmp_path)
    assert (ran.status, ran.err.splitlines()[-1]) == (1, "next: ckpt map run.ckpt init.pth --drop criterion.weight -o out.pth")
