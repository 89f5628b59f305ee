"""Keys that look like patterns, or that nobody sees: each line can be pasted into `--filter`, and means its own keys alone."""

import csv
import io
import re

import pytest
import torch
from running import ckpt

KEYS = ["*", "a*b", "aXb", "{x}.*", "{x}.y", "a\nb", "\\x0a", "\n", "", " ", "u\u200bb", "r\u202ex", "`x`", "a|b", "  lead", "\U000e0041", "h.0.w", "h.1.w"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    torch.save({key: torch.ones(2 + min(i, 16)) for i, key in enumerate(KEYS)}, folder / "a.pth")
    torch.save({"other": torch.ones(1)}, folder / "b.pth")
    return folder


def shown_keys(pattern, folder):
    """The keys that a pattern as it is printed stands for, when it is pasted."""
    ran = ckpt("show", "a.pth", "--filter", "" if pattern == "''" else pattern, "--format", "csv", "-v", cwd=folder)
    return [row["key"] for row in csv.DictReader(io.StringIO(ran.out))]


@pytest.mark.parametrize("arguments", [("show", "a.pth"), ("show", "a.pth", "-v"), ("diff", "a.pth", "b.pth"), ("diff", "a.pth", "b.pth", "-v")])
def test_a_line_pasted_into_filter_means_its_keys_alone(arguments, folder):
    lines = [line for line in ckpt(*arguments, cwd=folder).out.splitlines() if (line.startswith("  - ") or " F32 " in line) and "other" not in line]
    patterns = [re.split(r"  +", line.removeprefix("  - "))[0] for line in lines]
    found = [shown_keys(pattern, folder) for pattern in patterns]
    assert sorted(key for keys in found for key in keys) == sorted(shown_keys("**", folder))


def test_no_screen_has_a_character_that_is_not_seen(folder):
    for arguments in (("show", "a.pth"), ("show", "a.pth", "--tree"), ("diff", "a.pth", "b.pth", "--side-by-side"), ("show", "a.pth", "--format", "markdown")):
        text = ckpt(*arguments, cwd=folder).out
        assert all(line.isprintable() for line in text.splitlines()), arguments
        assert "''" in text or "markdown" in arguments


EMPTY_KEYS = {
    "plan a.pth a.pth": "\n  ''         1\n",
    "plan a.pth a.pth -v": "\n  '' → ''\n",
    "plan a.pth b.pth": "error[unmapped-source]: `''`: 1 key of the source",
    "plan a.pth b.pth --partial": "\ndrop  1  ''\n",
    "plan b.pth a.pth --partial": "\nkeep  1  ''\n",
    "plan a.pth wider.pth": "= `''`: 3 in the source, 4 in the target",
    "plan a.pth x.pth --by position": "\n  '' → x        1\n",
    "plan a.pth a.pth --format markdown": "| mapped | `''`     | `''`     |",
    "diff a.pth nan.pth --values": "\n  '': 3 NaN in nan.pth",
    "diff a.pth b.pth --format markdown": "| removed  | `''` |     |",
    "map b.pth a.pth --partial -o out.pth": "\nkeep  1  ''\n",
    "map b.pth wider.pth -o no.pth": "error[unmapped-target]: `''`: 1 key",
    "show nan.pth --health": "  nan  ''  3 of 3 values",
    "show a.pth --format markdown": "| `''`  |         1 |",
    "suggest x.pth a.pth": "undecided: `''` is missing",
}


@pytest.mark.parametrize("line", EMPTY_KEYS)
def test_an_empty_key_is_seen(tmp_path, line):
    rest = {"a.b": torch.ones(2)}
    for name, value in (("a", torch.ones(3)), ("wider", torch.ones(4)), ("nan", torch.full((3,), float("nan")))):
        torch.save({"": value, **rest}, tmp_path / f"{name}.pth")
    torch.save(rest, tmp_path / "b.pth")
    torch.save({"x": torch.ones(3), **rest}, tmp_path / "x.pth")
    ran = ckpt(*line.split(), cwd=tmp_path)
    assert EMPTY_KEYS[line] in ran.out + ran.err
    assert "``" not in ran.out + ran.err


def test_one_is_not_many(tmp_path):
    torch.save({"w": torch.ones(1)}, tmp_path / "one.pth")
    assert ckpt("show", "one.pth", cwd=tmp_path).out.splitlines()[-1] == "1 tensor, 1 parameter, 4 B"
    torch.save({"module.w": torch.ones(1)}, tmp_path / "wrapped.pth")
    assert "hint: the two tensors have equal shapes: ckpt plan" in ckpt("diff", "wrapped.pth", "one.pth", cwd=tmp_path).out
    torch.save({"other": torch.ones(2)}, tmp_path / "other.pth")
    assert "0 mapped; 1 of 1 target key would stay fresh" in ckpt("plan", "other.pth", "one.pth", cwd=tmp_path).err


def test_a_filter_that_matches_nothing_is_called_as_it_was_given(folder):
    assert ckpt("diff", "a.pth", "b.pth", "--filter", "zzz", cwd=folder).err.startswith("error: --filter: `zzz` matches no key")


def test_tables_hold_every_key(tmp_path):
    keys = ["  lead", "`x`", "a``b", "c|d", 'q"q', "plain"]
    torch.save({key: torch.ones(1) for key in keys}, tmp_path / "a.pth")

    def table(name):
        return ckpt("show", "a.pth", "-v", "--format", name, cwd=tmp_path).out

    for name, delimiter in (("csv", ","), ("tsv", "\t")):
        assert [row["key"] for row in csv.DictReader(io.StringIO(table(name)), delimiter=delimiter)] == keys
    cells = [line.split("| ")[1].rstrip() for line in table("markdown").splitlines()[2:]]
    assert cells == ["`  lead`", "`` `x` ``", "```a``b```", "`c\\|d`", '`q"q`', "`plain`"]
    assert "|   lead " in table("grid")
    assert "c\\|d" in table("jira")
    assert "c&#124;d" in table("textile")
    assert ckpt("show", "a.pth", "--format", "youtrack", cwd=tmp_path).err == "error: --format: youtrack can't hold a `|`, as in `c|d`\n"


def test_the_answer_and_the_words_before_remarks_have_colours(tmp_path):
    for name, prefix in (("a.pth", ""), ("b.pth", "module.")):
        torch.save({f"{prefix}l.{i}.w": torch.ones(2, 2) for i in range(3)}, tmp_path / name)
    ran = ckpt("diff", "a.pth", "b.pth", "--color", "always", cwd=tmp_path)
    assert ran.out.splitlines()[-1] == "\x1b[1m0 same, 3 removed, 3 added\x1b[0m"
    assert "\n\x1b[36mhint\x1b[0m: " in ran.out
    assert ran.err.startswith("\x1b[34mnext\x1b[0m: ckpt ")
    assert "\x1b" not in ckpt("diff", "a.pth", "b.pth", cwd=tmp_path).err


def test_every_line_of_a_plan_means_its_keys_alone(folder):
    lines = ckpt("plan", "a.pth", "a.pth", "-v", cwd=folder).out.splitlines()[4:-2]
    patterns = [line[2:].split(" → ")[0] for line in lines]
    assert sorted(key for pattern in patterns for key in shown_keys(pattern, folder)) == sorted(shown_keys("**", folder))
    torch.save({"other": torch.ones(2)}, folder / "c.pth")
    assert "  a\\*b  " in ckpt("plan", "a.pth", "c.pth", "-v", "-e", "\\* -> other", "--partial", cwd=folder).out
    rows = csv.DictReader(io.StringIO(ckpt("plan", "a.pth", "a.pth", "-v", "--format", "csv", cwd=folder).out))
    assert {"*", "a*b", "{x}.y"} < {row["source"] for row in rows}
