"""A writer that is killed leaves the old file or the new one, whole, and the next run removes what it left lying about."""

import fcntl
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ckpt_tool.api import map_checkpoint
from ckpt_tool.engine.copying import write_at
from ckpt_tool.engine.durable import temporary
from ckpt_tool.engine.durable.file import atomic_output

WRITER = [sys.executable, str(Path(__file__).parent / "writer_to_kill.py")]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Two checkpoints of 16 MB with other values and other sizes, and what they are when they have been written."""
    folder = tmp_path_factory.mktemp("sources")
    for name, parts in (("a", 16), ("b", 17)):
        source = str(folder / f"{name}.safetensors")
        save_file({f"w{i}": torch.full((1 << 18,), float(i + parts)) for i in range(parts)}, source)
        (folder / name).mkdir()
        map_checkpoint(source, source, str(folder / name / "out.pth"))
    return folder


def wholes(sources):
    return {(sources / name / "out.pth").read_bytes() for name in "ab"}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("kills", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_kills_at_random_moments(sources, tmp_path, kills):
    chance = random.Random(kills)
    out, strays, changed = tmp_path / "out.pth", 0, set()
    whole, inputs = wholes(sources), [str(sources / f"{name}.safetensors") for name in "ab"]
    map_checkpoint(inputs[0], inputs[0], str(out))
    for _ in range(kills):
        kill_soon([*WRITER, "loop", str(out), *inputs], chance.uniform(0, 0.1))
        assert out.read_bytes() in whole
        changed.add(out.read_bytes())
        strays += len(names(tmp_path)) - 1
        map_checkpoint(inputs[0], inputs[0], str(out), force=True)
        assert names(tmp_path) == ["out.pth"]
    assert kills < 100 or (strays and len(changed) == 2)


def kill_soon(command, delay):
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(delay)
        process.kill()
    assert process.returncode == -signal.SIGKILL


def steps(out, source):
    """Writes `source` to `out` again and again, killed one change of the file system later each time; says after each how it ended."""
    command = [*WRITER, "steps", str(out), str(source)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for step in itertools.count(1):
            process.stdin.write(f"{step}\n")
            process.stdin.flush()
            status = int(process.stdout.readline())
            assert status in (0, -signal.SIGKILL)
            yield status == 0
            if status == 0:
                break


def test_a_kill_before_and_after_every_change_of_the_file_system(sources, tmp_path):
    out, source = tmp_path / "out.safetensors", sources / "small.safetensors"
    save_file({"w": torch.ones(3), "v": torch.ones(2)}, source, {"format": "pt"})
    save_file({"w": torch.zeros(9)}, sources / "old.safetensors")
    old, new, seen = (sources / "old.safetensors").read_bytes(), source.read_bytes(), []
    out.write_bytes(old)
    for _ in steps(out, source):
        seen.append(out.read_bytes())
        assert seen[-1] in (old, new)
        map_checkpoint(str(source), str(source), str(out), force=True)
        assert names(tmp_path) == ["out.safetensors"]
        out.write_bytes(old)
    turn = seen.index(new)
    assert (seen[:turn], seen[turn:]) == ([old] * turn, [new] * (len(seen) - turn))
    assert turn > 10


def stray(folder, name="out.pth", host=None):
    path = folder / f".{name}.{host or temporary._host()}.1-0123abcd.ckpt-tmp"
    path.write_bytes(b"half a file")
    return path


def write(path, then=lambda: None):
    with atomic_output(str(path), 3, True) as fd:
        write_at(fd, b"new", 0)
        then()


def test_strays_of_every_output_go_though_their_process_number_is_in_use(tmp_path):
    stray(tmp_path)
    stray(tmp_path, "x" * 100).chmod(0o400)
    write(tmp_path / "out")
    assert names(tmp_path) == ["out"]


def test_a_file_that_is_being_written_stays(tmp_path):
    path = stray(tmp_path)
    with path.open("rb+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        write(tmp_path / "out")
        assert names(tmp_path) == sorted([path.name, "out"])
    write(tmp_path / "out")
    assert names(tmp_path) == ["out"]


def test_a_file_of_another_machine_stays_for_a_day(tmp_path):
    path = stray(tmp_path, host="elsewhere-7")
    write(tmp_path / "out")
    assert path.exists()
    os.utime(path, (0, time.time() - temporary.FORGOTTEN - 1))
    write(tmp_path / "out")
    assert names(tmp_path) == ["out"]


def test_only_files_of_our_own_naming_are_removed(tmp_path):
    kept = ["a.ckpt-tmp", ".a.ckpt-tmp", ".a.host.1-xyz.ckpt-tmp", ".a.1-0123abcd.ckpt-tmp.bak"]
    for name in kept:
        (tmp_path / name).touch()
    (tmp_path / ".folder.ckpt-tmp").mkdir()
    (tmp_path / f".link.{temporary._host()}.1-0123abcd.ckpt-tmp").symlink_to("a.ckpt-tmp")
    os.mkfifo(tmp_path / f".pipe.{temporary._host()}.1-0123abcd.ckpt-tmp")
    before = names(tmp_path)
    write(tmp_path / "out")
    assert names(tmp_path) == sorted([*before, "out"])


def test_a_file_that_is_taken_for_a_stray_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    real, removed = os.open, []

    def open_and_lose(path, *arguments, **options):
        fd = real(path, *arguments, **options)
        if not removed:
            removed.append(path)
            temporary.remove_strays(str(tmp_path))
        return fd

    monkeypatch.setattr(os, "open", open_and_lose)
    write(tmp_path / "out")
    assert not Path(removed[0]).exists()
    assert names(tmp_path) == ["out"]


def test_two_writers_of_one_output_both_end_and_one_of_them_is_there(sources, tmp_path):
    inputs = [str(sources / f"{name}.safetensors") for name in "ab"]
    out = tmp_path / "out.pth"
    command = [sys.executable, "-m", "ckpt_tool", "map", "-q", "--force", "-o", str(out)]
    writers = [subprocess.Popen([*command, source, source], stdout=subprocess.DEVNULL) for source in inputs * 2]
    assert [writer.wait() for writer in writers] == [0] * 4
    assert out.read_bytes() in wholes(sources)
    assert names(tmp_path) == ["out.pth"]


def test_of_two_writers_without_force_one_is_told(sources, tmp_path):
    inputs = [str(sources / f"{name}.safetensors") for name in "ab"]
    command = [sys.executable, "-m", "ckpt_tool", "map", "-q", "-o", str(tmp_path / "out.pth")]
    writers = [subprocess.Popen([*command, source, source], stderr=subprocess.PIPE, text=True) for source in inputs * 2]
    errors = [writer.communicate()[1] for writer in writers]
    assert sorted(writer.returncode for writer in writers) == [0, 2, 2, 2]
    assert all("out.pth: exists already" in error for error in errors if error)
    assert (tmp_path / "out.pth").read_bytes() in wholes(sources)
    assert names(tmp_path) == ["out.pth"]
