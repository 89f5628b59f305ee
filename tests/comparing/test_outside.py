"""What lies outside of the state dicts: compared where both sides have it, told where one has, and nothing uncompared called identical."""

import json

import pytest
import torch
from running import ckpt
from safetensors.torch import save_file

import ckpt_tool

W = torch.arange(4.0)


def sparse(factor):
    return (torch.eye(2) * factor).to_sparse()


def diffed(folder, a, b, *options):
    torch.save({"model": {"w": W}, **a}, folder / "a.pth")
    torch.save({"model": {"w": W}, **b}, folder / "b.pth")
    return ckpt("diff", "a.pth", "b.pth", *options, cwd=folder)


def test_what_cant_be_read_outside_is_named_and_never_identical(tmp_path):
    ran = diffed(tmp_path, {"optimizer": {"m": sparse(1), "n": W}}, {"optimizer": {"m": sparse(2), "n": W}}, "--values")
    assert ran.status == 2
    assert "outside the state dict, not compared\n  ? optimizer.m    sparse on both sides\n" in ran.out
    assert ran.out.splitlines()[-1] == "1 same; 1 the same, 1 not compared outside the state dict"


def test_outside_all_that_cant_be_read_counts(tmp_path):
    ran = diffed(tmp_path, {"optimizer": {"m": sparse(1)}}, {"optimizer": {"m": torch.eye(2)}}, "--values")
    assert (ran.status, ran.out.splitlines()[-1]) == (2, "1 same; 1 not compared outside the state dict")


M, N = {"optimizer": {"m": W}}, {"ema": {"w": W}}


@pytest.mark.parametrize(("a", "b", "told"), [
    (M, {}, ["only a.pth holds, outside of its state dict: optimizer (1 tensor, 16 B)"]),
    (M, {**M, **N}, ["only b.pth holds, outside of its state dict: ema (averaged weights, 1 tensor, 16 B)"]),
    (M, N, ["only a.pth holds, outside of its state dict: optimizer (1 tensor, 16 B)", "only b.pth holds, outside of its state dict: ema (averaged weights, 1 tensor, 16 B)"]),
])  # fmt: skip
def test_a_whole_part_that_one_side_has_alone_is_told_and_the_weights_are_the_same(tmp_path, a, b, told):
    ran = diffed(tmp_path, a, b, "--values")
    assert ran.status == 0
    assert [line.removeprefix("note: ") for line in ran.out.splitlines() if line.startswith("note: ")] == told
    assert ran.out.splitlines()[-1].endswith(": the same weights, bit for bit")
    report = json.loads(ckpt("diff", "a.pth", "b.pth", "--values", "--json", cwd=tmp_path).out)
    assert (report["identical"], report["notes"]) == (False, told)


def test_a_key_that_one_side_lacks_in_a_part_that_both_have_is_a_difference(tmp_path):
    ran = diffed(tmp_path, {"optimizer": {"m": W, "n": W}}, M, "--values")
    assert (ran.status, ran.out.splitlines()[-1]) == (1, "1 same; 1 differs outside the state dict")


def test_all_the_same_is_identical(tmp_path):
    ran = diffed(tmp_path, M, M, "--values")
    assert (ran.status, ran.out.splitlines()[-1]) == (0, "1 same; 1 the same outside the state dict: identical")


def test_what_is_within_the_tolerance_outside_is_not_identical(tmp_path):
    ran = diffed(tmp_path, M, {"optimizer": {"m": W + 1}}, "--values", "--atol", "9")
    assert (ran.status, ran.out.splitlines()[-1]) == (0, "1 same; 1 within the tolerance outside the state dict")
    near = ckpt("diff", "a.pth", "b.pth", "--values", "--atol", "9", "--side-by-side", cwd=tmp_path)
    assert near.out.splitlines()[-1] == "1 same; 1 within the tolerance outside the state dict"
    found = ckpt_tool.diff(tmp_path / "a.pth", tmp_path / "b.pth", values=True, atol=9)
    assert (str(found).splitlines()[-1], found.identical) == ("1 same; 1 within the tolerance outside the state dict", False)


def test_weights_within_the_tolerance_drop_no_word_of_what_is_outside(tmp_path):
    torch.save({"model": {"w": W}, **M}, tmp_path / "a.pth")
    torch.save({"model": {"w": W + 1}, **M}, tmp_path / "b.pth")
    ran = ckpt("diff", "a.pth", "b.pth", "--values", "--atol", "9", cwd=tmp_path)
    assert (ran.status, ran.out.splitlines()[-1]) == (0, "0 same, 1 within the tolerance; 1 the same outside the state dict")


def test_zeros_of_another_sign_outside_are_not_identical(tmp_path):
    ran = diffed(tmp_path, {"optimizer": {"m": torch.zeros(2)}}, {"optimizer": {"m": -torch.zeros(2)}}, "--values")
    assert ran.out.splitlines()[-1].startswith("1 same; 1 the same outside the state dict: equal, but not bit for bit: 1 tensor")


@pytest.mark.parametrize(("a", "b", "told"), [
    ({"step": "1"}, {"step": "2"}, ["1 value differs beside the tensors: step '1' → '2'"]),
    ({"step": "1"}, None, ["only a.safetensors has, beside its tensors: step '1'"]),
    ({"format": "pt"}, None, []),
    ({"step": "1", "format": "pt"}, {"format": "np", "step": "1"}, []),
])  # fmt: skip
def test_texts_in_headers_of_safetensors_are_compared(tmp_path, a, b, told):
    for name, metadata in (("a", a), ("b", b)):
        save_file({"w": W}, tmp_path / f"{name}.safetensors", metadata=metadata)
    ran = ckpt("diff", "a.safetensors", "b.safetensors", "--values", cwd=tmp_path)
    assert [line.removeprefix("note: ") for line in ran.out.splitlines() if line.startswith("note: ")] == told
    assert (ran.status, ran.out.splitlines()[-1]) == (0, "1 same: the same weights, bit for bit" if told else "1 same: identical")


def test_of_two_state_dicts_of_one_file_neither_holds_something_alone(tmp_path):
    torch.save({"model": {"w": W}, "ema": {"w": W + 1}, "optimizer": {"m": W}, "epoch": 3}, tmp_path / "a.pth")
    ran = ckpt("diff", "a.pth", "a.pth#ema", "--values", cwd=tmp_path)
    assert (ran.status, "note:" in ran.out, ran.out.splitlines()[-1]) == (1, False, "0 same, 1 differs")


def test_what_shards_hold_outside_of_their_state_dicts_is_compared(tmp_path):
    for folder, value in (("a", 1.0), ("b", 2.0)):
        (tmp_path / folder).mkdir()
        for number in (1, 2):
            inside = {"state_dict": {f"w{number}": W}, "optimizer": {"m": W * value}}
            torch.save(inside, tmp_path / folder / f"pytorch_model-0000{number}-of-00002.bin")
    ran = ckpt("diff", "a", "b", "--values", cwd=tmp_path)
    assert (ran.status, ran.out.splitlines()[-1]) == (1, "2 same; 2 differ outside the state dict")


def test_what_an_index_of_other_names_does_not_list_is_told_or_compared(tmp_path):
    for folder, value in (("a", 1.0), ("b", 2.0)):
        (tmp_path / folder).mkdir()
        save_file({"w": W, "stray": W * value}, tmp_path / folder / "one.safetensors")
        (tmp_path / folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": "one.safetensors"}}))
    save_file({"w": W}, tmp_path / "plain.safetensors")
    ran = ckpt("diff", "a", "plain.safetensors", "--values", cwd=tmp_path)
    assert (ran.status, ran.out.splitlines()[-1]) == (0, "1 same: the same weights, bit for bit")
    assert "note: only a holds, outside of its state dict: one.safetensors (1 tensor, 16 B)" in ran.out
    ran = ckpt("diff", "a", "b", "--values", cwd=tmp_path)
    assert (ran.status, ran.out.splitlines()[-1]) == (1, "1 same; 1 differs outside the state dict")


def test_what_one_side_cant_read_is_not_counted_as_the_same(tmp_path):
    torch.save({"a": W, "b": W}, tmp_path / "a.pth")
    torch.save({"a": sparse(1), "b": W}, tmp_path / "b.pth")
    for pair in (("a.pth", "b.pth"), ("b.pth", "a.pth")):
        assert "1 same, 1 not compared" in ckpt("diff", *pair, cwd=tmp_path).out
