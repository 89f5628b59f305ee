"""`show --digests`: values compared with a checkpoint that is not there any more."""

import json

import pytest
import torch
from running import ckpt
from safetensors.torch import save_file


@pytest.fixture
def folder(tmp_path):
    tensors = {"a": torch.randn(30, 40), "b": torch.ones(2, dtype=torch.bfloat16), "c": torch.randn(6, 4).t(), "s": torch.tensor(3)}
    torch.save(tensors, tmp_path / "a.pth")
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, tmp_path / "a.safetensors")
    tensors["a"][7, 7] += 1
    torch.save(tensors, tmp_path / "b.pth")
    (tmp_path / "a.keys").write_text(ckpt("show", "--digests", "a.pth", cwd=tmp_path).out)
    return tmp_path


def test_digests_are_of_the_values_whatever_holds_them(folder):
    assert ckpt("show", "--digests", "a.safetensors", cwd=folder).out.split("\n").sort() == (folder / "a.keys").read_text().split("\n").sort()
    assert ckpt("show", "--digests", "a.keys", cwd=folder).out == (folder / "a.keys").read_text()
    assert ckpt("diff", "--values", "a.keys", "a.safetensors", cwd=folder).status == 0
    assert ckpt("diff", "--values", "a.keys", "a.keys", cwd=folder).status == 0


def test_a_value_that_differs_is_named(folder):
    ran = ckpt("diff", "--values", "--json", "a.keys", "b.pth", cwd=folder)
    assert ran.status == 1
    assert [entry["a"]["key"] for entry in json.loads(ran.out)["entries"]] == ["a"]


@pytest.mark.parametrize("sides", [("a.keys", "b.pth"), ("b.pth", "a.keys"), ("a.keys", "a.keys")])
def test_digests_say_nothing_of_a_tolerance(folder, sides):
    ran = ckpt("diff", "--values", "--atol", "2", *sides, cwd=folder)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err == "error: a.keys: is a key list: its digests say that values differ, not by how much; `--atol` can't be answered; give the checkpoint itself, or leave out `--atol`\n"


def test_a_list_with_digests_is_a_key_list(folder):
    assert ckpt("diff", "a.keys", "b.pth", cwd=folder).status == 0
    assert ckpt("show", "--keys", "a.keys", cwd=folder).out == ckpt("show", "--keys", "a.pth", cwd=folder).out


def test_what_is_missing_or_broken_is_said(folder):
    (folder / "plain.keys").write_text(ckpt("show", "--keys", "a.pth", cwd=folder).out)
    ran = ckpt("diff", "--values", "plain.keys", "a.pth", cwd=folder)
    assert (ran.status, ran.err) == (
        2,
        "error: plain.keys: is a key list: it has no values to compare; `ckpt show --digests` writes one that has digests\n",
    )
    ran = ckpt("show", "--digests", "plain.keys", cwd=folder)
    assert (ran.status, ran.err) == (2, "error: plain.keys: is a key list without digests: it has no values\n")
    (folder / "bad.keys").write_text("a\tF32\t2\tblake3:xyz\n")
    ran = ckpt("show", "bad.keys", cwd=folder)
    assert (ran.status, ran.err) == (2, "error: bad.keys: line 1: `blake3:xyz` is not a digest; `ckpt show --digests` writes those\n")
