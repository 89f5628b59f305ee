"""Addresses that fsspec opens: its file systems in memory and on disk are real ones."""

import json
import sys
import warnings

import fsspec
import pytest
import torch
from running import ckpt
from safetensors.torch import save

from ckpt_tool.errors import InputError
from ckpt_tool.formats import open_checkpoint
from ckpt_tool.formats.remote.access import Access, accessing
from tests.remote.conftest import pth, safetensors, weights


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


@pytest.mark.parametrize(
    "content",
    [
        safetensors(),
        pth(),
        pth(tensors=900),
        pth(_use_new_zipfile_serialization=False),
        pth(rows=40_000, tensors=20),
    ],
    ids=["safetensors", "zip", "many members", "legacy", "large"],
)
def test_files_are_streamed(memory, content):
    memory.pipe("/runs/a.ckpt", content)
    with accessing(Access()), open_checkpoint("memory://runs/a.ckpt") as opened:
        tensors = len(opened.catalog)
        rows = opened.catalog["layers.0.attention.weight"].shape[0]
        expected = weights(tensors=tensors, rows=rows)
        assert all(torch.equal(opened.read(key), value) for key, value in expected.items())


def test_folders_and_indexes_are_found(memory, tmp_path):
    parts = {
        f"model-0000{at}-of-00002.safetensors": {
            f"{at}.{key}": value for key, value in weights(3, at).items()
        }
        for at in (1, 2)
    }
    for name, part in parts.items():
        memory.pipe(f"/hf/{name}", save(part))
    with open_checkpoint("memory://hf") as opened:
        assert (len(opened.catalog), opened.format) == (6, "safetensors shards")
    memory.pipe(
        "/hf/model.safetensors.index.json",
        json.dumps(
            {"weight_map": {key: name for name, part in parts.items() for key in part}}
        ).encode(),
    )
    for address in ("memory://hf", "memory://hf/", "memory://hf/model.safetensors.index.json"):
        with open_checkpoint(address) as opened:
            assert (len(opened.catalog), opened.format) == (6, "safetensors index")
    ran = ckpt("map", "memory://hf", "-e", "** -> model.**", "-o", "out.safetensors", cwd=tmp_path)
    assert ran.status == 0, ran.err
    assert (
        ckpt(
            "verify", "out.safetensors", "memory://hf", "-e", "** -> model.**", cwd=tmp_path
        ).status
        == 0
    )
    assert ckpt("diff", "memory://hf", "memory://hf", "--values").status == 0


@pytest.mark.parametrize(
    ("address", "fact"),
    [
        ("memory://nothing.pth", "memory://nothing.pth: no such file or folder"),
        ("memory://empty.pth", "is empty (zero bytes)"),
        ("memory://cut.safetensors", "is cut off"),
        ("xyz://a/b.pth", "nothing is known of xyz://"),
        ("s3://bucket/a.pth", "pip install s3fs"),
        ("gs://bucket/a.pth", "pip install gcsfs"),
    ],
)
def test_what_can_not_be_opened_is_said_in_one_line(memory, address, fact):
    memory.pipe("/empty.pth", b"")
    memory.pipe("/cut.safetensors", safetensors()[:-1])
    ran = ckpt("show", address)
    assert (ran.status, fact in ran.err) == (2, True), ran.err
    assert len(ran.err.splitlines()) == 1


def test_file_addresses_are_paths_here(tmp_path):
    (tmp_path / "a b.safetensors").write_bytes(safetensors())
    with open_checkpoint(f"file://{tmp_path}/a%20b.safetensors") as opened:
        assert len(opened.catalog) == 40
    with open_checkpoint(f"file://{tmp_path}/a%20b.safetensors#") as opened:
        assert opened.files[0].has_descriptor


def test_without_fsspec_it_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "fsspec"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(
        InputError, match=r"needs fsspec, which is not installed; pip install fsspec s3fs"
    ):
        open_checkpoint("s3://bucket/a.pth")


def test_offline_asks_nobody(memory):
    assert (
        "is never in a cache, and --offline asks no server"
        in ckpt("show", "s3://bucket/a.pth", "--offline").err
    )


REMOTE = (
    "huggingface_hub",
    "fsspec",
    "urllib.request",
    "http.client",
    "ssl",
    "socket",
    "requests",
    "httpx",
    "ckpt_tool.formats.remote.places",
)
PROBE = f"""
import sys
sys.argv = ["ckpt", *sys.argv[1:]]
import socket as kept
def no_socket(*arguments, **options):
    raise AssertionError("a socket was opened")
kept.socket.connect = no_socket
del sys.modules["socket"], kept
from ckpt_tool.__main__ import main
try:
    main()
except SystemExit as end:
    print(sorted(set({REMOTE!r}) & set(sys.modules)), end.code, file=sys.stderr)
"""


@pytest.mark.parametrize(
    "command",
    [
        "show a.pth",
        "diff a.pth b.safetensors --values",
        "plan a.pth b.safetensors",
        "map a.pth -e **->x.** -o {out}",
        "suggest a.pth b.safetensors",
    ],
)
def test_what_is_here_imports_nothing_of_the_network(tmp_path, command):
    import subprocess

    (tmp_path / "a.pth").write_bytes(pth())
    (tmp_path / "b.safetensors").write_bytes(safetensors(seed=1))
    words = command.format(out=tmp_path / "out.safetensors").replace("**->x.**", "** -> x.**")
    arguments = [
        word.replace("\0", " ") for word in words.replace("** -> x.**", "**\0->\0x.**").split()
    ]
    ran = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stderr.splitlines()[-1].startswith("[] "), ran.stderr


def test_a_digest_that_was_asked_for_is_checked(memory):
    import hashlib

    memory.pipe("/a.safetensors", safetensors())
    right = hashlib.sha256(safetensors()).hexdigest()
    assert ckpt("show", "memory://a.safetensors", "--sha256", right).status == 0
    assert ckpt("show", "memory://a.safetensors", "--sha256", "0" * 64).status == 2


def test_distributed_folders_are_streamed_too(memory, tmp_path):
    from torch.distributed.checkpoint.state_dict_saver import save

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without processes, which is meant here
        save({"model": weights(5)}, checkpoint_id=str(tmp_path / "run"))
    for path in (tmp_path / "run").iterdir():
        memory.pipe(f"/run/{path.name}", path.read_bytes())
    with open_checkpoint("memory://run") as opened:
        assert len(opened.catalog) == 5
    assert ckpt("diff", "memory://run", tmp_path / "run", "--values").status == 0
    ran = ckpt("map", "memory://run", "-e", "** -> **", "-o", "out.safetensors", cwd=tmp_path)
    assert ran.status == 0, ran.err
    assert ckpt("diff", "out.safetensors", "run", "--values", cwd=tmp_path).status == 0


def test_a_digest_is_checked_of_files_here_too(tmp_path):
    import hashlib

    import ckpt_tool

    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors())
    right, wrong = hashlib.sha256(safetensors()).hexdigest(), "0" * 64
    assert ckpt("show", f"file://{path}", "--sha256", right).status == 0
    assert "its SHA-256 is" in ckpt("show", f"file://{path}", "--sha256", wrong).err
    assert "is a folder" in ckpt("show", f"file://{tmp_path}", "--sha256", right).err
    for name in (path, str(path), f"file://{path}"):
        ckpt_tool.open(name, sha256=[wrong, right]).close()
        with pytest.raises(InputError, match="its SHA-256 is"):
            ckpt_tool.open(name, sha256=wrong)
    with pytest.raises(InputError, match="is a folder"):
        ckpt_tool.open(tmp_path, sha256=right)


@pytest.mark.parametrize(
    ("address", "fact"),
    [("file://folder/mine.pth", "three slashes: file:///"), ("file://", "names no file")],
)
def test_file_addresses_without_a_path_are_refused(address, fact):
    ran = ckpt("show", address)
    assert (ran.status, fact in ran.err) == (2, True), ran.err


def test_an_output_that_is_a_file_address_is_answered_with_its_path(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(safetensors())
    ran = ckpt("map", "a.safetensors", "-e", "** -> x.**", "-o", "file:///tmp/x.pth", cwd=tmp_path)
    assert (ran.status, "give the path /tmp/x.pth" in ran.err) == (2, True), ran.err


@pytest.mark.parametrize(
    ("address", "fact"),
    [
        ("memory://nothing.pth", "empty on the command line"),
        ("htps://host/a.pth", "did you mean https://host/a.pth?"),
        ("dir://x", "needs more than an address says"),
        ("reference://x", "needs more than an address says"),
    ],
)
def test_file_systems_that_lead_nowhere_are_said_in_one_line(address, fact):
    ran = ckpt("show", address)
    assert (ran.status, fact in ran.err) == (2, True), ran.err
    assert len(ran.err.splitlines()) == 1


def test_refreshing_without_an_address_is_no_error_offline(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "a.safetensors").write_bytes(safetensors())
    assert ckpt("show", "a.safetensors", "--refresh", cwd=tmp_path).status == 0
    assert "--offline forbids to" in ckpt("show", "s3://bucket/a.pth", "--refresh").err


@pytest.mark.parametrize("name", ["out.pth", "out.safetensors"])
def test_what_is_streamed_is_checked_on_its_way(memory, tmp_path, name):
    content = pth(rows=40_000, tensors=20)
    at = len(content) // 2
    memory.pipe("/a.pth", content)
    assert ckpt("map", "memory://a.pth", "-e", "** -> **", "-o", name, cwd=tmp_path).status == 0
    memory.pipe("/a.pth", content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    ran = ckpt("map", "memory://a.pth", "-e", "** -> **", "-o", name, "--force", cwd=tmp_path)
    assert ran.status == 2
    assert "its bytes don't match their checksum" in ran.err


def test_a_small_tensor_far_from_the_last_one_costs_little(memory, monkeypatch):
    from ckpt_tool.formats.remote.filesystems import FEW, SystemFile

    memory.pipe("/a.safetensors", safetensors(tensors=200, rows=4096))
    fetched = []
    fetch = SystemFile.fetch
    monkeypatch.setattr(
        SystemFile, "fetch", lambda self, at, length: fetched.append(length) or fetch(self, at, length)
    )
    with open_checkpoint("memory://a.safetensors") as opened:
        opened.read("layers.150.attention.weight")
        first = sum(fetched)
        assert first <= (256 << 10) + 3 * FEW
        for key in opened.catalog:
            opened.read(key)
    size = 200 * 4096 * 16 * 4
    assert sum(fetched) - first <= 1.5 * size
    assert len(fetched) < 20
