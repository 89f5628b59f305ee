"""Numbers, texts and objects beside the tensors: what differs at any depth is named, and such files are not called identical."""

import argparse
import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from running import ckpt

import ckpt_tool
from ckpt_tool.api.remarks.values_beside import differing_values

RUN = {
    "model": {"w": torch.arange(4.0)}, "epoch": 3, "args": argparse.Namespace(lr=0.1, tags=["a", "b"], size=(2, 3)), "names": {"b", "a"},
    "optimizer": {"state": {0: {"m": torch.ones(4)}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999), "params": [0]}]}, "scores": [1.0, float("nan")],
}  # fmt: skip


def changed(change):
    other = copy.deepcopy(RUN)
    change(other)
    return other


CHANGES = [
    (lambda run: run["optimizer"]["param_groups"][0].update(lr=5.0), "1 value differs beside the tensors: optimizer.param_groups.0.lr 0.1 → 5.0"),
    (lambda run: run["optimizer"]["param_groups"][0].update(betas=(0.8, 0.999)), "1 value differs beside the tensors: optimizer.param_groups.0.betas.0 0.9 → 0.8"),
    (lambda run: setattr(run["args"], "lr", 0.2), "1 value differs beside the tensors: args.lr 0.1 → 0.2"),
    (lambda run: run["args"].tags.append("c"), "1 value differs beside the tensors: args.tags ['a', 'b'] → ['a', 'b', 'c']"),
    (lambda run: run.update(epoch=4), "1 value differs beside the tensors: epoch 3 → 4"),
    (lambda run: run.update(epoch=3.0), "1 value differs beside the tensors: epoch 3 → 3.0"),
    (lambda run: run.update(names={"a", "c"}), "1 value differs beside the tensors: names.1 'b' → 'c'"),
    (lambda run: run.update(step=7), "only b.pth has, beside its tensors: step 7"),
    (lambda run: run.pop("scores"), "only a.pth has, beside its tensors: scores [1.0, nan]"),
    (lambda run: run.update(scores=[1.0, 2.0]), "1 value differs beside the tensors: scores.1 nan → 2.0"),
]  # fmt: skip


@pytest.mark.parametrize("is_legacy", [False, True])
@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_each_change_is_named_and_not_identical(tmp_path, number, is_legacy):
    change, told = CHANGES[number]
    for name, content in (("a.pth", RUN), ("b.pth", changed(change))):
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=not is_legacy)
    ran = ckpt("diff", "a.pth", "b.pth", "--values", cwd=tmp_path)
    assert [line for line in ran.out.splitlines() if line.startswith("note: ")] == [f"note: {told}"]
    assert ran.out.splitlines()[-1].endswith("the same weights, bit for bit")
    assert not ckpt_tool.diff(tmp_path / "a.pth", tmp_path / "b.pth", values=True).identical


def test_files_of_the_same_content_are_identical(tmp_path):
    torch.save(RUN, tmp_path / "a.pth")
    torch.save(changed(lambda run: run.update(names={"a", "b"})), tmp_path / "b.pth", _use_new_zipfile_serialization=False)
    assert ckpt("diff", "a.pth", "b.pth", "--values", cwd=tmp_path).out.splitlines()[-1].endswith("identical")


def test_the_order_of_a_set_is_no_difference(tmp_path):
    for name, order in (("a.pth", (1, 2)), ("b.pth", (2, 1))):
        torch.save({"model": RUN["model"], "ids": {each * (2**61 - 1) for each in order}}, tmp_path / name)  # of one hash, so they stay in this order
    assert not [line for line in ckpt("diff", "a.pth", "b.pth", "--values", cwd=tmp_path).out.splitlines() if line.startswith("note: ")]


def test_values_beside_a_bare_state_dict_are_compared(tmp_path):
    for name, lr in (("a.pth", 1), ("b.pth", 2)):
        torch.save({"w": torch.ones(2), "args": {"lr": lr}}, tmp_path / name)
    assert "note: 1 value differs beside the tensors: args.lr 1 → 2" in ckpt("diff", "a.pth", "b.pth", "--values", cwd=tmp_path).out


def test_a_bare_state_dict_lacks_what_a_run_has(tmp_path):
    torch.save(RUN["model"], tmp_path / "a.pth")
    torch.save(RUN, tmp_path / "b.pth")
    ran = ckpt("diff", "a.pth", "b.pth", "--values", cwd=tmp_path)
    assert "note: only b.pth has, beside its tensors: epoch 3, " in ran.out
    assert ran.out.splitlines()[-1].endswith("the same weights, bit for bit")


@pytest.mark.parametrize("args", [{}, {"args": {"lr": 1}}])
def test_tensors_of_a_bare_state_dict_are_nothing_beside_it(tmp_path, args):
    torch.save(RUN["model"] | args, tmp_path / "a.pth")
    torch.save({"model": RUN["model"], "epoch": 1} | args, tmp_path / "b.pth")
    for sides in (("a.pth", "b.pth"), ("b.pth", "a.pth")):
        notes = [line for line in ckpt("diff", *sides, cwd=tmp_path).out.splitlines() if line.startswith("note: ")]
        assert notes == ["note: only b.pth has, beside its tensors: epoch 1"]


def test_a_tensor_that_one_optimizer_alone_has_is_named_once(tmp_path):
    torch.save(RUN, tmp_path / "a.pth")
    torch.save(changed(lambda run: run["optimizer"]["state"][0].update(v=torch.ones(4))), tmp_path / "b.pth")
    ran = ckpt("diff", "a.pth", "b.pth", "--values", cwd=tmp_path)
    assert [line.split() for line in ran.out.splitlines() if "state.0.v" in line] == [["+", "optimizer.state.0.v", "F32", "4"]]


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3) | st.tuples(inner, inner), max_leaves=12)


def same(a, b):
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and type(a) is type(b):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))


@settings(max_examples=300)
@given(VALUES, VALUES)
def test_there_is_a_difference_where_values_differ(one, other):
    assert (not list(differing_values(one, other))) is same(one, other)
    assert not list(differing_values(one, copy.deepcopy(one)))


def test_what_refers_to_itself_ends():
    one, other = {"x": 1}, {"x": 2}
    one["self"], other["self"] = one, other
    assert [each.path for each in differing_values(one, other)] == ["x"]
