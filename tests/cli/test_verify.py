"""`ckpt verify`: what was written is proved, and what is wrong is named with its place."""

import itertools
import json
import shlex

import pytest
import torch
from running import ckpt
from safetensors.torch import load_file, save_file

RULES = ("-e", "{q,k}.w -> qk.w: {concat: 0}", "-e", "n -> n", "-e", "b -> b")


@pytest.fixture
def folder(tmp_path):
    torch.save({"q.w": torch.randn(3, 4), "k.w": torch.randn(3, 4), "n": torch.tensor(3), "b": torch.randn(2, 3, 4)}, tmp_path / "in.pth")
    assert ckpt("map", "in.pth", *RULES, "-o", "out.safetensors", cwd=tmp_path).status == 0
    return tmp_path


def verify(folder, *more):
    return ckpt("verify", "out.safetensors", "in.pth", *RULES, *more, cwd=folder)


def change(folder, **changes):
    tensors = load_file(folder / "out.safetensors")
    save_file({key: value for key, value in (tensors | changes).items() if value is not None}, folder / "out.safetensors")


def test_what_was_written_is_what_the_plan_says(folder):
    ran = verify(folder)
    assert (ran.status, ran.out) == (0, "out.safetensors is what the plan says, bit for bit: 3 tensors\n")


def test_the_first_wrong_tensor_is_named_with_its_place(folder):
    wrong = load_file(folder / "out.safetensors")
    wrong["b"][1, 2, 3] += 1
    wrong["qk.w"][4, 0] = -wrong["qk.w"][4, 0]
    change(folder, **wrong)
    ran = verify(folder)
    assert ran.status == 1
    assert ran.out.splitlines() == [
        "qk.w first differs at [4, 0]",
        "b first differs at [1, 2, 3]",
        "out.safetensors is not what the plan says: 2 tensors differ from it",
    ]


def test_missing_unexpected_and_other_forms_are_named(folder):
    change(folder, n=None, x=torch.ones(1), b=torch.ones(2, 3))
    report = json.loads(verify(folder, "--json").out)
    assert report["verified"] is False
    assert {each["key"]: each["fact"] for each in report["mismatches"]} == {
        "n": "is missing",
        "x": "is not in the plan",
        "b": "has 2×3, the plan says 2×3×4",
    }


def test_rules_that_do_not_fit_prove_nothing(folder):
    ran = ckpt("verify", "out.safetensors", "in.pth", "-e", "zz -> n", cwd=folder)
    assert (ran.status, "dead-rule" in ran.err) == (2, True)
    assert "nothing of out.safetensors was compared" in ran.err
    assert ckpt("verify", "none.pth", "in.pth", *RULES, cwd=folder).status == 2


def test_tensors_that_differ_alike_are_one_line(tmp_path):
    state = {f"h.{i}.{name}": torch.randn(2, 2) for i in range(12) for name in ("w", "b")}
    torch.save(state | {"end": torch.ones(2)}, tmp_path / "in.pth")
    other = {key: value + 1 if key.endswith("w") else value for key, value in state.items() if key[:3] not in ("h.3", "h.4")}
    torch.save(other | {"end": torch.ones(3), "more": torch.ones(1)}, tmp_path / "out.pth")
    ran = ckpt("verify", "out.pth", "in.pth", "-e", "** -> **", cwd=tmp_path)
    assert ran.out.splitlines() == [
        "h.{0..2,5..11}.w (10 tensors): each differs: h.0.w at [0, 0]",
        "h.{3..4}.* (4 tensors): each is missing",
        "end has 3, the plan says 2",
        "more is not in the plan",
        "out.pth is not what the plan says: 16 tensors differ from it",
    ]
    assert len(ckpt("verify", "out.pth", "in.pth", "-e", "** -> **", "-v", cwd=tmp_path).out.splitlines()) == 17


SIDES = {
    "rules are missing": (("out.pth", "a.pth", "b.pth"), "hint: give the rules and options that out.pth was written with (-r, -e, --drop, …)"),
} | {
    " ".join(order): ((*order, "-r", "r.yaml"), "hint: the order is OUT SOURCE TARGET: the rules lead from a.pth to the keys of out.pth")
    for order in itertools.permutations(["out.pth", "a.pth", "b.pth"]) if order[1] != "a.pth"
}  # fmt: skip


@pytest.mark.parametrize("slip", SIDES)
def test_forgotten_rules_and_swapped_sides_are_no_answer_and_lead_to_one(tmp_path, slip):
    a = {f"conv{i}.{name}": torch.randn(i + 2, 3) for i in range(3) for name in ("weight", "bias")}
    torch.save(a, tmp_path / "a.pth")
    torch.save({f"body.c{key[4:]}": torch.zeros_like(value) for key, value in a.items()}, tmp_path / "b.pth")
    (tmp_path / "r.yaml").write_text('rules:\n  - "conv{i}.* -> body.c{i}.*"\n')
    assert ckpt("map", "a.pth", "b.pth", "-r", "r.yaml", "-o", "out.pth", cwd=tmp_path).status == 0
    arguments, hint = SIDES[slip]
    ran = ckpt("verify", *arguments, cwd=tmp_path)
    assert ran.status == 2
    *_, said, line = ran.err.splitlines()
    assert said.startswith(hint)
    assert line.startswith("next: ckpt verify out.pth a.pth b.pth ")
    assert ckpt(*shlex.split(line.removeprefix("next: ckpt ")), cwd=tmp_path).status == 0
    report = json.loads(ckpt("verify", *arguments, "--json", cwd=tmp_path).out)
    assert (report["verified"], report["next"]) == (False, line.removeprefix("next: "))


def test_an_order_of_files_that_nothing_tells_is_no_command(tmp_path):
    torch.save({"a.w": torch.ones(2, 3)}, tmp_path / "a.pth")
    for name in ("out", "init"):
        torch.save({"b.w": torch.ones(2, 3)}, tmp_path / f"{name}.pth")
    ran = ckpt("verify", "a.pth", "out.pth", "init.pth", "-e", "a.** -> b.**", cwd=tmp_path)
    assert ran.status == 2
    assert "hint: the order is OUT SOURCE TARGET: the rules lead from a.pth to the keys of " in ran.err
    assert "next:" not in ran.err


def test_keys_that_both_sides_have_are_mapped_by_a_last_rule(tmp_path):
    torch.save({"a.w": torch.ones(2), "b.w": torch.ones(2)}, tmp_path / "one.pth")
    for target, said in (([], "lets the others keep their names"), (["one.pth"], "maps the 1 key that both sides have under one name")):
        words = ["one.pth", *target, "-e", "a.** -> a.**", "-o", "new.pth"]
        ran = ckpt("map", *words, cwd=tmp_path)
        assert (ran.status, f"= a last `-e '** -> **'` {said}" in ran.err) == (1, True), ran.err
        assert "nearest key" not in ran.err
        assert ckpt("map", *words[:-2], "-e", "** -> **", "-o", f"{len(target)}.pth", cwd=tmp_path).status == 0


def test_a_key_list_is_target_enough_where_nothing_of_it_is_kept(tmp_path):
    torch.save({"a.w": torch.randn(2, 3), "b.w": torch.randn(4)}, tmp_path / "in.pth")
    (tmp_path / "all.keys").write_text(ckpt("show", "--keys", "in.pth", cwd=tmp_path).out)
    (tmp_path / "more.keys").write_text((tmp_path / "all.keys").read_text() + "c.w\tF32\t2\n")
    assert ckpt("map", "in.pth", "all.keys", "-o", "out.pth", cwd=tmp_path).status == 0
    assert ckpt("verify", "out.pth", "in.pth", "all.keys", cwd=tmp_path).status == 0
    ran = ckpt("verify", "out.pth", "in.pth", "more.keys", "--keep", "c.w", cwd=tmp_path)
    assert (ran.status, ran.err) == (2, "error: more.keys: is a key list: it has no values for the keys that are kept; give a checkpoint\n")
    for words in (["out.pth", "all.keys", "in.pth"], ["all.keys", "in.pth", "in.pth"]):
        ran = ckpt("verify", *words, cwd=tmp_path)
        assert (ran.status, ran.err) == (2, "error: all.keys: is a key list: it has no values to compare; give a checkpoint\n")
