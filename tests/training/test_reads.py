"""Reads by several threads: each byte in its place, and no error lost."""

import os
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import ckpt_tool
from ckpt_tool.errors import FormatError
from ckpt_tool.formats.files import SourceFile
from ckpt_tool.training.memory import reads
from ckpt_tool.training.memory.reads import LITTLE, PIECE, Reads


@pytest.mark.parametrize("threads", [1, 4])
def test_each_byte_is_in_its_place(
    tmp_path: Path, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "reading_threads", lambda: threads)
    content = random.Random(1).randbytes(2 * PIECE + LITTLE + 12_345)
    (tmp_path / "content").write_bytes(content)
    sizes = (5, LITTLE - 1, LITTLE, 2 * PIECE + 1)
    memories, offset = [bytearray(size) for size in sizes], 3
    with SourceFile(tmp_path / "content") as file, Reads() as some:
        for memory in memories:
            some.add(file, memoryview(memory), offset)
            offset += len(memory) // 2
    offset = 3
    for memory in memories:
        assert memory == content[offset : offset + len(memory)]
        offset += len(memory) // 2


def test_an_error_in_a_thread_is_raised(tmp_path: Path) -> None:
    (tmp_path / "content").write_bytes(bytes(4 * LITTLE))
    with SourceFile(tmp_path / "content") as file:
        os.truncate(tmp_path / "content", LITTLE)
        with pytest.raises(FormatError, match="cut"):
            read_ones(file, 3)


def read_ones(file: SourceFile, count: int) -> None:
    with Reads() as some:
        for at in range(count):
            some.add(file, memoryview(bytearray(LITTLE)), at * LITTLE)


def model(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(*(nn.Linear(600, 700) for _ in range(24)), nn.BatchNorm1d(7))


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_model_of_many_groups_gets_its_values(tmp_path: Path, ending: str, device: str) -> None:
    source, path = model(0), tmp_path / f"m.{ending}"
    (torch.save if ending == "pth" else save_file)(source.state_dict(), path)
    with torch.device(device):
        target = model(1)
    ckpt_tool.load_into(target, path)
    assert all(
        torch.equal(value, target.state_dict()[key]) for key, value in source.state_dict().items()
    )


def test_a_file_that_is_cut_while_it_is_read_says_what_became_of_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(model(0).state_dict(), tmp_path / "m.pth")
    target = model(1)
    add = Reads.add

    def cut(self: Reads, file: SourceFile, memory: memoryview, offset: int) -> None:
        os.truncate(tmp_path / "m.pth", 5_000_000)
        add(self, file, memory, offset)

    monkeypatch.setattr(Reads, "add", cut)
    with pytest.raises(FormatError, match="cut while being read; what was loaded may be wrong"):
        ckpt_tool.load_into(target, tmp_path / "m.pth")
