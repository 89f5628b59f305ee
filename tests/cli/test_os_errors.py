"""A process that runs out of memory, whose folder is gone, whose packages are broken: told as what it is, in one line."""

import subprocess
import sys
from random import Random

import pytest
import torch
from running import in_shell

LITTLE_ROOM = """
import resource, sys, ckpt_tool.__main__ as m, ckpt_tool.cli.app
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (40 << 20),) * 2)
m.run()
"""
NO_THREADS = """
import threading, ckpt_tool.__main__ as m
def start(thread): raise RuntimeError("can't start new thread")
threading.Thread.start = start
m.run()
"""


def ckpt_where(program, *arguments, cwd):
    """`ckpt` in a process that a program has made poorer."""
    return subprocess.run([sys.executable, "-c", program, *arguments], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit of a process's memory")
def test_too_little_memory(tmp_path):
    chance = Random(0)
    for name in "ab":
        keys = (f"{chance.random()}.{chance.random()}" for _ in range(60_000))
        (tmp_path / f"{name}.txt").write_text("".join(f"{key}\tF32\t3\n" for key in keys))
    ran = ckpt_where(LITTLE_ROOM, "diff", "a.txt", "b.txt", cwd=tmp_path)
    fact = "there is not enough of it for this; a process may have less than the machine: ulimit -v"
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", f"error: memory: {fact}\n")


@pytest.mark.parametrize("command", ["map ../a.pth ../a.pth -o b.pth", "map ../a.pth ../a.pth -o b --max-shard-size 1MB", "suggest ../a.pth ../a.pth -o r.yaml"])
def test_a_folder_that_is_gone(tmp_path, command):
    torch.save({"a.w": torch.ones(1)}, tmp_path / "a.pth")
    (tmp_path / "gone").mkdir()
    ran = in_shell(f'cd gone && rmdir ../gone && "$0" -m ckpt_tool {command.replace("..", str(tmp_path))}', tmp_path)
    assert ran.status == 2
    assert ran.err.splitlines()[-1] == "error: the folder that this runs in: does not exist any more; cd to another one"


def test_a_package_that_is_broken(tmp_path):
    torch.save({"a.w": torch.ones(1)}, tmp_path / "a.pth")
    (tmp_path / "torch.py").write_text("import libtorch_that_is_nowhere\n")
    ran = in_shell('"$0" -m ckpt_tool map a.pth a.pth --dtype BF16 -o b.pth', tmp_path)
    assert ran.status == 2
    assert ran.err.splitlines()[-1] == "error: a package: can't be imported: No module named 'libtorch_that_is_nowhere'; reinstall it"
    assert not (tmp_path / "b.pth").exists()


def test_no_more_threads(tmp_path):
    torch.save({"a.w": torch.ones(1)}, tmp_path / "a.pth")
    ran = ckpt_where(NO_THREADS, "map", "a.pth", "a.pth", "--dtype", "BF16", "-o", "b.pth", cwd=tmp_path)
    assert ran.returncode == 2
    assert ran.stderr.splitlines()[-1].startswith("error: threads: no more can be started; ")
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]
