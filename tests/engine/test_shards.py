"""Sharded outputs: the files that transformers would write, an index last, each complete or absent."""

import json

import pytest
import torch
from running import ckpt
from safetensors.torch import load_file, save_file

from ckpt_tool import How, map_checkpoint, open_checkpoint
from ckpt_tool.cli.map import size_of
from ckpt_tool.errors import InputError, OutputError

RENAME = How(inline=("** -> net.**",))


@pytest.fixture
def source(tmp_path):
    state = {f"layer{i}.weight": torch.randn(10, 10) for i in range(5)}
    save_file(state, tmp_path / "in.safetensors")
    return state


def test_files_are_no_larger_than_asked_and_hold_everything(tmp_path, source):
    written = map_checkpoint(str(tmp_path / "in.safetensors"), None, str(tmp_path / "out"), RENAME, shard_bytes=800)
    assert written.shards == tuple(f"model-{n:05d}-of-00003.safetensors" for n in (1, 2, 3))
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_size": 2000}
    for name in written.shards:
        held = load_file(tmp_path / "out" / name)
        assert sum(tensor.nbytes for tensor in held.values()) <= 800
        assert all(torch.equal(tensor, source[key.removeprefix("net.")]) for key, tensor in held.items())
        assert set(held) == {key for key, file in index["weight_map"].items() if file == name}
    with open_checkpoint(str(tmp_path / "out")) as opened:
        assert list(opened.catalog) == [f"net.{key}" for key in source]


def test_computed_and_kept_tensors_are_sharded_too(tmp_path, source):
    save_file({"a.w": torch.zeros(20, 10), "a.t": torch.zeros(10, 10), "head": torch.randn(3)}, tmp_path / "target.safetensors")
    how = How(inline=("layer{0,1}.weight -> a.w: {concat: 0}", "layer2.weight -> a.t: transpose"), drop=("layer{3,4}.*",), keep=("head",))
    map_checkpoint(str(tmp_path / "in.safetensors"), str(tmp_path / "target.safetensors"), str(tmp_path / "out"), how, shard_bytes=500)
    with open_checkpoint(str(tmp_path / "out")) as opened:
        assert torch.equal(opened.read("a.w"), torch.cat([source["layer0.weight"], source["layer1.weight"]]))
        assert torch.equal(opened.read("a.t"), source["layer2.weight"].t())
        assert torch.equal(opened.read("head"), load_file(tmp_path / "target.safetensors")["head"])


def test_a_folder_that_holds_a_checkpoint_is_replaced_only_by_force(tmp_path, source):
    arguments = (str(tmp_path / "in.safetensors"), None, str(tmp_path / "out"), RENAME)
    map_checkpoint(*arguments, shard_bytes=800)
    with pytest.raises(OutputError, match="already"):
        map_checkpoint(*arguments, shard_bytes=800)
    map_checkpoint(*arguments, force=True, shard_bytes=800)
    with pytest.raises(OutputError, match="would be taken for a part"):
        map_checkpoint(*arguments, force=True, shard_bytes=400)


def test_the_command_takes_a_size_and_says_how_many_files(tmp_path, source):
    ran = ckpt("map", "in.safetensors", "-e", "** -> net.**", "-o", "out", "--max-shard-size", "1kB", cwd=tmp_path)
    assert (ran.status, ran.out) == (0, "wrote out: 5 tensors, 2.5 kB in 3 files\n")
    assert ckpt("diff", "out", "out", cwd=tmp_path).status == 0
    ran = ckpt("map", "in.safetensors", "-e", "** -> net.**", "-o", "out2", "--max-shard-size", "big", cwd=tmp_path)
    assert (ran.status, ran.err) == (2, "error: --max-shard-size: `big` is no size; say 5GB, 500MB or 512MiB\n")


@pytest.mark.parametrize(("text", "size"), [("5GB", 5 * 10**9), ("512MiB", 512 << 20), ("1000", 1000), ("2 kb", 2000)])
def test_sizes(text, size):
    assert size_of(text) == size


@pytest.mark.parametrize("text", ["", "GB", "0", "-5GB", "1.5GB", "5XB"])
def test_no_sizes(text):
    with pytest.raises(InputError, match="is no size"):
        size_of(text)
