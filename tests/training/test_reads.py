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


@pytest.mark.parametrize("seed", range(4))
def test_tiny_reads_of_neighbours_are_one_call_and_each_byte_is_in_its_place(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shuffled = random.Random(seed)
    content = shuffled.randbytes(300_000)
    (tmp_path / "content").write_bytes(content)
    wanted, offset = [], shuffled.randrange(3)
    while offset < len(content) - 20_000:
        wanted.append((offset, shuffled.choice((1, 7, 64, 300))))
        offset += shuffled.choice((0, 7, 64, 300, 5000))  # over each other, beside each other, apart
    shuffled.shuffle(wanted)
    memories = [bytearray(size) for _, size in wanted]
    calls, own = [], os.preadv
    monkeypatch.setattr(os, "preadv", lambda *arguments: calls.append(1) or own(*arguments))
    with SourceFile(tmp_path / "content") as file, Reads() as some:
        for memory, (place, _) in zip(memories, wanted, strict=True):
            some.add(file, memoryview(memory), place)
    assert all(memory == content[place : place + size] for memory, (place, size) in zip(memories, wanted, strict=True))
    assert len(calls) < len(wanted)


def test_tiny_reads_of_a_file_that_was_cut_are_refused(tmp_path: Path) -> None:
    (tmp_path / "content").write_bytes(bytes(10_000))
    with SourceFile(tmp_path / "content") as file:
        os.truncate(tmp_path / "content", 150)
        with pytest.raises(FormatError, match="cut"):
            read_ones(file, 4, 50)


def test_an_error_in_a_thread_is_raised(tmp_path: Path) -> None:
    (tmp_path / "content").write_bytes(bytes(4 * LITTLE))
    with SourceFile(tmp_path / "content") as file:
        os.truncate(tmp_path / "content", LITTLE)
        with pytest.raises(FormatError, match="cut"):
            read_ones(file, 3)


def read_ones(file: SourceFile, count: int, size: int = LITTLE) -> None:
    with Reads() as some:
        for at in range(count):
            some.add(file, memoryview(bytearray(size)), at * size)


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
