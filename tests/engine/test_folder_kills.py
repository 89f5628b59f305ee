"""A writer of a folder that is killed leaves the old checkpoint or the new one, whole, and the next run removes what it left."""

import os
import random
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file
from writer_to_kill import SHARD_BYTES

from ckpt_tool.api import map_checkpoint
from ckpt_tool.engine.durable import folder as atomic_folder
from ckpt_tool.engine.durable import temporary
from ckpt_tool.engine.folders.shards import OWN
from ckpt_tool.errors import OutputError
from tests.engine.test_kills import WRITER, kill_soon, names, steps

OTHER = "tokenizer.json"


def content(folder):
    """The files of a folder with their bytes; None where there is no folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else None


def write(source, out):
    map_checkpoint(str(source), str(source), str(out), force=True, shard_bytes=SHARD_BYTES)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Two checkpoints with other values that make other files: 16 MB in 4, 21 MB in 5. Their paths, and what they are when written."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name, parts in (("a", 16), ("b", 21)):
        save_file({f"w{i}": torch.full((1 << 18,), float(i + parts)) for i in range(parts)}, folder / f"{name}.safetensors")
        write(folder / f"{name}.safetensors", folder / name)
        (folder / name / OTHER).write_text("{}")
    return {str(folder / f"{name}.safetensors"): content(folder / name) for name in "ab"}


@pytest.mark.parametrize("kills", [8, pytest.param(200, marks=pytest.mark.slow)])
def test_kills_at_random_moments(checkpoints, tmp_path, kills):
    chance, out, strays, seen = random.Random(kills), tmp_path / "out", 0, []
    inputs = list(checkpoints)
    write(inputs[0], out)
    (out / OTHER).write_text("{}")
    for _ in range(kills):
        kill_soon([*WRITER, "loop", str(out), *inputs], chance.uniform(0, 0.1))
        seen.append(content(out))
        assert seen[-1] in checkpoints.values()
        strays += len(names(tmp_path)) - 1
        write(inputs[0], out)
        assert names(tmp_path) == ["out"]
    assert kills < 100 or (strays and all(whole in seen for whole in checkpoints.values()))


@pytest.mark.parametrize("before", ["nothing", "a checkpoint", "another file"])
def test_a_kill_before_and_after_every_change_of_the_file_system(tmp_path, before):
    source, there, out = tmp_path / "new.safetensors", tmp_path / "there", tmp_path / "there" / "out"
    save_file({"w": torch.ones(3), "v": torch.ones(SHARD_BYTES // 4)}, source)
    save_file({"w": torch.zeros(9)}, tmp_path / "old.safetensors")
    there.mkdir()

    def put_back():
        for path in out.iterdir() if out.exists() else ():
            path.unlink()
        if before == "nothing":
            out.rmdir() if out.exists() else None
        else:
            out.mkdir(exist_ok=True)
            (out / OTHER).write_text("{}")
        if before == "a checkpoint":
            write(tmp_path / "old.safetensors", out)
        return content(out)

    old = put_back()
    write(source, out)
    new, seen = content(out), []
    put_back()
    for _ in steps(out, source):
        seen.append(content(out))
        assert seen[-1] in (old, new)
        write(source, out)
        assert (content(out), names(there)) == (new, ["out"])
        put_back()
    turn = seen.index(new)
    assert (seen[:turn], seen[turn:]) == ([old] * turn, [new] * (len(seen) - turn))
    assert turn > 20


def writers(sources, out, *options):
    command = [sys.executable, "-m", "ckpt_tool", "map", "-q", "--max-shard-size", str(SHARD_BYTES), *options, "-o", str(out)]
    running = [subprocess.Popen([*command, source, source], stderr=subprocess.PIPE, text=True) for source in sources]
    errors = [process.communicate()[1] for process in running]
    return [process.returncode for process in running], errors


def test_two_writers_of_one_folder_both_end_and_one_of_them_is_there(checkpoints, tmp_path):
    write(next(iter(checkpoints)), tmp_path / "out")
    (tmp_path / "out" / OTHER).write_text("{}")
    assert writers([*checkpoints] * 2, tmp_path / "out", "--force") == ([0] * 4, [""] * 4)
    assert content(tmp_path / "out") in checkpoints.values()
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("there", [None, OTHER])
def test_of_two_writers_without_force_one_is_told(checkpoints, tmp_path, there):
    if there:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / there).write_text("{}")
    statuses, errors = writers([*checkpoints] * 2, tmp_path / "out")
    assert sorted(statuses) == [0, 2, 2, 2]
    assert all("already" in error for error in errors if error)
    (tmp_path / "out" / OTHER).write_text("{}")
    assert content(tmp_path / "out") in checkpoints.values()
    assert names(tmp_path) == ["out"]


def made(path, then=lambda: None, replace=False):
    with atomic_folder.atomic_folder(str(path), 3, OWN, replace) as stage:
        with atomic_folder.new_file(f"{stage}/model.safetensors", 3):
            pass
        then()


def happens_before_the_exchange(monkeypatch, happens):
    real, done = atomic_folder._exchange, []

    def exchange(one, other):
        if not done:
            happens()
        done.append(True)
        return real(one, other)

    monkeypatch.setattr(atomic_folder, "_exchange", exchange)


def test_a_folder_that_is_taken_for_a_stray_before_it_is_opened_is_made_again(tmp_path, monkeypatch):
    real, removed = os.mkdir, []

    def mkdir_and_lose(path, *arguments, **options):
        real(path, *arguments, **options)
        if not removed:
            removed.append(path)
            temporary.remove_strays(str(tmp_path))
            assert not os.path.exists(path)

    monkeypatch.setattr(os, "mkdir", mkdir_and_lose)
    made(tmp_path / "out")
    assert removed
    assert names(tmp_path) == ["out"]
    with pytest.raises(OutputError, match="its folder does not exist"):
        made(tmp_path / "none" / "out")


@pytest.mark.parametrize("moment", ["while it is filled", "at the last moment"])
def test_a_checkpoint_that_appears_meanwhile_is_not_replaced(tmp_path, monkeypatch, moment):
    out = tmp_path / "out"
    out.mkdir()
    (out / OTHER).write_text("{}")
    appear = lambda: (out / "model.safetensors").write_bytes(b"theirs")  # noqa: E731
    if moment == "at the last moment":
        happens_before_the_exchange(monkeypatch, appear)
    with pytest.raises(OutputError, match="out: exists already: it was written by somebody else meanwhile"):
        made(out, then=appear if moment == "while it is filled" else lambda: None)
    assert content(out) == {"model.safetensors": b"theirs", OTHER: b"{}"}
    assert names(tmp_path) == ["out"]


def test_other_files_that_come_or_change_meanwhile_stay(tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / OTHER).write_text("{}")

    def change():
        (out / "README.md").write_text("new")
        (out / "later").write_text("{1}")
        (out / "later").replace(out / OTHER)

    happens_before_the_exchange(monkeypatch, change)
    made(out)
    assert content(out) == {"model.safetensors": bytes(3), OTHER: b"{1}", "README.md": b"new"}
    assert names(tmp_path) == ["out"]


def test_the_folder_that_one_is_in_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="is the folder that this runs in"):
        made(".")
    assert names(tmp_path) == []


def test_a_file_system_that_cannot_exchange_is_told(tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / OTHER).write_text("{}")
    monkeypatch.setattr(atomic_folder, "_exchange", lambda *_: False)
    with pytest.raises(OutputError, match="can't be replaced in one step on this file system; move it away first"):
        made(out)
    assert (content(out), names(tmp_path)) == ({OTHER: b"{}"}, ["out"])
