"""Sharded checkpoints and folders: every tensor from the shard that the index names, and nothing from elsewhere."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ckpt_tool import MappingOptions
from ckpt_tool.api import map_checkpoint
from ckpt_tool.errors import FormatError, InputError
from ckpt_tool.formats import open_checkpoint
from ckpt_tool.formats.sharded import shards
from tests.formats.oracles import assert_agrees

A, B = torch.arange(3.0), torch.arange(4.0)


def sharded(folder: Path, weight_map: object = None, **metadata: object) -> str:
    """Two shards, `one` with the tensor a and `two` with b, and their index."""
    save_file({"a": A}, folder / "one.safetensors")
    save_file({"b": B}, folder / "two.safetensors")
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": metadata, "weight_map": weight_map or {"b": "two.safetensors", "a": "one.safetensors"}}))
    return str(path)


def test_tensors_stand_in_the_order_of_the_index(tmp_path: Path) -> None:
    assert_agrees(sharded(tmp_path), {"b": B, "a": A})


def test_a_folder_with_an_index_is_the_sharded_checkpoint(tmp_path: Path) -> None:
    sharded(tmp_path)
    assert_agrees(tmp_path, {"b": B, "a": A})


def test_shards_of_torch_are_read_too(tmp_path: Path) -> None:
    torch.save({"a": A}, tmp_path / "one.bin")
    torch.save({"b": B}, tmp_path / "two.bin", _use_new_zipfile_serialization=False)
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": "one.bin", "b": "two.bin"}}))
    assert_agrees(tmp_path, {"a": A, "b": B})


def test_shards_that_are_symbolic_links_are_followed(tmp_path: Path) -> None:
    sharded(tmp_path)
    (tmp_path / "blobs").mkdir()
    os.rename(tmp_path / "one.safetensors", tmp_path / "blobs" / "abc")
    os.symlink("blobs/abc", tmp_path / "one.safetensors")
    assert_agrees(tmp_path, {"b": B, "a": A})


def test_more_shards_than_may_stay_open_are_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "OPEN_SHARDS", 0)
    path = sharded(tmp_path)
    assert_agrees(path, {"b": B, "a": A})
    with open_checkpoint(path) as checkpoint:
        save_file({"b": B + 1}, tmp_path / "other")
        os.replace(tmp_path / "other", tmp_path / "two.safetensors")
        with pytest.raises(FormatError, match="was changed while it was being read"):
            checkpoint.raw("b")


def test_a_wrong_total_size_is_only_a_note(tmp_path: Path) -> None:
    with open_checkpoint(sharded(tmp_path, total_size=7)) as checkpoint:
        assert [(extra.kind, extra.text) for extra in checkpoint.extras] == [("note", "the index says 7 bytes; its tensors have 28")]


def test_a_tensor_that_the_index_does_not_list_is_named(tmp_path: Path) -> None:
    path = sharded(tmp_path)
    save_file({"a": A, "stray": B}, tmp_path / "one.safetensors")
    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint.catalog) == ["b", "a"]
        assert [(extra.path, extra.text) for extra in checkpoint.extras] == [
            ("stray", "F32 in one.safetensors, which the index does not list")
        ]


@pytest.mark.parametrize("name", ["../one.safetensors", "/etc/passwd", "sub/one.safetensors", "", ".", "..", "a\0b", "C:one", "..\\one"])
def test_shards_outside_of_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(FormatError, match="not a plain file name"):
        open_checkpoint(sharded(tmp_path, {"a": name}))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"1 of its 2 shards are missing: three.safetensors"):
        open_checkpoint(sharded(tmp_path, {"a": "one.safetensors", "b": "three.safetensors"}))


def test_a_tensor_that_is_not_in_its_shard_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"says that `c` is in one.safetensors, but it is not"):
        open_checkpoint(sharded(tmp_path, {"c": "one.safetensors"}))


def test_a_tensor_in_two_shards_is_an_error(tmp_path: Path) -> None:
    path = sharded(tmp_path)
    save_file({"a": A, "b": B}, tmp_path / "one.safetensors")
    with pytest.raises(FormatError, match="`b` is in two shards"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    "text", ['{"weight_map": []}', '{"weight_map": {"a": 1}}', '{"weight_map": {"a": "x", "a": "y"}}', '{"weight_map"', "[1]"]
)
def test_an_index_of_another_shape_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(FormatError):
        open_checkpoint(str(tmp_path))


def test_a_pipe_in_the_place_of_a_shard_does_not_block(tmp_path: Path) -> None:
    path = sharded(tmp_path)
    os.unlink(tmp_path / "one.safetensors")
    os.mkfifo(tmp_path / "one.safetensors")
    with pytest.raises(InputError, match="is a pipe, not a file"):
        open_checkpoint(path)


@pytest.mark.parametrize("name", ["model.safetensors", "diffusion_pytorch_model.safetensors", "adapter_model.safetensors"])
def test_a_folder_with_one_file_of_a_usual_name_is_that_file(tmp_path: Path, name: str) -> None:
    save_file({"a": A}, tmp_path / name)
    (tmp_path / "config.json").write_text("{}")
    assert_agrees(tmp_path, {"a": A})


def test_a_folder_with_several_checkpoints_names_them(tmp_path: Path) -> None:
    save_file({"a": A}, tmp_path / "model.safetensors")
    torch.save({"a": A}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"2 checkpoints: model.safetensors, pytorch_model.bin; name one of them"):
        open_checkpoint(str(tmp_path))


def test_a_folder_without_a_checkpoint_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder without a known checkpoint file"):
        open_checkpoint(str(tmp_path))


@pytest.mark.parametrize("output", ["out.pth", "out.safetensors"])
def test_ties_are_those_of_the_index_and_never_between_shards(tmp_path: Path, output: str) -> None:
    """Both shards tie tensors to one that the index leaves out, under one name, and one lists them in another order."""
    tensors = {}
    for name, keys in {"1.bin": "adc", "2.bin": "b"}.items():
        weight = torch.randn(4)
        torch.save({"x": weight, **dict.fromkeys(keys, weight)}, tmp_path / name)
        tensors |= dict.fromkeys(keys, weight)
    weight_map = {"d": "1.bin", "b": "2.bin", "c": "1.bin", "a": "1.bin"}
    (tmp_path / "m.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    with open_checkpoint(tmp_path / "m.index.json") as checkpoint:
        found = {key: (info.shared_storage_with, info.tied_to) for key, info in checkpoint.catalog.items()}
    assert found == {"d": (None, None), "b": (None, None), "c": ("d", "d"), "a": ("d", "d")}
    map_checkpoint(tmp_path / "m.index.json", None, tmp_path / output, MappingOptions(inline="** -> new.**"))
    assert_agrees(tmp_path / output, {f"new.{key}": tensors[key] for key in weight_map})
