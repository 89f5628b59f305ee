"""Outputs replace no input, are no more public than what was read, and leave modes and owners as they were."""

import os
import stat

import pytest
import torch
from running import ckpt, ckpt_process
from safetensors.torch import save_file

from ckpt_tool.engine.durable.file import atomic_output


@pytest.fixture
def folder(tmp_path):
    torch.save({"a.w": torch.ones(2)}, tmp_path / "a.pth")
    torch.save({"b.w": torch.zeros(2)}, tmp_path / "b.pth")
    (tmp_path / "common.yaml").write_text("drop: []\n")
    (tmp_path / "r.yaml").write_text("include: [common.yaml]\nrules:\n  - a.** -> b.**\n")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "sharded").mkdir()
    save_file({"a.w": torch.ones(2)}, tmp_path / "sharded/model-00001-of-00001.safetensors")
    (tmp_path / "sharded/model.safetensors.index.json").write_text('{"weight_map": {"a.w": "model-00001-of-00001.safetensors"}}')
    os.symlink("a.pth", tmp_path / "link.pth")
    return tmp_path


REPLACED = [
    ("suggest a.pth b.pth -o a.pth", "a.pth"),
    ("suggest a.pth b.pth -o b.pth", "b.pth"),
    ("suggest a.pth b.pth -o link.pth", "a.pth"),
    ("suggest sharded b.pth -o sharded/model-00001-of-00001.safetensors", "sharded/model-00001-of-00001.safetensors"),
    ("suggest sharded b.pth -o sharded/model.safetensors.index.json", "sharded/model.safetensors.index.json"),
    ("check r.yaml --invert -o r.yaml", "r.yaml"),
    ("check r.yaml --invert -o common.yaml", "common.yaml"),
    ("check r.yaml a.pth b.pth --invert -o a.pth", "a.pth"),
    ("check r.yaml a.pth b.pth --invert -o config.json", "config.json"),
    ("map a.pth b.pth --rules r.yaml -o a.pth", "a.pth"),
    ("map a.pth b.pth --rules r.yaml -o link.pth", "a.pth"),
]


@pytest.mark.parametrize(("line", "name"), REPLACED)
def test_no_input_is_replaced_whoever_asks(folder, line, name):
    before = (folder / name).read_bytes()
    ran = ckpt(*line.split(), "--force", cwd=folder)
    assert (ran.status, (folder / name).read_bytes()) == (2, before)
    assert "is one of the inputs" in ran.err


@pytest.mark.parametrize("included", ["r.pth", "common.pth"])
def test_map_replaces_no_rule_file_whatever_it_is_called(folder, included):
    (folder / "common.pth").write_text("drop: []\n")
    (folder / "r.pth").write_text("include: [common.pth]\nrules:\n  - a.** -> b.**\n")
    before = (folder / included).read_text()
    ran = ckpt("map", "a.pth", "b.pth", "--rules", "r.pth", "-o", included, "--force", cwd=folder)
    assert (ran.status, (folder / included).read_text()) == (2, before)


def mode_of(path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.mark.parametrize(("source", "target", "wanted"), [(0o600, 0o644, 0o600), (0o640, 0o664, 0o640), (0o444, 0o444, 0o644)])
def test_a_new_output_is_no_more_public_than_its_inputs(folder, source, target, wanted):
    os.chmod(folder / "a.pth", source)
    os.chmod(folder / "b.pth", target)
    mask = os.umask(0o022)
    try:
        for output in (["c.safetensors"], ["out", "--max-shard-size", "1MB"]):
            assert ckpt("map", "a.pth", "b.pth", "-e", "a.* -> b.*", "-o", *output, cwd=folder).status == 0
    finally:
        os.umask(mask)
    files = [folder / "c.safetensors", *(folder / "out").iterdir()]
    assert {mode_of(path) for path in files} == {wanted}


@pytest.mark.parametrize("mode", [0o700, 0o2770])
@pytest.mark.parametrize("content", [None, "tokenizer.json"])
def test_a_folder_keeps_its_mode(folder, mode, content):
    (folder / "out").mkdir()
    if content:
        (folder / "out" / content).write_text("{}")
    os.chmod(folder / "out", mode)
    ran = ckpt("map", "a.pth", "-e", "** -> **", "-o", "out", "--max-shard-size", "1MB", cwd=folder)
    assert (ran.status, mode_of(folder / "out")) == (0, mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_is_replaced_keeps_mode_and_owner(folder):
    (folder / "out").mkdir()
    for name in ("c.pth", "out"):
        (folder / "c.pth").write_bytes(b"")
        os.chown(folder / name, 12345, 54321)
        os.chmod(folder / name, 0o2750)
    assert ckpt("map", "a.pth", "-e", "** -> **", "-o", "c.pth", "--force", cwd=folder).status == 0
    assert ckpt("map", "a.pth", "-e", "** -> **", "-o", "out", "--max-shard-size", "1MB", cwd=folder).status == 0
    for name in ("c.pth", "out"):
        status = os.stat(folder / name)
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (12345, 54321, 0o2750)


def test_the_temporary_file_is_never_more_public_than_the_output(tmp_path):
    with atomic_output(str(tmp_path / "out"), 3, False, 0o600) as fd:
        assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o600
        os.pwrite(fd, b"abc", 0)
    assert mode_of(tmp_path / "out") == 0o600


def test_files_of_a_replaced_folder_keep_modes_and_owners(tmp_path):
    save_file({"a": torch.ones(4), "b": torch.ones(4)}, tmp_path / "s.safetensors")
    (tmp_path / "s.safetensors").chmod(0o600)
    line = ("map", "s.safetensors", "-e", "** -> **", "-o", "out", "-q", "--max-shard-size")
    assert ckpt(*line, "1GB", cwd=tmp_path).status == 0
    for path in (tmp_path / "out").iterdir():
        path.chmod(0o640 if path.suffix == ".json" else 0o604)
        if os.getuid() == 0:
            os.chown(path, 1000, 1000)
    assert ckpt(*line, "16B", "--force", cwd=tmp_path).status == 0
    found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()}
    assert found == {"model-00001-of-00002.safetensors": 0o604, "model-00002-of-00002.safetensors": 0o604, "model.safetensors.index.json": 0o640}
    assert os.getuid() or {path.stat().st_uid for path in (tmp_path / "out").iterdir()} == {1000}


@pytest.mark.parametrize("line", ["map lin.pth some_factory:make -o link.pth", "suggest lin.pth some_factory:make -o link.pth", "suggest lin.pth some_factory:make -o some_factory.py"])
def test_the_code_of_a_factory_is_an_input(tmp_path, line):
    code = "import torch\n\n\ndef make():\n    return torch.nn.Linear(2, 2)\n"
    (tmp_path / "some_factory.py").write_text(code)
    os.symlink("some_factory.py", tmp_path / "link.pth")
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "lin.pth")
    ran = ckpt_process(*line.split(), "--force", cwd=tmp_path)
    assert (ran.status, "is one of the inputs" in ran.err) == (2, True)
    assert (tmp_path / "some_factory.py").read_text() == code


def test_tensors_that_are_written_twice_take_one_line_a_pattern(tmp_path):
    weights = [torch.ones(2) * i for i in range(12)]
    torch.save({**{f"l.{i}.w": w for i, w in enumerate(weights)}, **{f"m.{i}.w": w for i, w in enumerate(weights)}}, tmp_path / "a.pth")
    ran = ckpt("map", "a.pth", "-e", "** -> **", "-o", "b.safetensors", cwd=tmp_path)
    assert "note: safetensors has no shared tensors; these are written twice: m.** = l.** (12)\n" in ran.out + ran.err


@pytest.mark.parametrize("name", ["b.safetensors", "b.pth"])
def test_views_that_are_written_by_themselves_are_named(tmp_path, name):
    w = torch.randn(10, 4)
    torch.save({"emb": w, "headT": w.t(), "tail": w[5:], "tied": w}, tmp_path / "a.pth")
    ran = ckpt("map", "a.pth", "-e", "** -> **", "-o", name, cwd=tmp_path)
    assert "note: these share numbers in the source, and are written by themselves: headT in emb, tail in emb\n" in ran.out + ran.err
    torch.save({"q": w[:5], "k": w[5:], "tied": w[5:]}, tmp_path / "apart.pth")
    ran = ckpt("map", "apart.pth", "-e", "** -> **", "-o", f"2{name}", cwd=tmp_path)
    assert "share numbers" not in ran.out + ran.err
