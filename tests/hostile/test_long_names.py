"""Names of a million characters, in hundreds of thousands of parts, or very many of them: shown, mapped, or refused, in bounded memory."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from ckpt_tool.keys import fold
from ckpt_tool.keys.folding.fold import MAX_FORMS, MAX_TOKENS

MEMORY = 1 << 30
"""Addresses of a process, which are more than its memory."""


def write(path: Path, keys: list[str]) -> str:
    header = json.dumps({key: {"dtype": "U8", "shape": [0, number], "data_offsets": [0, 0]} for number, key in enumerate(keys)}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return path.name


NAMES = {
    "long": ["k" * 1_000_000, *(f"a{i}.x{i * i}.w" for i in range(3000))],
    "in parts": [".".join("a" * 300_000), ".".join("b" * 300_000)],
    "numbers": ["1" * 300_000, "a." + ".".join(map(str, range(60_000)))],
    "numbers in one part": ["w" + "1b" * 41, "w" + "2b" * 41],
    "a few parts too many": [".".join("a" * 65), ".".join("b" * 65)],
    "braces": ["{" * 300_000, "*" * 300_000, "." * 300_000],
}


def test_numbers_of_thousands_of_digits_are_names_like_others(tmp_path: Path) -> None:
    numbers = ["9" * 30, "9" * 5000, "8" * 5000, "1234567", "1234568", "01", "\u0661"]
    ours = write(tmp_path / "a.safetensors", [f"model.experts.{one}.w" for one in numbers])
    theirs = write(tmp_path / "b.safetensors", [f"model.experts.{one}.w2" for one in numbers])
    (tmp_path / "r.yaml").write_text(f"rules:\n  - from: ['**']\n    to: ['**']\n    when: {{shape: [a, [{'9' * 5000}]]}}\n")
    commands = [
        ["diff", ours, theirs, "--renames"], ["suggest", ours, theirs], ["plan", ours, "-e", "model.experts.{i}.w -> x.{i}"], ["plan", ours, "-r", "r.yaml"],
    ]  # fmt: skip
    for command in commands:
        ran = ckpt_in_bounds(*command, cwd=tmp_path)
        assert (ran.returncode in (0, 1), "internal error" in ran.stderr, "Traceback" in ran.stderr) == (True, False, False), command


def ckpt_in_bounds(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ckpt_tool", *arguments], cwd=cwd, capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_long_names_are_shown_and_mapped_and_not_compared(tmp_path: Path, name: str) -> None:
    ours, theirs = write(tmp_path / "a.safetensors", NAMES[name]), write(tmp_path / "b.safetensors", ["x.w", "y.w"])
    for option in ("--quiet", "-v", "--json", "--keys"):
        ran = ckpt_in_bounds("show", ours, option, cwd=tmp_path)
        assert (ran.returncode, ran.stderr) == (0, "")
    for command in ("diff", "suggest", "plan", "mappings"):
        ran = ckpt_in_bounds(command, theirs, ours, cwd=tmp_path)
        assert (ran.returncode, ran.stderr.count("\n"), len(ran.stderr) < 500) == (2, 1, True)
        assert "error: a.safetensors: has a name of " in ran.stderr
    assert ckpt_in_bounds("show", ours, cwd=tmp_path).returncode == 0
    assert ckpt_in_bounds("map", ours, "-e", "** -> x.**", "-o", "out.safetensors", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(
    "keys",
    [
        [".".join("a" * 20_000), "b"],
        ["a1" * (MAX_TOKENS // 200) + str(i) for i in range(201)],
    ],
    ids=["deep", "many numbers"],
)
def test_what_is_too_much_to_fold_stands_for_itself(keys: list[str]) -> None:
    labels = {key: i % 2 for i, key in enumerate(keys)}
    assert [one.keys for one in fold(labels)] == [(key,) for key in keys]


def test_names_that_are_too_different_to_be_looked_through_stand_for_themselves() -> None:
    letters = str.maketrans("0123456789", "ghijklmnop")
    labels = {f"{i:x}".translate(letters) + end: end for i in range(MAX_FORMS) for end in (".a", ".b")}
    assert [one.keys for one in fold(labels)] == [(key,) for key in labels]
    assert [one.pattern for one in fold(dict.fromkeys(labels, 1))] == ["**"]


def test_long_cells_make_no_room_for_themselves(tmp_path: Path) -> None:
    name = write(tmp_path / "a.safetensors", ["k" * 300, "b.w"])
    ran = ckpt_in_bounds("show", name, "-v", cwd=tmp_path)
    assert [line for line in ran.stdout.split("\n") if "b.w" in line] == ["b.w     U8     0×1      0 B"]
