"""Journals of renaming in place that were forged, or have no longer to do with their file: nothing but the file is written, and it
only where it is what a stopped renaming left; and several renamers of one file."""

import binascii
import json
import os
import subprocess
import sys

import pytest
import torch
from running import ckpt
from safetensors.torch import load_file, save, save_file

from ckpt_tool.api import MappingOptions, plan_checkpoint, rename
from ckpt_tool.engine.in_place import journal
from ckpt_tool.engine.in_place.journal import Change, change_in_place, restore
from ckpt_tool.errors import CkptError
from ckpt_tool.formats.sharded.journal import journal_of

CONTENT = save({"a": torch.zeros(40)})


@pytest.fixture
def file(tmp_path):
    (tmp_path / "m").mkdir()
    path = tmp_path / "m" / "a.safetensors"
    path.write_bytes(CONTENT)
    return path


def forge(file, old=b"", new=b"", begin=None, **numbers):
    """A journal whose checksum is right."""
    said = (
        {"inode": file.stat().st_ino, "size": len(CONTENT), "insert": 0, "offset": 0, "old": len(old)} | numbers.pop("said", {}) | numbers
    )
    record = (json.dumps(said) if begin is None else begin).encode() + b"\n" + old + new
    return b"%08x\n" % binascii.crc32(record) + record


NO_JOURNALS = [
    {"inode": "1"}, {"inode": None}, {"size": -1}, {"size": 1.5}, {"insert": True}, {"offset": 10**30}, {"offset": -(10**30)}, {"said": {"old": -9}}, {"said": {"old": 9}},
    {"offset": 1 << 61, "new": b"x"}, {"insert": 1 << 61}, {"insert": 4096}, {"insert": 232, "new": bytes(300)}, {"old": b"xy", "new": b"x"},
    {"insert": 4096, "new": bytes(5000), "offset": 4},
    *({"begin": text} for text in ("{}", "[]", "null", "7", "", "[" * 900, '{"inode": ' + "9" * 900 + "}", "x" * 2000, '"inode"')),
]  # fmt: skip
OTHERS = [
    {"size": 0}, {"size": 1 << 61}, {"size": 0, "insert": 4096, "new": bytes(4096)}, {"offset": len(CONTENT) - 1, "new": b"xyz", "old": b"y"},
    {"old": b"evil", "new": b"same"}, {"size": len(CONTENT) - 4, "new": b"x"}, {"offset": len(CONTENT) - 4, "size": len(CONTENT) - 4, "new": b"x"},
]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "fact"),
    [
        *((fields, "is not a journal of a renaming") for fields in NO_JOURNALS),
        *((fields, "is not what renaming it in place left") for fields in OTHERS),
    ],
    ids=str,
)
def test_a_forged_journal_changes_nothing(file, fields, fact):
    file.with_name(".a.safetensors.ckpt-journal").write_bytes(forge(file, **fields))
    with pytest.raises(CkptError) as caught:
        restore(str(file))
    assert fact in str(caught.value)
    assert file.read_bytes() == CONTENT
    assert sorted(os.listdir(file.parent)) == [".a.safetensors.ckpt-journal", "a.safetensors"]


@pytest.mark.parametrize(
    "content", [b"", b"junk", b"00000001\n", b"x" * 5000, b"\0" * 9, None], ids=["empty", "junk", "cut", "long", "zeros", "old"]
)
def test_a_journal_that_was_not_finished_says_that_nothing_was_changed(file, content):
    made = forge(file, b"{}", b"[]", inode=1) if content is None else content
    file.with_name(".a.safetensors.ckpt-journal").write_bytes(made)
    assert ckpt("map", file, "--in-place", "-e", "* -> x.*").status == 0
    assert os.listdir(file.parent) == [file.name]
    assert list(load_file(file)) == ["x.a"]


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "sparse"])
def test_a_journal_that_is_none_is_told_and_stays(file, kind, tmp_path):
    there = file.with_name(".a.safetensors.ckpt-journal")
    (tmp_path / "other").write_bytes(forge(file, b"evil", CONTENT[:4]))
    make = {
        "link": lambda: there.symlink_to(tmp_path / "other"),
        "folder": there.mkdir,
        "pipe": lambda: os.mkfifo(there),
        "sparse": lambda: (there.touch(), os.truncate(there, 1 << 40)),
    }
    make[kind]()
    ran = ckpt("map", file, "--in-place", "-e", "* -> x.*")
    assert (ran.status, ran.err.count("\n"), "Traceback" in ran.err) == (2, 1, False)
    assert ran.err.startswith(f"error: {file}: `.a.safetensors.ckpt-journal` beside it is not a journal of a renaming in place")
    assert file.read_bytes() == CONTENT
    assert there.exists()


def test_a_file_that_was_written_anew_is_not_taken_back(file):
    """The same inode with other content, as what writes over a file without a temporary one leaves it."""
    file.with_name(".a.safetensors.ckpt-journal").write_bytes(forge(file, CONTENT[:30], b" " * 30))
    for content in (save({"b": torch.ones(40)}), save({"b": torch.ones(400)}), b"", CONTENT[:9]):
        file.write_bytes(content)
        with pytest.raises(CkptError, match=r"if it is complete, remove `\.a\.safetensors\.ckpt-journal` beside it"):
            restore(str(file))
        assert file.read_bytes() == content


def test_bytes_are_taken_back_wherever_the_change_had_come_to(file):
    new = b"n" * 30
    for done in range(31):
        file.write_bytes(new[:done] + CONTENT[done:])
        file.with_name(".a.safetensors.ckpt-journal").write_bytes(forge(file, CONTENT[:30], new))
        assert restore(str(file))
        assert file.read_bytes() == CONTENT
    for more in (b"", b"ne", b"new", b"n\0\0"):
        file.write_bytes(CONTENT + more)
        file.with_name(".a.safetensors.ckpt-journal").write_bytes(forge(file, b"", b"new", offset=len(CONTENT)))
        assert restore(str(file))
        assert file.read_bytes() == CONTENT


def test_what_another_process_finishes_meanwhile_is_not_taken_back(file, monkeypatch):
    real, kept = journal.fcntl.flock, []  # type: ignore[attr-defined]

    def flock(fd, how):
        if not kept:
            kept.append(fd)
            os.unlink(journal_of(str(file)))  # the other process is ready
        return real(fd, how)

    file.with_name(".a.safetensors.ckpt-journal").write_bytes(forge(file, b"x" * 9, CONTENT[:9]))
    monkeypatch.setattr(journal.fcntl, "flock", flock)  # type: ignore[attr-defined]
    assert not restore(str(file))
    assert file.read_bytes() == CONTENT


def test_a_journal_that_another_process_took_away_is_not_relied_on(file, monkeypatch):
    real, kept = journal.fcntl.flock, []  # type: ignore[attr-defined]

    def flock(fd, how):
        if not kept:
            kept.append(fd)
            restore(str(file))
        return real(fd, how)

    monkeypatch.setattr(journal.fcntl, "flock", flock)  # type: ignore[attr-defined]
    with pytest.raises(CkptError, match="is being renamed in place by another process"):
        change_in_place(str(file), Change(0, b"new"))
    assert file.read_bytes() == CONTENT


@pytest.mark.parametrize("happens", ["changed while it was read", "was replaced by another one while it was read"])
def test_a_file_that_is_no_longer_what_was_read_is_not_changed(file, happens):
    theirs = save({"a": torch.ones(40)})
    with plan_checkpoint(str(file), None, MappingOptions(inline=("* -> x.*",)), in_place=True) as work:
        if happens.startswith("changed"):
            file.write_bytes(theirs + b" ")
        else:
            file.with_name("b").write_bytes(theirs)
            file.with_name("b").replace(file)
        with pytest.raises(CkptError, match=f"{happens}; nothing was written; try again"):
            rename(work)
    assert file.read_bytes().rstrip(b" ") == theirs
    assert os.listdir(file.parent) == [file.name]


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_several_renamers_of_one_file_follow_each_other_or_are_told(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    tensors = {f"w{i}": torch.full((9,), float(i)) for i in range(9)}
    save_file(tensors, path) if suffix == ".safetensors" else torch.save(tensors, path)
    command = [sys.executable, "-m", "ckpt_tool", "map", "-q", path, "--in-place", "-e"]
    running = [subprocess.Popen([*command, f"** -> {name}.**"], stderr=subprocess.PIPE, text=True) for name in "stuv"]
    errors = [process.communicate()[1] for process in running]
    statuses = [process.returncode for process in running]
    assert 0 in statuses
    assert set(statuses) <= {0, 2}
    assert all(error.startswith(f"error: {path}: ") and error.count("\n") == 1 for error in errors if error), errors
    loaded = load_file(path) if suffix == ".safetensors" else torch.load(path, weights_only=True)
    done = sorted(name for name, status in zip("stuv", statuses, strict=True) if status == 0)
    assert all(sorted(key.split(".")[:-1]) == done for key in loaded)
    assert all(torch.equal(loaded[key], tensors[key.split(".")[-1]]) for key in loaded)
    assert len(loaded) == 9
    assert os.listdir(tmp_path) == [path.name]
