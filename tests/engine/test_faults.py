"""Full disks, limits, sources that change or vanish while they are read: what was there stays, and the error says what happened."""

import json
import os
import resource
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from running import ckpt
from safetensors.torch import load_file, save_file

from ckpt_tool.api import map_checkpoint
from ckpt_tool.engine import moving
from ckpt_tool.errors import CkptError, FormatError

NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]
MB = 1 << 20


def can_mount():
    try:
        command = [*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def small_and_large(tmp_path):
    """Checkpoints of 1 and 8 MB."""
    for name, size in (("small", MB), ("large", 8 * MB)):
        save_file({f"w{i}": torch.full((size // 64,), float(i)) for i in range(16)}, tmp_path / f"{name}.safetensors")
    return tmp_path / "small.safetensors", tmp_path / "large.safetensors"


@pytest.mark.skipif(not can_mount(), reason="no file system may be mounted here")
@pytest.mark.parametrize(
    ("name", "early", "fact"),
    [
        ("out.safetensors", "yes", "/out.safetensors: needs 8,389,784 bytes, and * are free; nothing was written"),
        ("out.safetensors", "no", "/out.safetensors: no room for 8,389,784 bytes: no space left on device"),
        ("out", "yes", "/out: needs 8,39*,*** bytes, and * are free; nothing was written"),
        ("out", "no", "/out: no room for 8,39*,*** bytes: no space left on device"),
        ("out.pth", "in place", "/out.pth: no room for *,*** bytes: no space left on device"),
    ],
)
def test_a_full_disk_leaves_what_was_there(small_and_large, tmp_path, name, early, fact):
    (tmp_path / "disk").mkdir()
    script = [sys.executable, str(Path(__file__).parent / "on_a_small_disk.py")]
    ran = subprocess.run([*NAMESPACE, *script, tmp_path / "disk", *small_and_large, name, early], capture_output=True, text=True, check=False)
    assert ran.stderr == ""
    happened = json.loads(ran.stdout)
    assert fnmatch(happened["error"], fact)
    assert (happened["is_old"], happened["names"]) == (True, [name])


def test_a_limit_of_file_sizes_leaves_what_was_there(small_and_large, tmp_path):
    small, large = small_and_large
    out = tmp_path / "out.safetensors"
    out.write_bytes(small.read_bytes())
    ran = subprocess.run(
        [sys.executable, "-m", "ckpt_tool", "map", large, large, "--force", "-o", out],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4 * MB, 4 * MB)),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)
    assert "8,389,784 bytes are more than a file may have here" in ran.stderr
    assert out.read_bytes() == small.read_bytes()
    assert names(tmp_path) == ["large.safetensors", "out.safetensors", "small.safetensors"]


def mapped_while(monkeypatch, happens, source, out):
    """Maps, and lets `happens` happen when half of the tensors are written."""
    real, moved = moving.copy_run, []

    def move(*arguments):
        moved.append(arguments)
        if len(moved) == 8:
            happens()
        return real(*arguments)

    monkeypatch.setattr(moving, "copy_run", move)
    monkeypatch.setattr(moving, "BATCH", 1)
    map_checkpoint(str(source), str(source), str(out))


CHANGES = {
    "cut": (lambda path: os.truncate(path, 2 * MB), "large.safetensors: was cut while being read; somebody else is writing to it"),
    "written to": (
        lambda path: path.open("r+b").write(b"x" * 9),
        "large.safetensors: changed while it was read; nothing was written; try again",
    ),
    "appended to": (
        lambda path: path.open("ab").write(b"x"),
        "large.safetensors: changed while it was read; nothing was written; try again",
    ),
}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_source_that_changes_while_it_is_read_is_an_error(small_and_large, tmp_path, monkeypatch, name, suffix):
    change, fact = CHANGES[name]
    with pytest.raises(FormatError) as caught:
        mapped_while(monkeypatch, lambda: change(small_and_large[1]), small_and_large[1], tmp_path / f"out{suffix}")
    assert str(caught.value) == f"{tmp_path}/{fact}"
    assert names(tmp_path) == ["large.safetensors", "small.safetensors"]


@pytest.mark.parametrize("happens", ["unlinked", "replaced"])
def test_a_source_whose_name_goes_away_is_read_to_its_end(small_and_large, tmp_path, monkeypatch, happens):
    small, large = small_and_large
    expected = load_file(large)
    change = large.unlink if happens == "unlinked" else lambda: small.replace(large)
    mapped_while(monkeypatch, change, large, tmp_path / "out.safetensors")
    written = load_file(tmp_path / "out.safetensors")
    assert written.keys() == expected.keys()
    assert all(torch.equal(written[key], expected[key]) for key in expected)


def shards(folder, count):
    folder.mkdir()
    places = {f"w{i}": f"model-{i:05}.safetensors" for i in range(count)}
    for key, name in places.items():
        save_file({key: torch.full((4,), 1.0)}, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


@pytest.mark.parametrize("happens", ["vanishes", "is another one"])
def test_a_shard_that_was_closed_meanwhile_must_be_the_same_when_it_is_read(tmp_path, monkeypatch, happens):
    monkeypatch.setattr("ckpt_tool.formats.sharded.shards.OPEN_SHARDS", 2)
    shards(tmp_path / "model", 10)
    last = tmp_path / "model" / "model-00009.safetensors"

    def change():
        last.unlink()
        if happens != "vanishes":
            save_file({"w9": torch.full((4,), 2.0)}, last)

    with pytest.raises(CkptError, match=r"model-00009.safetensors: (no such file|was changed while it was being read)"):
        mapped_while(monkeypatch, change, tmp_path / "model", tmp_path / "out.pth")
    assert names(tmp_path) == ["model"]


def test_a_folder_that_goes_away_is_named(small_and_large, tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()

    def remove_folder():
        for path in (tmp_path / "there").iterdir():
            path.unlink()
        (tmp_path / "there").rmdir()

    with pytest.raises(CkptError, match=r"there/out\.pth: its folder"):
        mapped_while(monkeypatch, remove_folder, small_and_large[1], tmp_path / "there" / "out.pth")


@pytest.mark.parametrize(("signal", "status"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_a_writer_that_is_stopped_cleans_up(small_and_large, tmp_path, signal, status):
    # A shell in the background or `nohup` may have it ignored.
    usual = "default_int_handler" if signal == "SIGINT" else "SIG_DFL"
    code = (
        "import os, signal, ckpt_tool.__main__\nfrom ckpt_tool.engine import moving\n"
        f"signal.signal(signal.{signal}, signal.{usual})\n"
        f"moving.copy_run = lambda *_: os.kill(os.getpid(), signal.{signal})\nckpt_tool.__main__.main()"
    )
    large = small_and_large[1]
    command = [sys.executable, "-c", code, "map", large, large, "-o", tmp_path / "out.safetensors"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (status, "")
    assert names(tmp_path) == ["large.safetensors", "small.safetensors"]


def test_an_output_that_is_an_input_under_another_name_is_refused(small_and_large, tmp_path):
    small, _ = small_and_large
    os.link(small, tmp_path / "twin.safetensors")
    (tmp_path / "link.safetensors").symlink_to(small)
    for name in ("twin", "link"):
        ran = ckpt("map", small, small, "--force", "-o", tmp_path / f"{name}.safetensors")
        assert (ran.status, "is one of the inputs" in ran.err) == (2, True)
