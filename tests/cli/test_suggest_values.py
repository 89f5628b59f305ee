"""`ckpt suggest --values`: rules from what tensors hold, that do what they say."""

import json

import pytest
import torch
from running import ckpt


@pytest.fixture
def folder(tmp_path):
    generator = torch.Generator().manual_seed(0)
    ours = {f"blocks.{i}.{name}": torch.randn(12, 8, generator=generator) for i in range(3) for name in ("one", "two", "qkv")}
    theirs = {}
    for i in range(3):
        theirs |= {f"m.{i}.x": ours[f"blocks.{i}.two"].clone(), f"m.{i}.y": ours[f"blocks.{i}.one"].bfloat16()}
        theirs |= {f"m.{i}.{name}": part.clone() for name, part in zip("qkv", ours[f"blocks.{i}.qkv"].split(4), strict=True)}
    torch.save(ours, tmp_path / "a.pth")
    torch.save(theirs, tmp_path / "b.pth")
    return tmp_path


def test_rules_by_values_make_the_target(folder):
    ran = ckpt("suggest", "a.pth", "b.pth", "--values", "-o", "rules.yaml", cwd=folder)
    assert (ran.status, ran.out) == (0, "")
    text = (folder / "rules.yaml").read_text()
    assert text.startswith("# Drafted from values, names and shapes;")
    assert "  - blocks.{i}.{two,one} -> m.{i}.{x,y}\n" in text
    assert "  - blocks.{i}.qkv -> m.{i}.{q,k,v}: {split: 0}\n" in text
    assert ckpt("map", "a.pth", "b.pth", "-r", "rules.yaml", "--dtype", "target", "-o", "c.pth", cwd=folder).status == 0
    assert ckpt("diff", "b.pth", "c.pth", "--values", cwd=folder).status == 0


def test_evidence_is_equal_values(folder):
    found = json.loads(ckpt("suggest", "a.pth", "b.pth", "--values", "--json", cwd=folder).out)
    assert {(pair["confidence"], pair["evidence"]) for pair in found["pairs"]} == {(1.0, "equal values")}


def test_a_key_list_has_no_values(folder):
    (folder / "keys.txt").write_text(ckpt("show", "b.pth", "--keys", cwd=folder).out)
    ran = ckpt("suggest", "a.pth", "keys.txt", "--values", cwd=folder)
    assert (ran.status, ran.err) == (2, "error: keys.txt: is a key list: it has no values to compare; give a checkpoint\n")


def test_a_few_changed_tensors_leave_few_rules(tmp_path):
    generator = torch.Generator().manual_seed(0)
    shapes = {f"{name}{i}.{kind}": size for i in range(3) for name, kinds in (("conv", {"weight": (8, 8, 1, 1)}), ("bn", {"weight": (8,), "bias": (8,)})) for kind, size in kinds.items()}
    ours = {f"layer{i}.{j}.{key}": torch.randn(shape, generator=generator) for i in range(4) for j in range(3) for key, shape in shapes.items()}
    theirs = {key.replace("layer3.2", "top.block"): value.clone() for key, value in ours.items()}
    theirs["layer0.1.conv0.weight"] = ours["layer0.1.conv0.weight"].transpose(0, 1).contiguous()
    theirs["layer2.0.conv1.weight"] += 0.1
    theirs["layer2.1.conv2.weight"] += 0.1
    torch.save(ours, tmp_path / "a.pth")
    torch.save(theirs, tmp_path / "b.pth")
    found = json.loads(ckpt("suggest", "a.pth", "b.pth", "--values", "--json", cwd=tmp_path).out)
    lines = [rule["rule"] for rule in found["drafted"]]
    assert "layer3.2.** -> top.block.**" in lines
    assert len(lines) <= 8, lines
    assert sum(rule["tensors"] for rule in found["drafted"]) == len(ours) - 2
