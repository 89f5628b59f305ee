"""Indexes that lead elsewhere, shards that are none, and files that are no files: one clear line and status 2, and nothing else is opened."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from running import ckpt
from safetensors.torch import save_file

from tests.hostile.test_variants import WARM, faults, shown, warm  # noqa: F401, a fixture

INDEX = "model.safetensors.index.json"
ESCAPES = {
    "up": "../a.safetensors", "far up": "../" * 20 + "etc/passwd", "absolute": "/etc/passwd", "zero": "/dev/zero", "stdin": "/dev/stdin", "memory": "/proc/self/mem",
    "by descriptor": "/dev/fd/0", "dot": ".", "two dots": "..", "nothing": "", "here": "./a.safetensors", "in a folder": "sub/a.safetensors", "a slash at the end": "a.safetensors/",
    "double slash": "//a.safetensors", "a backslash": "..\\a.safetensors", "windows": "C:\\a.safetensors", "a drive": "C:a.safetensors", "unc": "\\\\server\\share", "nul": "a.safetensors\0",
    "nul and more": "a.safetensors\0.txt", "a url": "file:///etc/passwd", "https": "https://example.com/a.safetensors", "hub": "hf://a/b", "home": "~/a.safetensors", "a variable": "$HOME",
    "other letters": "ａ.safetensors", "a slash of another kind": "..\u2215a.safetensors", "encoded": "%2e%2e%2fa.safetensors", "long": "a" * 5000, "very long": "a" * 1_000_000,
    "control characters": "\x1b[2Ja.safetensors", "another case": "A.safetensors", "a space": "a.safetensors ", "a newline": "a.safetensors\n", "the index": INDEX, "half a pair": "\ud800",
}  # fmt: skip


def index(folder: Path, weight_map: object, **more: object) -> None:
    folder.mkdir(exist_ok=True)
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 16}, "weight_map": weight_map, **more}))


def index_text(folder: Path, text: str) -> None:
    folder.mkdir(exist_ok=True)
    save_file({"w": torch.ones(4)}, folder / "a.safetensors")
    save_file({"v": torch.ones(4), "more": torch.ones(1)}, folder / "b.safetensors")
    (folder / INDEX).write_text(text)


def refused(tmp_path: Path, names: list[str]) -> None:
    found = shown(tmp_path, names)
    assert [fault for name, got in found.items() for fault in faults(name, "refuse", got)] == []


def test_shards_outside_of_the_folder_are_refused_and_not_opened(tmp_path: Path) -> None:
    save_file({"w": torch.ones(4)}, tmp_path / "a.safetensors")
    for name, shard in ESCAPES.items():
        index_text(tmp_path / name, "")
        index(tmp_path / name, {"w": shard})
        (tmp_path / name / "sub").mkdir()
        save_file({"w": torch.ones(4)}, tmp_path / name / "sub" / "a.safetensors")
    refused(tmp_path, list(ESCAPES))


BAD_TEXTS = {
    "empty": "", "null": "null", "a list": "[]", "a text": '"weight_map"', "no map": "{}", "map null": '{"weight_map":null}', "map of lists": '{"weight_map":{"w":["a.safetensors"]}}',
    "map of numbers": '{"weight_map":{"w":1}}', "map of nothing": '{"weight_map":{"w":null}}', "pairs": '{"weight_map":[["w","a.safetensors"]]}', "cut": '{"weight_map":{"w":"a.safe',
    "twice": '{"weight_map":{"w":"a.safetensors","w":"b.safetensors"}}', "twice, escaped": '{"weight_map":{"w":"a.safetensors","\\u0077":"a.safetensors"}}',
    "two maps": '{"weight_map":{"w":"a.safetensors"},"weight_map":{}}', "two maps, escaped": '{"weight_map":{},"weight\\u005fmap":{"w":"a.safetensors"}}',
    "not there": '{"weight_map":{"x":"a.safetensors"}}', "the wrong file": '{"weight_map":{"w":"b.safetensors"}}', "missing": '{"weight_map":{"w":"c.safetensors"}}',
    "in two": '{"weight_map":{"w":"twin.safetensors","v":"a.safetensors"}}', "NaN": '{"metadata":{"total_size":NaN},"weight_map":{"w":"a.safetensors"}}',
    "a huge number": '{"metadata":{"total_size":' + "9" * 5000 + '},"weight_map":{"w":"a.safetensors"}}', "deep": '{"weight_map":' + "[" * 200_000 + "]" * 200_000 + "}",
    "half a pair": '{"weight_map":{"\\ud800":"a.safetensors"}}', "bom": '\ufeff{"weight_map":{"w":"a.safetensors"}}', "comma": '{"weight_map":{"w":"a.safetensors",}}',
    "many missing": json.dumps({"weight_map": {f"w{i}": "x" * 200 + f"{i}.safetensors" for i in range(20_000)}}),
}  # fmt: skip


def test_broken_indexes_are_refused(tmp_path: Path) -> None:
    for name, text in BAD_TEXTS.items():
        index_text(tmp_path / name, text)
        save_file({"v": torch.ones(4)}, tmp_path / name / "twin.safetensors")
    refused(tmp_path, list(BAD_TEXTS))


def test_descriptions_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    header = b'{"a":[' + b"[]," * 4_000_000 + b"[]]}"
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    (tmp_path / "keys.tsv").write_text("a\tF32\t1\n" * 500_001)
    index_text(tmp_path / "model", '{"weight_map":{' + ",".join(f'"{i:x}":"a"' for i in range(2_000_000)) + "}}")
    refused(tmp_path, ["a.safetensors", "keys.tsv", "model"])


def test_a_key_that_the_index_does_not_list_is_told_and_not_taken(tmp_path: Path) -> None:
    index_text(tmp_path / "model", '{"weight_map":{"w":"a.safetensors","v":"b.safetensors"}}')
    ran = ckpt("show", tmp_path / "model", "--json")
    entries = json.loads(ran.out)["entries"]
    assert [(entry["key"], entry.get("elsewhere", False)) for entry in entries] == [("w", False), ("v", False), ("b.safetensors#more", True)]
    assert "which the index does not list" in ran.out


def _socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def _loop(path: Path) -> None:
    path.symlink_to(path.name + "2")
    path.with_name(path.name + "2").symlink_to(path.name)


def _link_to_fifo(path: Path) -> None:
    os.mkfifo(f"{path}.fifo")
    path.symlink_to(f"{path}.fifo")


def _through_a_file(path: Path) -> None:
    path.with_suffix(".x").touch()
    path.symlink_to(f"{path.stem}.x/y")


SPECIAL: dict[str, Callable[[Path], None]] = {
    "fifo": os.mkfifo, "socket": _socket, "folder": os.mkdir, "loop": _loop, "dangling": lambda path: path.symlink_to("nowhere"),
    "itself": lambda path: path.symlink_to(path.name), "link to a fifo": _link_to_fifo,
    "zero": lambda path: path.symlink_to("/dev/zero"), "null": lambda path: path.symlink_to("/dev/null"), "full": lambda path: path.symlink_to("/dev/full"),
    "random": lambda path: path.symlink_to("/dev/urandom"), "terminal": lambda path: path.symlink_to("/dev/tty"), "memory": lambda path: path.symlink_to("/proc/self/mem"),
    "maps": lambda path: path.symlink_to("/proc/self/maps"), "empty": Path.touch, "through a file": _through_a_file,
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ""])
def test_what_is_no_file_is_refused(tmp_path: Path, suffix: str) -> None:
    names = []
    for name, make in SPECIAL.items():
        make(tmp_path / f"{name}{suffix}")
        names.append(f"{name}{suffix}")
    found = shown(tmp_path, [*names, f"nowhere{suffix}", f"{'x' * 300}{suffix}", "/dev/zero", "/dev/fd/77", "a\0b"])
    wrong = [fault for name, got in found.items() for fault in faults(name, "refuse", {**got, "seen": []}) if name != "a\0b"]
    assert wrong == []
    assert found["a\0b"]["status"] == 2


def test_a_shard_that_is_no_file_is_refused(tmp_path: Path) -> None:
    for name, make in SPECIAL.items():
        index(tmp_path / name, {"w": "a.safetensors"})
        make(tmp_path / name / "a.safetensors")
    found = shown(tmp_path, list(SPECIAL))
    assert [fault for name, got in found.items() for fault in faults(name, "refuse", {**got, "seen": []})] == []


def test_an_index_that_is_no_file_is_refused(tmp_path: Path) -> None:
    for name, make in SPECIAL.items():
        (tmp_path / name).mkdir()
        make(tmp_path / name / INDEX)
    found = shown(tmp_path, list(SPECIAL))
    assert [fault for name, got in found.items() for fault in faults(name, "refuse", {**got, "seen": []})] == []


def test_links_as_the_hub_makes_them_are_followed(tmp_path: Path) -> None:
    """In its cache a snapshot's files are links to blobs beside it."""
    (tmp_path / "blobs").mkdir()
    save_file({"w": torch.ones(4)}, tmp_path / "blobs" / "0123")
    index(tmp_path / "snapshot", {"w": "a.safetensors"})
    (tmp_path / "snapshot" / "a.safetensors").symlink_to("../blobs/0123")
    assert ckpt("show", tmp_path / "snapshot").status == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="everything may be read")
def test_what_may_not_be_read_is_told(tmp_path: Path) -> None:
    save_file({"w": torch.ones(4)}, tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").chmod(0)
    ran = ckpt("show", tmp_path / "a.safetensors")
    assert (ran.status, ran.err) == (2, f"error: {tmp_path}/a.safetensors: permission denied\n")
