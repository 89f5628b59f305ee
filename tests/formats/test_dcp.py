"""Distributed checkpoints that torch wrote, held against what torch itself makes of them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from ckpt_tool.errors import InputError
from ckpt_tool.formats import Checkpoint, open_checkpoint
from tests.formats.dcp_folders import FOLDERS
from tests.formats.oracles import assert_same_tensor
from tests.running import ckpt


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
