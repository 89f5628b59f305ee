"""`ckpt mappings`: what is shipped, and what fits a pair."""

import json

import torch
from conftest import ROOT
from running import ckpt


def test_all_shipped_mappings_are_listed():
    ran = ckpt("mappings")
    names = [path.name for path in sorted((ROOT / "mappings").glob("*.yaml"))]
    assert (ran.status, [line.split()[0] for line in ran.out.splitlines()[:-1]]) == (0, names)


def test_the_mapping_that_accounts_for_a_pair_is_found(story):
    found = json.loads(ckpt("mappings", "resnet50.pth", "detector.pth", "--json", cwd=story).out)["mappings"]
    assert found[0]["name"] == "resnet50_to_yolo.yaml"
    assert found[0]["counts"] == {"mapped": 318, "kept": 66, "dropped": 2}


def test_a_pair_that_nothing_accounts_for(story, tmp_path):
    (tmp_path / "keys.txt").write_text("nothing.like.it\tF32\t3\n")
    ran = ckpt("mappings", tmp_path / "keys.txt", "detector.pth", cwd=story)
    assert (ran.status, ran.out) == (1, "no shipped mapping accounts for these two\n")
    assert ckpt("mappings", "resnet50.pth", cwd=story).status == 2


def test_a_word_is_searched_for_though_a_folder_has_its_name(tmp_path):
    elsewhere = ckpt("mappings", "llama")
    (tmp_path / "llama").mkdir()
    found = ckpt("mappings", "llama", cwd=tmp_path)
    assert (found.status, found.out) == (0, elsewhere.out)
    assert "llama_to_meta.yaml" in found.out
    (tmp_path / "run-500").mkdir()
    ran = ckpt("mappings", "run-500", cwd=tmp_path)
    assert (ran.status, "a source and a target, or a word" in ran.err) == (2, True)


def test_a_mapping_that_only_copies_equal_names_is_no_find(tmp_path):
    torch.save({"a.weight": torch.ones(2), "b.weight": torch.ones(3)}, tmp_path / "a.pth")
    torch.save({"module.a.weight": torch.ones(2), "module.b.weight": torch.ones(3)}, tmp_path / "w.pth")
    ran = ckpt("mappings", "a.pth", "a.pth", "--json", cwd=tmp_path)
    found = json.loads(ran.out)
    assert (found["mappings"], found["next"]) == ([], "ckpt map a.pth a.pth -o mapped.pth")
    wrapped = json.loads(ckpt("mappings", "w.pth", "a.pth", "--json", cwd=tmp_path).out)
    assert [each["name"] for each in wrapped["mappings"]] == ["strip_wrappers.yaml"]
