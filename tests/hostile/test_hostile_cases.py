"""Hostile and broken files are refused with one clear error, odd ones are read, and nothing of any of them runs."""

import random
import resource
import time
from contextlib import suppress
from pathlib import Path

import pytest

from ckpt_tool.errors import FormatError, InputError
from ckpt_tool.formats import open_checkpoint
from tests.formats.oracles import assert_same_tensor
from tests.hostile.broken_files import (
    PAYLOADS,
    W,
    archive,
    attacks,
    bombs,
    must_read,
    must_refuse,
    records,
    tensor_pickle,
)


@pytest.mark.parametrize(("name", "raw"), list(must_refuse()), ids=[name for name, _ in must_refuse()])
def test_broken_files_are_errors_that_name_the_file(tmp_path: Path, name: str, raw: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(raw)
    with pytest.raises(FormatError) as caught:
        open_checkpoint(str(path))
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < 1000 + len(str(path))


@pytest.mark.parametrize(("name", "raw"), list(must_read()), ids=[name for name, _ in must_read()])
def test_odd_files_that_are_valid_are_read(tmp_path: Path, name: str, raw: bytes) -> None:
    (tmp_path / name).write_bytes(raw)
    with open_checkpoint(str(tmp_path / name)) as checkpoint:
        assert list(checkpoint.catalog) == ["w"]
        assert_same_tensor(checkpoint, "w", W)


@pytest.mark.parametrize(("name", "raw"), list(bombs()), ids=[name for name, _ in bombs()])
def test_bombs_are_soon_over(tmp_path: Path, name: str, raw: bytes) -> None:
    (tmp_path / name).write_bytes(raw)
    start, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read_or_refused(tmp_path / name)
    assert time.process_time() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 400_000


def test_nothing_in_any_pickle_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "marker"
    files = tmp_path / "files"
    files.mkdir()
    monkeypatch.chdir(files)
    made = list(attacks(str(marker)))
    for name, raw in made:
        (files / name).write_bytes(raw)
        read_or_refused(files / name)
    assert not marker.exists()
    assert len(list(files.iterdir())) == len(made)


def test_a_payload_is_named_as_a_call(tmp_path: Path) -> None:
    for name, raw in attacks("marker"):
        if name in ("attack-reduce.pth", "attack-stack global.pkl"):
            (tmp_path / name).write_bytes(raw)
            with pytest.raises(FormatError, match=r"holds no tensor, but builtins\.open\(\); unpickling it would call or import builtins\.open"):
                open_checkpoint(str(tmp_path / name))
        if name == "attack-reduce.pth":
            (tmp_path / name).write_bytes(archive(records() | {"data.pkl": b"\x80\x02](" + PAYLOADS["reduce"]("m")[2:-1] + tensor_pickle()[2:-1] + b"e."}))
            with open_checkpoint(str(tmp_path / name)) as checkpoint:
                assert [extra.text for extra in checkpoint.extras if extra.kind == "call"] == ["builtins.open"]


@pytest.mark.parametrize("seed", range(8))
def test_mutated_files_are_read_or_refused_and_nothing_else(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    sources = [raw for _, raw in must_read()] + [raw for name, raw in attacks("marker") if len(raw) < 5000]
    for _ in range(250):
        raw = bytearray(chance.choice(sources))
        for _ in range(chance.choice([1, 1, 2, 5])):
            mutate(raw, chance)
        (tmp_path / "a.pth").write_bytes(raw)
        read_or_refused(tmp_path / "a.pth")


def mutate(raw: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(raw) + 1)
    match chance.randrange(4):
        case 0:
            raw[at : at + 1] = bytes([chance.randrange(256)])
        case 1:
            del raw[at : at + chance.randrange(9)]
        case 2:
            raw[at:at] = raw[at : at + chance.randrange(20)]
        case _:
            raw[at : at + 4] = chance.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\x80"])


def read_or_refused(path: Path) -> None:
    """Anything but a clean reading or an error of ours fails the test."""
    with suppress(InputError), open_checkpoint(str(path)) as checkpoint:
        for key, info in checkpoint.catalog.items():
            if info.nbytes < 1 << 20:
                assert len(checkpoint.raw(key)) == info.nbytes
