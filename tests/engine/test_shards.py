"""Sharded outputs: the files that transformers would write, an index last, each complete or absent."""

import json
import os
import re

import pytest
import torch
from running import ckpt, in_shell
from safetensors.torch import load_file, save_file

import ckpt_tool
from ckpt_tool import MappingOptions
from ckpt_tool.api import map_checkpoint
from ckpt_tool.api.options import size_of
from ckpt_tool.errors import FormatError, InputError, OutputError
from ckpt_tool.formats import open_checkpoint

RENAME = MappingOptions(inline=("** -> net.**",))


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
    how = MappingOptions(inline=("layer{0,1}.weight -> a.w: {concat: 0}", "layer2.weight -> a.t: transpose"), drop=("layer{3,4}.*",), keep=("head",))
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
    (tmp_path / "out" / "tokenizer.json").write_text("{}")
    map_checkpoint(*arguments, force=True, shard_bytes=400)
    assert sorted(os.listdir(tmp_path / "out")) == sorted(
        [f"model-{n:05d}-of-00005.safetensors" for n in range(1, 6)] + ["model.safetensors.index.json", "tokenizer.json"]
    )
    assert sorted(os.listdir(tmp_path)) == ["in.safetensors", "out"]


def test_nothing_in_a_folder_is_lost_or_mixed_up(tmp_path, source):
    (tmp_path / "out").mkdir()
    (tmp_path / "plain").write_text("")
    save_file({"x": torch.ones(1)}, tmp_path / "out" / "adapter.safetensors")
    for path, text in (
        ("out", "holds `adapter.safetensors`"),
        ("in.safetensors", "has the name of a safetensors file"),
        ("plain", "can't be made"),
        ("none/out", "its folder does not exist"),
    ):
        with pytest.raises(OutputError, match=text):
            map_checkpoint(str(tmp_path / "in.safetensors"), None, str(tmp_path / path), RENAME, force=True, shard_bytes=400)
    assert sorted(os.listdir(tmp_path)) == ["in.safetensors", "out", "plain"]
    os.rename(tmp_path / "out" / "adapter.safetensors", tmp_path / "out" / "model.safetensors")
    with pytest.raises(OutputError, match="is one of the inputs"):
        map_checkpoint(str(tmp_path / "out" / "model.safetensors"), None, str(tmp_path / "out"), RENAME, force=True, shard_bytes=400)
    (tmp_path / "out" / "original").mkdir()
    with pytest.raises(OutputError, match="holds a folder, `original`"):
        map_checkpoint(str(tmp_path / "in.safetensors"), None, str(tmp_path / "out"), RENAME, force=True, shard_bytes=400)


def test_a_folder_stays_as_it_is_where_the_source_breaks(tmp_path, source):
    out = str(tmp_path / "out")
    map_checkpoint(str(tmp_path / "in.safetensors"), None, out, RENAME, shard_bytes=800)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    torch.save({"a": torch.randn(1000), "b": torch.randn(1000)}, tmp_path / "broken.pth")
    content = bytearray((tmp_path / "broken.pth").read_bytes())
    with open_checkpoint(str(tmp_path / "broken.pth")) as opened:
        content[opened.extent("b").offset] ^= 1
    (tmp_path / "broken.pth").write_bytes(content)
    with pytest.raises(FormatError):
        map_checkpoint(str(tmp_path / "broken.pth"), None, out, RENAME, force=True, shard_bytes=5000)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert sorted(os.listdir(tmp_path)) == ["broken.pth", "in.safetensors", "out"]


def test_the_command_takes_a_size_and_says_how_many_files(tmp_path, source):
    ran = ckpt("map", "in.safetensors", "-e", "** -> net.**", "-o", "out", "--max-shard-size", "1kB", cwd=tmp_path)
    assert (ran.status, ran.out) == (0, "wrote out: 5 tensors, 2.5 kB in 3 shards\n")
    assert ckpt("diff", "out", "out", cwd=tmp_path).status == 0
    ran = ckpt("map", "in.safetensors", "-e", "** -> net.**", "-o", "out2", "--max-shard-size", "big", cwd=tmp_path)
    assert (ran.status, ran.err) == (2, "error: --max-shard-size: `big` is not a size; give 5GB, 500MB or 512MiB\n")


MAPPED = 'map many -e "** -> m.**" -o out --max-shard-size 4B > printed'


@pytest.fixture
def many(tmp_path):
    """A checkpoint of 80 shards."""
    (tmp_path / "many").mkdir()
    weight_map = {f"{number}.w": f"{number}.safetensors" for number in range(80)}
    for number, (key, name) in enumerate(weight_map.items()):
        save_file({key: torch.tensor([float(number)])}, tmp_path / "many" / name)
    (tmp_path / "many" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return tmp_path



def test_more_files_than_a_shell_lets_open_at_first_are_read_and_written(many):
    ran = in_shell(f'ulimit -S -n 64 && "$0" -m ckpt_tool {MAPPED} && "$0" -m ckpt_tool verify out many -e "** -> m.**"', many)
    assert (ran.status, ran.out) == (0, "out is what the plan says, bit for bit: 80 tensors\n")
    assert (many / "printed").read_text().endswith("wrote out: 80 tensors, 8.6 kB in 80 shards\n")


def test_more_files_than_may_be_open_are_an_error_that_says_so(many):
    ran = in_shell(f'ulimit -n 64 && "$0" -m ckpt_tool {MAPPED}', many)
    assert ran.status == 2
    assert re.fullmatch(r"error: many/\d+\.safetensors: too many open files; let this shell open more: ulimit -n 10000\n", ran.err)
    assert sorted(path.name for path in many.iterdir()) == ["many", "printed"]


@pytest.mark.parametrize(("text", "size"), [("5GB", 5 * 10**9), ("512MiB", 512 << 20), ("1000", 1000), ("2 kb", 2000), ("5B", 5), (5, 5), (None, None)])
def test_sizes(text, size):
    assert size_of(text) == size


@pytest.mark.parametrize("text", ["", "GB", "0", "-5GB", "1.5GB", "5XB", "9" * 5000])
def test_no_sizes(text):
    with pytest.raises(InputError, match="is not a size"):
        size_of(text)


@pytest.mark.parametrize("text", ["5", "999"])
def test_a_size_of_a_few_bytes_lacks_its_unit(tmp_path, source, text):
    with pytest.raises(InputError, match=r"is a size of \d+ bytes; give a unit: "):
        size_of(text)
    ran = ckpt("map", "in.safetensors", "-e", "** -> **", "-o", "out", "--max-shard-size", text, cwd=tmp_path)
    assert (ran.status, (tmp_path / "out").exists()) == (2, False)


def test_the_library_takes_the_sizes_of_the_command_line(tmp_path, source):
    report = ckpt_tool.map(str(tmp_path / "in.safetensors"), output=tmp_path / "out", rules="** -> **", max_shard_size="1KB")
    assert len(report.shards) == 3
    with pytest.raises(InputError, match="`max_shard_size=`: `many` is not a size"):
        ckpt_tool.map(str(tmp_path / "in.safetensors"), output=tmp_path / "new", rules="** -> **", max_shard_size="many")


@pytest.mark.parametrize("output", ["model", "link", "model/.", "twins"])
@pytest.mark.parametrize("role", ["source", "target"])
def test_a_folder_that_is_read_is_never_written(tmp_path, source, output, role):
    single, folder = str(tmp_path / "in.safetensors"), str(tmp_path / "model")
    map_checkpoint(single, None, folder, RENAME, shard_bytes=800)
    (tmp_path / "link").symlink_to("model")
    (tmp_path / "twins").mkdir()
    for path in (tmp_path / "model").glob("*.safetensors"):
        os.link(path, tmp_path / "twins" / path.name)
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    sides = (folder, None, MappingOptions(inline=("net.** -> **",))) if role == "source" else (single, folder, RENAME)
    with pytest.raises(OutputError, match=r"model-00001-of-00003\.safetensors: is one of the inputs"):
        map_checkpoint(*sides[:2], str(tmp_path / output), sides[2], force=True, shard_bytes=400)  # type: ignore[call-arg]
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before
    assert sorted(os.listdir(tmp_path)) == ["in.safetensors", "link", "model", "twins"]
