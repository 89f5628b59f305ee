"""Distributed checkpoints that torch wrote, held against what torch itself makes of them."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.checkpoint.state_dict_saver import save

import ckpt_tool
from ckpt_tool.errors import InputError
from ckpt_tool.formats import Checkpoint, open_checkpoint
from tests.formats.dcp_folders import FOLDERS, Net
from tests.formats.oracles import assert_same_tensor
from tests.running import ckpt


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not hasattr(torch.cpu.Stream, "record_event"):
        pytest.skip("torch 2.6 can't run sharded modules on the CPU")
    home = tmp_path_factory.mktemp("dcp")
    script = Path(__file__).parent / "dcp_folders.py"
    subprocess.run([sys.executable, "-W", "ignore", str(script), str(home)], check=True, capture_output=True)
    return home


def tensors_in(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of nested dicts and lists by their dotted paths."""
    if isinstance(value, torch.Tensor):
        yield ".".join(path), value
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for name, child in members:
        yield from tensors_in(child, (*path, str(name)))


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_holds_what_torch_makes_of_it(folders: Path, tmp_path: Path, name: str) -> None:
    dcp_to_torch_save(folders / name, tmp_path / "whole.pth")
    expected = dict(tensors_in(torch.load(tmp_path / "whole.pth", weights_only=False)))
    with open_checkpoint(f"{folders / name}#.") as checkpoint:
        given: dict[str, Checkpoint] = {key: side for side in (checkpoint, checkpoint.outside()) for key in side.catalog}
        assert given.keys() == expected.keys()
        for key, tensor in expected.items():
            assert_same_tensor(given[key], key, tensor)
        checkpoint.check(checkpoint.catalog)


def test_the_state_dict_that_is_meant_is_taken_as_in_a_file(folders: Path) -> None:
    with open_checkpoint(folders / "trained-8") as checkpoint:
        assert checkpoint.contents.taken == "model"
        assert [(one.path, one.kind, one.tensors) for one in checkpoint.contents.left_behind] == [("optim", "optimizer", 27), ("step", "values", 0)]
        assert checkpoint.catalog["embed.weight"].shape == (33, 12)
    with open_checkpoint(f"{folders / 'trained-8'}#optim") as optimizer:
        assert optimizer.catalog["state.embed.weight.exp_avg"].shape == (33, 12)
    with pytest.raises(InputError, match=r"no state dict in the file is named `nope`; it has `model`"):
        open_checkpoint(f"{folders / 'trained-8'}#nope")


def test_torchtitans_weights_stand_beside_its_optimizer(folders: Path) -> None:
    with open_checkpoint(folders / "torchtitan-2") as checkpoint:
        assert "embed.weight" in checkpoint.catalog
        assert not [key for key in checkpoint.catalog if "exp_avg" in key]
        assert ("lr_scheduler", "{'last_epoch': 2}") in [(extra.path, extra.text) for extra in checkpoint.extras]


def test_accelerates_optimizer_alone_is_called_what_it_is(folders: Path) -> None:
    with open_checkpoint(folders / "accelerate-optimizer-4") as checkpoint:
        assert checkpoint.contents.layout.startswith("the state of an optimizer")


def test_megatrons_layers_are_one_tensor_and_its_objects_are_listed(folders: Path) -> None:
    with open_checkpoint(folders / "megatron-2") as checkpoint:
        assert checkpoint.catalog["decoder.layers.mlp.linear_fc1.weight"].shape == (4, 6, 5)
        assert sum("/shard_" in extra.path for extra in checkpoint.extras) == 4


def test_a_folder_of_such_folders_names_them(folders: Path, tmp_path: Path) -> None:
    (tmp_path / "pytorch_model_fsdp_0").symlink_to(folders / "accelerate-4")
    (tmp_path / "optimizer_0").symlink_to(folders / "accelerate-optimizer-4")
    with pytest.raises(InputError, match=r"is a folder of distributed checkpoints \(DCP\): optimizer_0, pytorch_model_fsdp_0"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["plain-1", "fsdp-8"])
def test_a_data_file_alone_is_called_what_it_is(folders: Path, name: str) -> None:
    for path in (folders / name).glob("*.distcp"):
        with pytest.raises(InputError, match=r"is a data file of a distributed checkpoint"):
            open_checkpoint(path)


def test_the_metadata_stands_for_its_folder(folders: Path) -> None:
    with open_checkpoint(folders / "fsdp-8" / ".metadata") as one, open_checkpoint(folders / "fsdp-8") as other:
        assert dict(one.catalog) == dict(other.catalog)


@pytest.mark.parametrize("name", ["trained-8", "fsdp-tp-2x4", "grid-2x2x2", "odd-tensors-1"])
def test_it_becomes_safetensors_and_stays_the_same(folders: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / ("hf" if name != "odd-tensors-1" else "a.pth")
    size = ("--max-shard-size", "2kB") if out.name == "hf" else ()
    assert ckpt("map", folders / name, "-e", "** -> **", "-o", out, *size).status == 0
    assert ckpt("diff", folders / name, out, "--values").status == 0
    assert ckpt("verify", folders / name, out, "-e", "** -> **").status == 0


def test_rows_are_copied_from_where_they_lie(folders: Path) -> None:
    """What FSDP cut along the rows is byte ranges of the data files, which the kernel copies."""
    with open_checkpoint(folders / "fsdp-8") as checkpoint:
        extents = checkpoint.extents("embed.weight")
        assert len(extents) == 7  # of 33 rows, 5 each: the eighth process has none
        assert {Path(extent.file.path).suffix for extent in extents} == {".distcp"}
        assert b"".join(extent.read() for extent in extents) == checkpoint.raw("embed.weight")


def test_a_hub_cache_keeps_files_behind_links(folders: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "1f"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted((folders / "fsdp-2").iterdir())):
        shutil.copy(path, blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    with open_checkpoint(snapshot) as checkpoint:
        assert checkpoint.raw("embed.weight")


def test_a_file_that_changes_meanwhile_is_noticed(folders: Path, tmp_path: Path) -> None:
    shutil.copytree(folders / "fsdp-2", tmp_path / "run")
    with open_checkpoint(tmp_path / "run") as checkpoint:
        assert [Path(file.path).name for file in checkpoint.files] == [".metadata", "__0_0.distcp", "__1_0.distcp"]
        os.utime(tmp_path / "run" / "__1_0.distcp", (1, 1))
        assert [file.has_changed() for file in checkpoint.files] == [False, False, True]


def test_data_files_that_nothing_describes_are_told(folders: Path, tmp_path: Path) -> None:
    shutil.copytree(folders / "fsdp-2", tmp_path / "run")
    (tmp_path / "run" / "__7_0.distcp").write_bytes(b"of an earlier run")
    with open_checkpoint(tmp_path / "run") as checkpoint:
        assert "1 data file that `.metadata` does not name: __7_0.distcp" in [extra.text for extra in checkpoint.extras]


def test_one_of_two_checkpoints_in_a_folder_is_not_guessed(folders: Path, tmp_path: Path) -> None:
    shutil.copytree(folders / "fsdp-2", tmp_path / "run")
    save_file({"w": torch.ones(2)}, tmp_path / "run" / "model.safetensors")
    with pytest.raises(InputError, match=r"is a folder with 2 checkpoints: model.safetensors, .metadata; name one of them"):
        open_checkpoint(tmp_path / "run")
    with open_checkpoint(tmp_path / "run" / ".metadata") as checkpoint:
        assert "embed.weight" in checkpoint.catalog


@pytest.mark.parametrize("name", ["trained-8", "grid-2x2", "nested-4"])
def test_it_lies_behind_an_address_as_well(folders: Path, name: str) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    for path in (folders / name).iterdir():
        memory.pipe(f"/{name}/{path.name}", path.read_bytes())
    with open_checkpoint(f"memory://{name}") as there, open_checkpoint(folders / name) as here:
        assert dict(there.catalog) == dict(here.catalog)
        for key in here.catalog:
            assert there.raw(key) == here.raw(key)
    memory.rm(f"/{name}", recursive=True)


def test_opening_needs_neither_torch_nor_numpy(folders: Path) -> None:
    code = "import sys; from ckpt_tool.formats import open_checkpoint; open_checkpoint(sys.argv[1]); print({'torch', 'numpy', 'pickle'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code, str(folders / "trained-8")], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


def test_rows_of_a_tensor_are_read_alone(folders: Path) -> None:
    with ckpt_tool.open(folders / "grid-2x2") as checkpoint:
        for key in ("cut", "same_axis", "whole"):
            whole = checkpoint[key].read()
            assert torch.equal(checkpoint[key][1:3], whole[1:3])


def test_it_fills_a_live_module(folders: Path, tmp_path: Path) -> None:
    model = Net()
    ckpt_tool.load_into(model, folders / "fsdp-tp-2x4")
    dcp_to_torch_save(folders / "fsdp-tp-2x4", tmp_path / "whole.pth")
    for key, tensor in torch.load(tmp_path / "whole.pth")["model"].items():
        assert torch.equal(model.state_dict()[key], tensor)


@pytest.mark.filterwarnings("ignore:torch.distributed is")
def test_an_object_with_tensors_is_listed_unread(tmp_path: Path) -> None:
    save({"model": {"w": torch.ones(3)}, "odd": SimpleNamespace(w=torch.ones(3))}, checkpoint_id=tmp_path / "run")
    with open_checkpoint(tmp_path / "run") as checkpoint:
        (text,) = [extra.text for extra in checkpoint.extras if extra.path == "odd"]
    assert re.fullmatch(r"\(object, \d,\d{3} bytes, not read\)", text)
