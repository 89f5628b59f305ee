"""Variants of every class of hostile and broken files, by the hundred: one clear line and status 2, or what is in them; soon, and nothing runs."""

import json
import subprocess
import sys
import time
from collections.abc import Iterable
from itertools import filterfalse, islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ckpt_tool.errors import InputError
from ckpt_tool.formats import open_checkpoint
from tests.hostile.fuzz_files import read_all
from tests.hostile.fuzz_oracles import check_against_torch
from tests.hostile.promises import check_error
from tests.hostile.variants_others import other_variants
from tests.hostile.variants_pickle import pickle_variants
from tests.hostile.variants_safetensors import Variant, safetensors_variants
from tests.hostile.variants_zip import zip_variants

SECONDS, MEMORY = 10, 600 << 20


@pytest.fixture(scope="module", autouse=True)
def warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One file of each kind, and a broken one: what showing them imports is no file's doing."""
    folder = tmp_path_factory.mktemp("warm")
    save_file({"w": torch.ones(1)}, folder / "model.safetensors")
    torch.save({"w": torch.ones(1)}, folder / "a.pth")
    torch.save({"w": torch.ones(1)}, folder / "b.pth", _use_new_zipfile_serialization=False)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"w": "model.safetensors"}}')
    (folder / "broken").write_bytes(b"<html>")
    WARM[:] = sorted(folder.iterdir())


WARM: list[Path] = []
KINDS = {"safetensors": safetensors_variants, "zip": zip_variants, "pickle": pickle_variants, "other": other_variants}


def shown(folder: Path, names: Iterable[str]) -> dict[str, dict]:
    """What `ckpt show` makes of files of a folder."""
    (folder / "bait.py").write_text(f"open({str(folder / 'marker')!r}, 'w')")
    listed = list(names)
    lines = "".join(json.dumps(name) + "\n" for name in listed)
    command = [sys.executable, str(Path(__file__).parent / "show_each.py"), str(folder), *map(str, WARM)]
    ran = subprocess.run(command, input=lines, capture_output=True, text=True, check=False, timeout=500)
    assert ran.returncode == 0, ran.stderr[-2000:]
    found = dict(zip(listed, map(json.loads, ran.stdout.splitlines()), strict=True))
    assert not (folder / "marker").exists()
    return found


def faults(name: str, verdict: str, got: dict) -> list[str]:
    """What is wrong with what a file got."""
    wrong = [f"{got['status']}, not what is right for `{verdict}`"] if got["status"] not in {"refuse": (2,), "read": (0,), "no tensor": (0, 2)}.get(verdict, (0, 2)) else []
    if got["status"] == 2 and (got["error"].count("\n") != 1 or len(got["error"]) > 2000 or "internal error" in got["error"] or name[:60] not in got["error"]):
        wrong.append(f"no clear line: {got['error'][-300:]!r}")
    if got["seen"]:
        wrong.append(f"did what may not be done: {got['seen']}")
    if got["seconds"] > SECONDS or got["memory"] > MEMORY:
        wrong.append(f"{got['seconds']:.1f} s, {got['memory'] >> 20} MB")
    return [f"{name}: {each}" for each in wrong]


def is_bomb(variant: Variant) -> bool:
    return variant[0].startswith("bombs")


def check_all(tmp_path: Path, variants: Iterable[Variant]) -> None:
    """Each as `ckpt show` would open it, in this process: the promises of `fuzz_files.check_file`, and the verdict."""
    wrong: list[str] = []
    for name, raw, verdict in filterfalse(is_bomb, variants):
        path = tmp_path / name.replace("/", "_")
        path.write_bytes(raw)
        start, got = time.monotonic(), "read"
        try:
            with open_checkpoint(str(path)) as checkpoint:
                read_all(checkpoint)
                if verdict == "read":
                    assert torch.equal(checkpoint.read("w"), torch.arange(4.0)), name
                if checkpoint.format.startswith("torch"):
                    check_against_torch(raw, path)
                got = "no tensor" if not checkpoint.catalog and verdict == "no tensor" else got
        except InputError as error:
            check_error(error)
            got = "refuse" if str(error).startswith(str(path)) else f"an error that does not name the file: {error}"
        wrong += [] if verdict in (got, "either") or (verdict == "no tensor" and got == "refuse") else [f"{name}: {got}"]
        assert time.monotonic() - start < SECONDS, name
        path.unlink()
    assert wrong == []


def check_commands(tmp_path: Path, variants: Iterable[Variant]) -> None:
    """Each shown by the command, in a process that is watched."""
    made = {name.replace("/", "_"): (raw, verdict) for name, raw, verdict in variants}
    for name, (raw, _) in made.items():
        (tmp_path / name).write_bytes(raw)
    results = shown(tmp_path, made)
    assert [fault for name, (_, verdict) in made.items() for fault in faults(name, verdict, results[name])] == []


@pytest.mark.parametrize("kind", KINDS)
def test_variants_are_read_or_refused(tmp_path: Path, kind: str) -> None:
    check_all(tmp_path, KINDS[kind]())


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_says_one_line_and_does_nothing_else(tmp_path: Path, kind: str) -> None:
    """All the bombs, whose memory only a process of their own can tell, and some of the others."""
    made = list(KINDS[kind]())
    check_commands(tmp_path, [*filter(is_bomb, made), *islice(filterfalse(is_bomb, made), 0, None, 50)])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_command_says_one_line_and_does_nothing_else_for_every_variant(tmp_path: Path, kind: str) -> None:
    check_commands(tmp_path, KINDS[kind]())


def test_what_is_watched_is_seen(tmp_path: Path) -> None:
    save_file({"w": torch.ones(1)}, tmp_path / "a.safetensors")
    (tmp_path / "c.safetensors").write_bytes(b"")
    found = shown(tmp_path, ["a.safetensors", "c.safetensors", "../x"])
    assert [faults(name, "read", got) == [] for name, got in found.items()] == [True, False, False]
