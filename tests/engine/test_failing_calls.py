"""Each call of the system fails in turn, as where a disk or a network dies, or somebody presses Ctrl-C: nothing is lost.

What is left is the old state or the new one, at most with temporary files, which the next run removes.
"""

import errno
import fcntl
import os
import shutil
import sys
from functools import partial

import pytest
import torch
from safetensors.torch import save_file

import ckpt_tool
from ckpt_tool.__main__ import main

CALLS = (
    "chmod", "close", "copy_file_range", "fchmod", "fstat", "fsync", "ftruncate", "link", "listdir", "lstat", "mkdir", "open",
    "posix_fallocate", "pread", "preadv", "pwrite", "rename", "replace", "rmdir", "scandir", "stat", "unlink", "write",
)  # fmt: skip
RENAME = ("-e", "a.** -> b.**")
SHARDED = ("map", "a.pth", *RENAME, "-o", "out", "--max-shard-size", "1500B")
COMMANDS = {
    "show": ("show", "a.pth"),
    "digests": ("show", "a.safetensors", "--digests"),
    "diff": ("diff", "a.pth", "a.safetensors", "--values"),
    "check": ("check", "r.yaml", "a.pth", "--invert", "-o", "inverse.yaml"),
    "suggest": ("suggest", "a.pth", "t.pth", "-o", "drafted.yaml"),
    "verify": ("verify", "a.safetensors", "a.pth", "-e", "** -> **"),
    "rename": ("map", "a.pth", *RENAME, "-o", "o.safetensors"),
    "cast": ("map", "index", "t.pth", "--keep", "h", "--dtype", "BF16", "-o", "o.pth", "--checksum"),
    "force": ("map", "a.safetensors", "t.pth", "--keep", "h", "-o", "o.pth", "--force"),
    "shards": SHARDED,
    "shards by force": (*SHARDED, "--force"),
    "distributed": ("map", "d", *RENAME, "-o", "o.safetensors"),
    "to distributed": ("map", "a.pth", *RENAME, "-o", "d", "--to", "dcp", "--force"),
    "header in place": ("map", "a.safetensors", "--in-place", "-e", "a.** -> b.**"),
    "pickle in place": ("map", "a.pth", "--in-place", "-e", "a.** -> bbbbb.**"),
}


close = os.close


class Failing:
    """Counts the calls of the system, and raises `error` instead of the one whose number is `at`."""

    def __init__(self, monkeypatch, error) -> None:
        self.count, self.at, self.error = 0, 0, error
        for name in filter(partial(hasattr, os), CALLS):
            monkeypatch.setattr(os, name, self.wrapped(getattr(os, name)))
        monkeypatch.setattr(fcntl, "flock", self.wrapped(fcntl.flock))

    def wrapped(self, call):
        def run(*arguments, **options):
            self.count += 1
            if self.count == self.at:
                if call is close:
                    close(*arguments)  # as the kernel does, whatever it says then
                raise self.error
            return call(*arguments, **options)

        return run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    folder = tmp_path / "work"
    folder.mkdir()
    state = {f"a.{i}.w": torch.randn(50, 7) for i in range(4)}
    torch.save(state, folder / "a.pth")
    save_file(state, folder / "a.safetensors")
    torch.save({**{key: torch.zeros(50, 7) for key in state}, "h": torch.randn(3)}, folder / "t.pth")
    torch.save({"old": torch.randn(3)}, folder / "o.pth")
    (folder / "index").mkdir()
    save_file(state, folder / "index" / "m.safetensors")
    names = ", ".join(f'"{key}": "m.safetensors"' for key in state)
    (folder / "index" / "model.safetensors.index.json").write_text(f'{{"weight_map": {{{names}}}}}')
    ckpt_tool.map(state, None, folder / "d", rules="** -> **", to="dcp")
    (folder / "r.yaml").write_text("rules:\n  - a.** -> b.**\n")
    monkeypatch.chdir(folder)
    return folder


def run(arguments, monkeypatch, capsys):
    """The exit status and what stands on stderr, in this process: calls of another one can't be made to fail."""
    monkeypatch.setattr(sys, "argv", ["ckpt", *arguments])
    status = 0
    try:
        main()
    except SystemExit as end:
        status = end.code or 0
    return status, capsys.readouterr().err


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def put_back(folder, saved):
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, raw in saved.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(raw)


ERRORS = {"failed": (OSError(errno.EIO, os.strerror(errno.EIO)), 2), "interrupted": (KeyboardInterrupt(), 130)}


@pytest.mark.parametrize("ending", ERRORS)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_call_of_the_system_that_fails_or_is_interrupted(name, ending, folder, monkeypatch, capsys):
    command, (error, trouble) = COMMANDS[name], ERRORS[ending]
    if "--force" not in command:
        (folder / "o.pth").unlink()
    elif "out" in command:
        run([each for each in command if each != "--force"], monkeypatch, capsys)
    before = contents(folder)
    assert run(command, monkeypatch, capsys)[0] in (0, 1)
    after = contents(folder)
    number, failing = 0, Failing(monkeypatch, error)
    while True:
        number += 1
        put_back(folder, before)
        failing.count, failing.at = 0, number
        status, printed = run(command, monkeypatch, capsys)
        failing.at = 0
        if failing.count < number:
            break
        assert "internal error" not in printed
        assert sum(line.startswith("error") for line in printed.splitlines()) == (status == 2)
        assert status in (0, 1, trouble)
        left = {name: raw for name, raw in contents(folder).items() if not name.partition("/")[0].endswith((".ckpt-tmp", ".ckpt-journal"))}
        assert left in (before, after)
        assert status == trouble or left == after
        if status == trouble and left == before:
            run(command, monkeypatch, capsys)
            assert contents(folder) == after
    assert number > 9


@pytest.mark.parametrize("name", COMMANDS)
def test_reads_and_writes_in_small_pieces(name, folder, monkeypatch, capsys):
    """The system may do less than it is asked for, as it does beyond 2 GB."""
    if "--force" not in COMMANDS[name]:
        (folder / "o.pth").unlink()
    before = contents(folder)
    status, _ = run(COMMANDS[name], monkeypatch, capsys)
    after = contents(folder)
    put_back(folder, before)
    pread, preadv, pwrite, copied = os.pread, os.preadv, os.pwrite, getattr(os, "copy_file_range", None)
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: pread(fd, min(length, 7), offset))
    monkeypatch.setattr(os, "preadv", lambda fd, buffers, offset: preadv(fd, [buffers[0][:7]], offset))
    monkeypatch.setattr(os, "pwrite", lambda fd, content, offset: pwrite(fd, memoryview(content)[:7], offset))
    if copied:
        monkeypatch.setattr(os, "copy_file_range", lambda source, fd, length, *places: copied(source, fd, min(length, 7), *places))
    assert run(COMMANDS[name], monkeypatch, capsys)[0] == status
    assert contents(folder) == after
