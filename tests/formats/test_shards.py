"""Numbered shards without an index, or with one that is out of date; and files that are being renamed in place, in a folder."""

import json
from pathlib import Path

import pytest
import torch
from running import ckpt
from safetensors.torch import save_file

from ckpt_tool.errors import FormatError, InputError
from ckpt_tool.formats import open_checkpoint
from ckpt_tool.formats.sharded.journal import journal_of
from tests.formats.oracles import assert_agrees

A, B = torch.arange(3.0), torch.arange(4.0)


def numbered(folder: Path, name: str = "model-{:05d}-of-00002.safetensors", start: int = 1, **more: torch.Tensor) -> None:
    for number, tensors in enumerate(({"a": A}, {"b": B, **more}), start):
        path = folder / name.format(number)
        save_file(tensors, path) if name.endswith("safetensors") else torch.save(tensors, path)


@pytest.mark.parametrize(("name", "start"), [
    ("model-{:05d}-of-00002.safetensors", 1), ("pytorch_model-{:05d}-of-00002.bin", 1), ("weights.{:05d}-of-00002.safetensors", 0),
    ("diffusion_pytorch_model-{:05d}-of-00002.safetensors", 1), ("part_{:02d}-of-02.pth", 1),
])  # fmt: skip
def test_shards_without_an_index_are_read_together(tmp_path: Path, name: str, start: int) -> None:
    numbered(tmp_path, name, start)
    assert_agrees(tmp_path, {"a": A, "b": B})
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.format == ("safetensors shards" if name.endswith("safetensors") else "torch shards")
        assert checkpoint.contents.layout == "2 numbered shards, which were read without an index"
        assert checkpoint.contents.is_whole
        assert len(checkpoint.files) == 2


def test_a_number_that_is_missing_is_named(tmp_path: Path) -> None:
    numbered(tmp_path)
    (tmp_path / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(FormatError, match=r"has 1 of 2 numbered shards; 1 is missing: model-00001-of-00002\.safetensors; download them"):
        open_checkpoint(tmp_path)


def test_a_name_that_declares_millions_of_shards_costs_nothing(tmp_path: Path) -> None:
    save_file({"a": A}, tmp_path / "m-000001-of-999999.safetensors")
    with pytest.raises(FormatError, match="has 1 of 999,999 numbered shards; 999,998 are missing"):
        open_checkpoint(tmp_path)


def test_a_tensor_in_two_numbered_shards_is_an_error(tmp_path: Path) -> None:
    numbered(tmp_path, a=B.clone())
    with pytest.raises(FormatError, match="`a` is in two of its numbered shards"):
        open_checkpoint(tmp_path)


def test_of_two_sets_the_one_that_is_all_there_is_read(tmp_path: Path) -> None:
    numbered(tmp_path)
    save_file({"x": A}, tmp_path / "model-00001-of-00003.safetensors")
    assert_agrees(tmp_path, {"a": A, "b": B})
    save_file({"x": A}, tmp_path / "other-00001-of-00001.safetensors")
    with pytest.raises(InputError, match="is a folder with 3 sets of numbered shards"):
        open_checkpoint(tmp_path)


def index(folder: Path, places: dict[str, str]) -> Path:
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return path


STALE = {
    "that leaves out a shard": {"a": "model-00001-of-00002.safetensors"},
    "that leaves out a tensor": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"},
    "that is empty": {},
    "of another number": {"a": "model-00001-of-00003.safetensors", "b": "model-00003-of-00003.safetensors"},
    "with another order": {"a": "model-00002-of-00002.safetensors", "b": "model-00001-of-00002.safetensors"},
    "with another name": {"a": "model-00001-of-00002.safetensors", "d": "model-00002-of-00002.safetensors"},
}


@pytest.mark.parametrize("name", STALE)
@pytest.mark.parametrize("by_folder", [True, False])
def test_an_index_that_is_out_of_date_is_told_and_left_aside(tmp_path: Path, name: str, by_folder: bool) -> None:
    numbered(tmp_path)
    save_file({"b": B, "c": A}, tmp_path / "model-00002-of-00002.safetensors")
    path = index(tmp_path, STALE[name])
    assert_agrees(tmp_path if by_folder else path, {"a": A, "b": B, "c": A})
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.contents.layout.startswith("its index is out of date (")
        assert checkpoint.contents.layout.endswith("); the 2 numbered shards beside it were read without it")


def test_an_index_that_leaves_out_shards_of_a_set_that_is_not_all_there_is_refused(tmp_path: Path) -> None:
    numbered(tmp_path)
    path = index(tmp_path, {"a": "model-00001-of-00003.safetensors"})
    for number in (1, 2):
        (tmp_path / f"model-0000{number}-of-00002.safetensors").rename(tmp_path / f"model-0000{number}-of-00003.safetensors")
    with pytest.raises(FormatError, match=r"doesn't name model-00002-of-00003.safetensors, beside those that it names"):
        open_checkpoint(path)


def test_an_index_without_tensors_is_refused_where_no_whole_set_lies_beside_it(tmp_path: Path) -> None:
    numbered(tmp_path)
    path = index(tmp_path, {})
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    for asked in (path, tmp_path):
        with pytest.raises(FormatError, match="lists no tensors in its `weight_map`; get the index again"):
            open_checkpoint(asked)


def test_shards_of_another_set_are_none_of_an_index(tmp_path: Path) -> None:
    numbered(tmp_path)
    save_file({"x": A}, tmp_path / "other-00001-of-00001.safetensors")
    path = index(tmp_path, {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"})
    assert_agrees(path, {"a": A, "b": B})
    assert_agrees(index(tmp_path, {"a": "model-00001-of-00002.safetensors"}), {"a": A, "b": B})


def test_what_an_index_leaves_out_is_said_by_map_and_diff(tmp_path: Path) -> None:
    numbered(tmp_path)
    index(tmp_path, {"a": "model-00001-of-00002.safetensors"})
    out = tmp_path / "out.safetensors"
    ran = ckpt("map", tmp_path, "-e", "** -> **", "-o", out)
    assert "its index is out of date (doesn't name model-00002-of-00002.safetensors" in ran.err + ran.out
    assert_agrees(out, {"a": A, "b": B})
    assert "note: " + str(tmp_path) + ": its index is out of date" in ckpt("diff", tmp_path, out).out


def test_an_index_whose_own_shard_is_missing_is_an_error(tmp_path: Path) -> None:
    numbered(tmp_path)
    path = index(tmp_path, {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"})
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FormatError, match="1 of its 2 shards are missing"):
        open_checkpoint(path)


@pytest.mark.parametrize("way", ["index", "folder", "numbers"])
def test_a_shard_that_is_being_renamed_in_place_is_refused(tmp_path: Path, way: str) -> None:
    numbered(tmp_path)
    path = tmp_path
    if way != "numbers":
        found = index(tmp_path, {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"})
        path = found if way == "index" else tmp_path
    Path(journal_of(str(tmp_path / "model-00002-of-00002.safetensors"))).write_bytes(b"x")
    with open_checkpoint(tmp_path / "model-00001-of-00002.safetensors") as checkpoint:
        assert list(checkpoint.catalog) == ["a"]
    with pytest.raises(InputError, match="is being renamed in place"):
        open_checkpoint(path)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="tells open files by /proc")
def test_no_shard_stays_open_after_an_error(tmp_path: Path) -> None:
    numbered(tmp_path, a=B.clone())
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(FormatError):
        open_checkpoint(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
