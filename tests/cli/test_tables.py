"""`--format`, `--tree`, `--sort`, `--filter` and `--side-by-side`, as a user meets them."""

import csv
import io

import pytest
import torch
from running import ckpt
from safetensors.torch import save_file


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    state = {f"blocks.{i}.{name}.weight": torch.ones(4, size) for i in range(3) for name, size in (("attn", 4), ("mlp", 8))}
    state |= {"head.weight": torch.ones(10, 4), "head.bias": torch.ones(10), "odd|name.weight": torch.ones(2)}
    torch.save(state, folder / "a.pth")
    torch.save({**state, "head.weight": torch.ones(3, 4), "head.bias": torch.zeros(10), "new": torch.ones(1)}, folder / "b.pth")
    return folder


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_has_numbers_and_every_tensor_with_v(folder):
    ran = ckpt("show", "a.pth", "--format", "csv", "-v", cwd=folder)
    assert len(rows(ran.out)) == 9
    assert rows(ran.out)[0] == {
        "key": "blocks.0.attn.weight", "tensors": "1", "dtype": "F32", "shape": "4×4", "parameters": "16", "bytes": "64", "shares": "",
    }  # fmt: skip
    assert ran.err == "9 tensors, 196 parameters, 784 B\n"
    assert len(rows(ckpt("show", "a.pth", "--format", "csv", cwd=folder).out)) == 5


def test_markdown_keeps_stars_and_bars(folder):
    lines = ckpt("show", "a.pth", "--format", "markdown", cwd=folder).out.splitlines()
    assert lines[2].startswith("| `blocks.{0..2}.attn.weight` ")
    assert "odd\\|name.weight" in lines[-1]


def test_a_diff_a_plan_and_mappings_as_tables(folder):
    found = rows(ckpt("diff", "a.pth", "b.pth", "--values", "--format", "csv", cwd=folder).out)
    assert [(row["change"], row["a"], row["b"]) for row in found] == [
        ("shape", "head.weight", "head.weight"), ("values", "head.bias", "head.bias"), ("added", "", "new"),
    ]  # fmt: skip
    plan = rows(ckpt("plan", "a.pth", "b.pth", "-e", "blocks.** -> blocks.**", "--partial", "--format", "csv", cwd=folder).out)
    assert [(row["what"], row["source"], row["tensors"]) for row in plan if row["what"] == "mapped"] == [("mapped", "blocks.**", "6")]
    assert {row["what"] for row in plan} == {"mapped", "kept", "dropped"}
    assert len(rows(ckpt("mappings", "--format", "csv").out)) > 100


@pytest.mark.parametrize("name", ["tsv", "html", "latex", "rst", "grid", "jira"])
def test_formats_of_tabulate(folder, name):
    assert "head.bias" in ckpt("show", "a.pth", "--format", name, cwd=folder).out


@pytest.mark.parametrize(("name", "hint"), [("json", "--json prints JSON"), ("nothing", "one of table, csv"), ("unsafehtml", "one of table")])
def test_what_is_no_format(folder, name, hint):
    ran = ckpt("show", "a.pth", "--format", name, cwd=folder)
    assert (ran.status, ran.out) == (2, "")
    assert hint in ran.err


def test_a_filter_shows_some_and_says_of_how_many(folder):
    ran = ckpt("show", "a.pth", "--filter", "head.*", "--filter", "blocks.0.**", cwd=folder)
    assert ran.out.splitlines()[-1] == "4 of 9 tensors, 98 parameters, 392 B"
    assert ckpt("show", "a.pth", "--filter", "head.*", "--keys", cwd=folder).out.count("\n") == 2
    assert "matches no key" in ckpt("show", "a.pth", "--filter", "tail.*", cwd=folder).err


def test_sorted_by_size_and_by_name(folder):
    def names(order):
        lines = ckpt("show", "a.pth", "-v", "--sort", order, cwd=folder).out.split("\n\n")[1].splitlines()[1:]
        return [line.split()[0] for line in lines]

    assert names("size")[0] == "head.weight"
    assert names("name")[0] == "blocks.0.attn.weight"
    assert names("name")[-1] == "odd|name.weight"


def test_the_tree_has_shares_that_add_up(folder):
    lines = ckpt("show", "a.pth", "--tree", cwd=folder).out.splitlines()
    assert lines[3].split() == ["all", "9", "196", "784", "B", "100.0%"]
    assert lines[4].split() == ["├─", "blocks", "6", "144", "576", "B", "73.5%"]
    assert lines[5].split() == ["│", "└─", "{0..2}", "6", "144", "576", "B", "73.5%"]
    assert lines[-1] == "9 tensors, 196 parameters, 784 B"
    assert len(ckpt("show", "a.pth", "--depth", "0", cwd=folder).out.splitlines()) == 6


def test_both_sides_stand_side_by_side_in_the_order_of_their_keys(folder):
    lines = ckpt("diff", "a.pth", "b.pth", "--side-by-side", cwd=folder).out.splitlines()
    assert [line.split()[0] for line in lines[3:-2]] == ["blocks.{0..2}.**", "head.weight", "head.bias", "odd|name.weight", "+"]
    assert " ~ head.weight" in lines[4]
    assert lines[-1] == "8 same, 1 differs, 1 added; values were not compared"


def test_other_dtypes_fold_beside_each_other_as_in_the_list_of_differences(tmp_path):
    sizes = {"conv.weight": (1, 2, 2), "conv.bias": (1,), "norm.weight": (1,)}
    state = {f"layers.{i}.{name}": torch.ones([8 * (i + 1) * size for size in shape]) for i in range(6) for name, shape in sizes.items()}
    torch.save(state, tmp_path / "full.pth")
    torch.save({key: value.half() for key, value in state.items()}, tmp_path / "half.pth")
    for options in ((), ("--values",)):
        listed = ckpt("diff", "half.pth", "full.pth", *options, cwd=tmp_path).out.splitlines()
        beside = ckpt("diff", "half.pth", "full.pth", "--side-by-side", *options, cwd=tmp_path).out.splitlines()
        assert sum(line.startswith("  ~ ") for line in listed) == 1
        assert [line.split()[0] for line in beside if " ~ " in line] == ["layers.{0..5}.**"]
        assert not any(line.endswith(" ") or " " * 20 in line for line in beside)


EXCLUDING_EACH_OTHER = (
    "--tree --json", "--format csv --keys", "--format csv --tree", "--health --digests", "--health --tree", "--digests --json",
    "--checksum --keys", "--checksum --digests", "--sort size --keys", "--sort size --digests", "--sort name --json",
    "--filter blocks.** --health", "--filter blocks.** --checksum", "--strict --health",
)  # fmt: skip


def test_options_that_exclude_each_other(folder):
    for options in EXCLUDING_EACH_OTHER:
        ran = ckpt("show", "a.pth", *options.split(), cwd=folder)
        assert (ran.status, ran.out) == (2, ""), options
        assert ran.err.startswith("error: --"), options
        assert all(word in ran.err for word in options.split() if word.startswith("--")), options
    for options in ("--side-by-side --json", "--side-by-side --format csv", "--format csv --json"):
        ran = ckpt("diff", "a.pth", "b.pth", *options.split(), cwd=folder)
        assert (ran.status, ran.out) == (2, ""), options
        assert ran.err.startswith(f"error: {options.split()[0]}: can't be asked together with "), options
    ran = ckpt("plan", "a.pth", "b.pth", "--format", "csv", "--json", cwd=folder)
    assert (ran.status, ran.out, ran.err) == (2, "", "error: --format: can't be asked together with --json; leave out one\n")


def test_an_option_with_two_names_is_called_as_it_was_typed(folder):
    for arguments in (("show", "a.pth"), ("diff", "a.pth", "b.pth")):
        for option in ("--filter", "--include"):
            assert ckpt(*arguments, option, "nosuch", cwd=folder).err.startswith(f"error: {option}: `nosuch` matches no key")
            assert ckpt(*arguments, f"{option}=nosuch", cwd=folder).err.startswith(f"error: {option}: `nosuch` matches no key")


@pytest.mark.parametrize("format_", ["csv", "tsv"])
def test_names_are_no_formulas_of_a_spreadsheet(tmp_path, format_):
    save_file({"=cmd|'/C calc'!A0": torch.ones(2, 3), "a.w": torch.ones(2)}, tmp_path / "a.safetensors")
    out = ckpt("show", "a.safetensors", "-v", "--format", format_, cwd=tmp_path).out
    assert not any(cell.lstrip('"').startswith("=") for line in out.splitlines() for cell in line.replace("\t", ",").split(","))
    assert "'=cmd" in out


def test_ties_and_views_count_once_wherever_their_twin_is(tmp_path):
    whole = torch.randn(1000)
    torch.save({"a.w": whole, "b.w": whole, "c.w": whole[:10]}, tmp_path / "a.pth")
    assert ckpt("show", "a.pth", "--filter", "b.*", cwd=tmp_path).out.splitlines()[-1].startswith("1 of 3 tensors, 1,000 parameters")
    assert "3 tensors, 1,000 parameters" in ckpt("show", "a.pth", cwd=tmp_path).out
    out = ckpt("show", "a.pth", "-v", cwd=tmp_path).out
    assert "= a.w" in out
    assert "in a.w" in out


def test_tensors_that_are_cast_alike_stand_on_one_line(tmp_path):
    state = {f"l.{i}.{name}": torch.ones(2) for i in range(9) for name in ("w", "b")} | {"n": torch.tensor(3)}
    torch.save({key: value.half() if key != "n" else value for key, value in state.items()}, tmp_path / "half.pth")
    torch.save(state, tmp_path / "full.pth")
    ran = ckpt("plan", "half.pth", "full.pth", "--dtype", "target", cwd=tmp_path)
    lines = [line.split() for line in ran.out.splitlines() if line.startswith("  ") and line.split()[-1].isdecimal()]
    assert lines == [["n", "1"], ["l.{0..8}.*:", "[cast:", "F32]", "18"]]
