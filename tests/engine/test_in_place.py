"""`map --in-place`: new names in the file itself; torch and safetensors read it, and a kill at any step loses nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from running import ckpt
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ckpt_tool.engine.in_place import journal
from ckpt_tool.formats.sharded.journal import journal_of

KILLED = Path(__file__).parent / "renamer_to_kill.py"


def state():
    return {f"layer{i}.{leaf}": torch.randn(33, 7 + i) for i in range(9) for leaf in ("weight", "bias")}


def save(path, tensors):
    if path.suffix == ".safetensors":
        save_file(tensors, path, metadata={"note": "mine"})
    else:
        torch.save(tensors, path)


def load(path):
    return load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)


def has(path, tensors, prefix=""):
    loaded = load(path)
    return list(loaded) == [prefix + key for key in tensors] and all(torch.equal(loaded[prefix + key], tensors[key]) for key in tensors)


@pytest.fixture(params=[".pth", ".safetensors"])
def file(request, tmp_path):
    tensors = dict(sorted(state().items()))
    save(tmp_path / f"a{request.param}", tensors)
    return tmp_path / f"a{request.param}", tensors


def test_as_many_are_renamed_as_have_other_names(file):
    path, tensors = file
    count = sum(key.startswith("layer3.") for key in tensors)
    ran = ckpt("map", path.name, "--in-place", "-e", "layer3.** -> net.**", "-e", "** -> **", cwd=path.parent)
    assert (ran.status, ran.out) == (0, f"renamed {count} of 18 tensors in {path.name}, in place\n"), ran.err


@pytest.mark.parametrize("prefix", ["x.", "a.very.long.prefix." * 30])
def test_tensors_have_new_names_and_the_same_bytes(file, prefix):
    path, tensors = file
    ran = ckpt("map", path.name, "--in-place", "-e", f"** -> {prefix}**", cwd=path.parent)
    assert (ran.status, ran.out) == (0, f"renamed 18 tensors in {path.name}, in place\n"), ran.err
    assert has(path, tensors, prefix)
    assert os.listdir(path.parent) == [path.name]
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as opened:
            assert opened.metadata() == {"note": "mine"}
    else:
        assert torch.equal(torch.load(path, mmap=True, weights_only=True)[f"{prefix}layer3.bias"], tensors["layer3.bias"])
    ran = ckpt("map", path.name, "--in-place", "-e", f"{prefix}** -> **", cwd=path.parent)
    assert ran.status == 0
    assert has(path, tensors)


def test_a_size_that_does_not_matter(tmp_path):
    save_file({"a": torch.zeros(1 << 28, dtype=torch.uint8)}, tmp_path / "a.safetensors")
    before = os.stat(tmp_path / "a.safetensors").st_blocks
    assert ckpt("map", "a.safetensors", "--in-place", "-e", f"a -> {'b' * 5000}", cwd=tmp_path).status == 0
    assert os.stat(tmp_path / "a.safetensors").st_blocks - before <= 32


def test_modules_keep_their_versions(tmp_path):
    net = torch.nn.Sequential(torch.nn.BatchNorm2d(3))
    torch.save(net.state_dict(), tmp_path / "a.pth")
    assert ckpt("map", "a.pth", "--in-place", "-e", "0.* -> net.norm.*", cwd=tmp_path).status == 0
    assert torch.load(tmp_path / "a.pth")._metadata["net.norm"] == {"version": 2}


def test_tied_tensors_stay_tied(tmp_path):
    tensor = torch.randn(4, 4)
    torch.save({"a": tensor, "b": tensor}, tmp_path / "a.pth")
    assert ckpt("map", "a.pth", "--in-place", "-e", "* -> net.*", cwd=tmp_path).status == 0
    loaded = torch.load(tmp_path / "a.pth")
    assert loaded["net.a"].data_ptr() == loaded["net.b"].data_ptr()


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (("-e", "a -> x", "--drop", "b"), "in place tensors are only renamed, and `b` is dropped; write a new file with -o"),
        (("-e", "a -> x: transpose", "-e", "b -> y"), "in place tensors are only renamed, and `x` is computed; write a new file with -o"),
        (("-e", "a -> {x,y}: copy", "-e", "b -> z"), "in place tensors are only renamed, and `a` is copied; write a new file with -o"),
        (("-e", "* -> x.*", "-o", "b.pth"), "writes no other file; leave out -o, --to and --max-shard-size"),
    ],
)
def test_what_is_more_than_renaming_is_refused(tmp_path, arguments, fact):
    torch.save({"a": torch.randn(3, 3), "b": torch.randn(2)}, tmp_path / "a.pth")
    before = (tmp_path / "a.pth").read_bytes()
    ran = ckpt("map", "a.pth", "--in-place", *arguments, cwd=tmp_path)
    assert (ran.status, ran.err.rstrip().split(": ", 2)[2]) == (2, fact)
    assert (tmp_path / "a.pth").read_bytes() == before


def test_what_would_be_lost_is_refused(tmp_path):
    whole = torch.randn(8, 8)
    cases = {
        "more.pth": ({"model": torch.nn.Linear(1, 1), "epoch": 3}, "holds more than one state dict's tensors, and `what else the file holds` would be lost"),
        "view.pth": ({"a": whole[2:4]}, "`a` is a view of a larger storage"),
    }
    for name, (content, fact) in cases.items():
        torch.save(content, tmp_path / name)
        ran = ckpt("map", name, "--in-place", "-e", "* -> x.*", cwd=tmp_path)
        assert (ran.status, fact in ran.err) == (2, True), ran.err
    torch.save({"a": torch.ones(1)}, tmp_path / "linked.pth")
    os.link(tmp_path / "linked.pth", tmp_path / "other.pth")
    assert "has a second name, a hard link" in ckpt("map", "linked.pth", "--in-place", "-e", "* -> x.*", cwd=tmp_path).err


def test_a_file_system_that_can_not_insert_leaves_the_file_as_it_was(file, monkeypatch):
    path, _ = file
    if path.suffix == ".pth":
        pytest.skip("nothing is inserted into a torch zip")
    from ckpt_tool.api import MappingOptions, plan_checkpoint, rename
    from ckpt_tool.errors import OutputError

    before = path.read_bytes()
    monkeypatch.setattr(journal, "_fallocate", lambda *_: False)
    with (
        plan_checkpoint(str(path), None, MappingOptions(inline=(f"** -> {'x' * 5000}.**",)), in_place=True) as work,
        pytest.raises(OutputError, match="can't insert"),
    ):
        rename(work)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def killed_renames(path, prefix):
    """The exit status of a rename of this file that is killed at its first step, its second, … as far as one ends by itself."""
    with subprocess.Popen([sys.executable, KILLED, path, prefix], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for step in range(1, 60):
            print(step, file=process.stdin, flush=True)
            status = int(process.stdout.readline())
            if status == 0:
                break
            assert status == -9
            yield status
        process.stdin.close()
    assert status == 0


@pytest.mark.parametrize("prefix", ["x.", "y" * 3000 + "."])
def test_a_kill_at_any_step_leaves_old_names_new_ones_or_what_the_next_run_restores(file, prefix):
    path, tensors = file
    original, half = path.read_bytes(), 0
    for _ in killed_renames(path, prefix):
        if Path(journal_of(str(path))).exists():
            half += 1
            assert "was when that was stopped" in ckpt("show", path).err
            assert ckpt("map", path, "--in-place", "-e", f"** -> {prefix}**").status == 0
            assert has(path, tensors, prefix)
        else:
            assert path.read_bytes() == original or has(path, tensors, prefix)
        assert os.listdir(path.parent) == [path.name]
        path.write_bytes(original)
    assert half > 3


def test_restoring_takes_back_what_was_begun(file):
    path, _ = file
    original, restored = path.read_bytes(), 0
    for _ in killed_renames(path, "z" * 3000 + "."):
        if journal.restore(str(path)):
            restored += 1
            assert path.read_bytes() == original
        path.write_bytes(original)
    assert restored > 3
