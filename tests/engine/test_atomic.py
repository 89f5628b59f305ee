"""Outputs are complete or absent, and what was there before survives every fault."""

import errno
import os
import stat

import pytest

from ckpt_tool.engine.copying import write_at
from ckpt_tool.engine.durable import file as atomic
from ckpt_tool.engine.durable.file import atomic_output
from ckpt_tool.errors import OutputError


def write(path, content=b"new", replace=False, then=lambda: None):
    with atomic_output(str(path), len(content), replace) as fd:
        write_at(fd, content, 0)
        then()


def _raise(error):
    raise error


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_new_file_has_the_usual_permissions(tmp_path):
    write(tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"new"
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o666 & ~umask
    assert names(tmp_path) == ["out"]


def test_an_existing_file_needs_a_word_and_keeps_its_permissions(tmp_path):
    (tmp_path / "out").write_bytes(b"old")
    (tmp_path / "out").chmod(0o640)
    with pytest.raises(OutputError, match="exists already"):
        write(tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"old"
    write(tmp_path / "out", replace=True)
    assert (tmp_path / "out").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o640


def test_a_link_is_followed(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link", replace=True)
    assert (tmp_path / "real").read_bytes() == b"new"
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_what_was_there(tmp_path, error):
    (tmp_path / "out").write_bytes(b"old")
    with pytest.raises(error):
        write(tmp_path / "out", replace=True, then=lambda: _raise(error))
    assert (tmp_path / "out").read_bytes() == b"old"
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize(("function", "code"), [("fsync", errno.EIO), ("replace", errno.EACCES), ("pwrite", errno.ENOSPC)])
def test_a_failing_system_call_leaves_what_was_there_and_is_named(tmp_path, monkeypatch, function, code):
    (tmp_path / "out").write_bytes(b"old")

    def fail(*arguments, **options):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(OutputError, match="out: "):
        write(tmp_path / "out", replace=True)
    assert (tmp_path / "out").read_bytes() == b"old"
    assert names(tmp_path) == ["out"]


def test_too_little_room_is_known_before_anything_is_written(tmp_path):
    with (
        pytest.raises(OutputError, match=r"needs 1,152,921,504,606,846,976 bytes, and .* are free; nothing was written"),
        atomic_output(str(tmp_path / "out"), 1 << 60, False),
    ):
        raise AssertionError("not reached")
    assert names(tmp_path) == []


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path):
    with pytest.raises(OutputError, match="written by somebody else meanwhile"):
        write(tmp_path / "out", then=lambda: (tmp_path / "out").write_bytes(b"theirs"))
    assert (tmp_path / "out").read_bytes() == b"theirs"
    assert names(tmp_path) == ["out"]


def test_the_file_is_durable_before_it_has_its_name(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "link", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(atomic.os, name, lambda *a, name=name, real=real, **k: (calls.append(name), real(*a, **k))[1])  # type: ignore[attr-defined]
    write(tmp_path / "out")
    write(tmp_path / "out", replace=True)
    assert calls == ["fsync", "link", "fsync", "fsync", "replace", "fsync"]
