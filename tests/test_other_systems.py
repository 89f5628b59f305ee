"""What Linux has and macOS has not: nothing may need it."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).parent.parent
LINUX_ALONE = ["sched_getaffinity", "copy_file_range", "posix_fallocate", "posix_fadvise", "fdatasync", "memfd_create", "splice", "RWF_NOWAIT", "O_TMPFILE", "O_NOATIME", "O_PATH"]
LINUX_ALONE += ["preadv"]  # macOS has it from 11 on
WITHOUT = f"""
import ctypes, mmap, os, sys
for name in {LINUX_ALONE}:
    if hasattr(os, name):
        delattr(os, name)
for name in [name for name in vars(mmap) if name.startswith(("MADV_HUGE", "MAP_POPULATE"))]:
    delattr(mmap, name)
class System(ctypes.CDLL):
    def __getattr__(self, name):
        if name in ("fallocate", "syncfs"):  # renameat2 stays: macOS has renamex_np in its place
            raise AttributeError(name)
        return super().__getattr__(name)
ctypes.CDLL = System
sys.argv[0] = "ckpt"
from ckpt_tool.__main__ import run
run()
"""


def test_names_that_macos_lacks_are_not_used_unasked(tmp_path):
    pytest.importorskip("typer._click", reason="types of older libraries are others")
    # What other packages are doesn't matter for this, and would take a minute.
    alone = ["--config-file", "", "--follow-imports", "skip", "--ignore-missing-imports", "--disable-error-code", "union-attr", "--disable-error-code", "var-annotated"]
    command = [sys.executable, "-m", "mypy", "--platform", "darwin", "--cache-dir", str(tmp_path), *alone, "ckpt_tool"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("output", ["out.pth", "out.safetensors", "out"])
@pytest.mark.parametrize("jobs", [[], ["--jobs", "3"]])
def test_a_checkpoint_is_mapped_without_the_calls_of_linux(tmp_path, output, jobs):
    tensors = {f"{i}.weight": torch.randn(100, 100) for i in range(9)}
    torch.save(tensors, tmp_path / "in.pth")
    size = ["--max-shard-size", "100KB"] if output == "out" else []
    command = [sys.executable, "-c", WITHOUT, "map", "in.pth", "-e", "** -> net.**", "-o", output, *size, *jobs]
    for force in ([], ["--force"]):
        ran = subprocess.run([*command, *force], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        shards = sorted((tmp_path / "out").glob("*.safetensors")) if output == "out" else [tmp_path / output]
        written = [torch.load(shard) if shard.suffix == ".pth" else load_file(shard) for shard in shards]
        found = {key: tensor for each in written for key, tensor in each.items()}
        assert found.keys() == {f"net.{key}" for key in tensors}
        assert all(torch.equal(found[f"net.{key}"], tensor) for key, tensor in tensors.items())


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("show in.pth --health", 0), ("show in.pth --keys --digests", 0), ("diff in.pth in.safetensors --values", 0), ("plan in.pth in.safetensors", 0),
        ("map in.pth -e '** -> **: {cast: F16}' -o cast.safetensors", 0), ("verify in.safetensors in.pth -e '** -> **'", 0),
        ("map in.pth -e '** -> net.**' --in-place", 0), ("map in.safetensors -e '** -> a_longer_prefix.**' --in-place", 2),
        ("map in.pth -e '** -> net.**' -o out -f --max-shard-size 100KB", 0), ("show in.pth --html page.html", 0), ("scan in.pth", 0),
    ],
)  # fmt: skip
def test_commands_run_without_the_calls_of_linux(tmp_path, line, status):
    tensors = {f"{i}.weight": torch.randn(100, 100) for i in range(9)}
    torch.save(tensors, tmp_path / "in.pth")
    save_file(tensors, tmp_path / "in.safetensors")
    (tmp_path / "out").mkdir()
    ran = subprocess.run([sys.executable, "-c", WITHOUT, *shlex.split(line)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ran.returncode, "Traceback" in ran.stderr) == (status, False), ran.stdout + ran.stderr
