"""Tied weights of a target: keys that are one tensor, and what becomes of them."""

import pytest
import torch

from ckpt_tool import MappingOptions, RuleError
from ckpt_tool.api import map_checkpoint
from ckpt_tool.formats import open_checkpoint
from ckpt_tool.mapping import compile_plan, plan_by_name, read_inline_rules
from ckpt_tool.mapping.accounting.account import A_PART
from ckpt_tool.tensors import Catalog, DType, TensorInfo


@pytest.fixture
def tied(tmp_path):
    """The path of a network's file in which `head.weight` is `embed.weight`, and `view.weight` lies in the same storage."""
    storage = torch.randn(80)
    weight = storage[:32].view(8, 4)
    tensors = {"embed.weight": weight, "norm.weight": torch.randn(4), "view.weight": storage[40:72].view(8, 4), "head.weight": weight}
    torch.save(tensors, tmp_path / "target.pth")
    return str(tmp_path / "target.pth")


def mapped(tmp_path, target, source, *rules, **how):
    torch.save(source, tmp_path / "source.pth")
    with open_checkpoint(target) as checkpoint:
        before = {key: checkpoint.read(key) for key in checkpoint.catalog}
    written = map_checkpoint(str(tmp_path / "source.pth"), target, str(tmp_path / "out.pth"), MappingOptions(inline=rules, **how))
    return written, before, torch.load(tmp_path / "out.pth")


def test_what_is_one_tensor_is_told_from_what_shares_a_storage(tied):
    with open_checkpoint(tied) as checkpoint:
        assert [(info.shared_storage_with, info.tied_to) for info in checkpoint.catalog.values()] == [
            (None, None), (None, None), ("embed.weight", None), ("embed.weight", "embed.weight"),
        ]  # fmt: skip


@pytest.mark.parametrize("name", ["embed.weight", "head.weight"])
def test_by_name_a_tied_key_gets_what_its_twin_gets(tmp_path, tied, name):
    weight = torch.randn(8, 4)
    _, before, out = mapped(tmp_path, tied, {name: weight}, keep=("norm.*", "view.*"))
    assert torch.equal(out["embed.weight"], weight)
    assert torch.equal(out["head.weight"], weight)
    assert out["head.weight"].data_ptr() == out["embed.weight"].data_ptr()
    assert torch.equal(out["view.weight"], before["view.weight"])
    assert torch.equal(out["norm.weight"], before["norm.weight"])


def test_the_plan_tells_of_it(tied):
    source = Catalog([TensorInfo("embed.weight", DType.F32, (8, 4))])
    with open_checkpoint(tied) as target:
        plan = plan_by_name(source, target.catalog, named=A_PART)
    assert plan.notes == ("`head.weight` is tied to `embed.weight` in the target, and gets the same",)
    assert (plan.counts, plan.kept) == ({"mapped": 2, "kept": 2, "dropped": 0}, ("norm.weight", "view.weight"))


def test_a_cast_is_made_of_both(tmp_path, tied):
    weight = torch.randn(8, 4).half()
    _, _, out = mapped(tmp_path, tied, {"embed.weight": weight}, dtypes="target", partial=True)
    assert torch.equal(out["head.weight"], weight.float())
    assert torch.equal(out["embed.weight"], weight.float())


def test_rules_that_take_ties_apart_are_told(tmp_path, tied):
    weight = torch.randn(8, 4)
    _, before, out = mapped(tmp_path, tied, {"w": weight}, "w -> embed.weight", keep=("**",))
    assert torch.equal(out["head.weight"], before["head.weight"])
    with open_checkpoint(tied) as target:
        one = Catalog([TensorInfo("w", DType.F32, (8, 4))])
        plan = compile_plan(read_inline_rules(["w -> embed.weight"], keep=["**"]), one, target.catalog)
        assert plan.notes == (
            "`head.weight` is kept, but the target ties it to `embed.weight`, which is mapped: a model that ties them has what is loaded last",
        )
        two = Catalog([TensorInfo("w", DType.F32, (8, 4)), TensorInfo("h", DType.F32, (8, 4))])
        plan = compile_plan(read_inline_rules(["w -> embed.weight", "h -> head.weight"], keep=["**"]), two, target.catalog)
        assert plan.notes == (
            "`head.weight` is mapped from elsewhere than `embed.weight`, which the target ties it to: a model that ties them has what is loaded last",
        )
        same = Catalog([TensorInfo("w", DType.F32, (8, 4)), TensorInfo("h", DType.F32, (8, 4), "w", "w")])
        assert compile_plan(read_inline_rules(["w -> embed.weight", "h -> head.weight"], keep=["**"]), same, target.catalog).notes == ()


def test_a_tied_key_that_nothing_names_is_told_with_the_rule_for_both(tmp_path, tied):
    torch.save({"w": torch.randn(8, 4)}, tmp_path / "source.pth")
    ways = [str(tmp_path / "source.pth"), tied, str(tmp_path / "out.pth")]
    with pytest.raises(RuleError) as raised:
        map_checkpoint(*ways, MappingOptions(inline="w -> embed.weight", keep=("norm.*", "view.*")))  # type: ignore[call-arg]
    note = "`head.weight` is tied to `embed.weight` in the target: a rule for both ends in `-> {embed.weight,head.weight}: copy`"
    assert raised.value.problems[0].notes[-1] == note
    map_checkpoint(*ways, MappingOptions(inline="w -> {embed.weight,head.weight}: copy", keep=("norm.*", "view.*")))  # type: ignore[call-arg]
    out = torch.load(tmp_path / "out.pth")
    assert out["head.weight"].data_ptr() == out["embed.weight"].data_ptr()


def test_many_ties_are_counted():
    first = TensorInfo("a.0", DType.F32, (2,))
    target = Catalog([first, *(TensorInfo(f"a.{i}", DType.F32, (2,), "a.0", "a.0") for i in range(1, 101))])
    notes = plan_by_name(Catalog([first]), target).notes
    assert (len(notes), notes[-1]) == (13, "88 more get the same as what they are tied to in the target")


def test_many_tied_keys_are_told_in_one_line():
    target = [TensorInfo(f"a.{i}.w", DType.F32, (2,)) for i in range(30)]
    target += [TensorInfo(f"b.{i}.w", DType.F32, (2,), f"a.{i}.w", f"a.{i}.w") for i in range(30)]
    source = Catalog([TensorInfo(f"{side}.{i}.w", DType.F32, (2,)) for side in "ab" for i in range(30)])
    kept = compile_plan(read_inline_rules(["a.** -> a.**"], drop=["b.**"], keep=["b.**"]), source, Catalog(target))
    end = "a model that ties them has what is loaded last"
    assert kept.notes == (f"`b.**` (30) are kept, but the target ties them to keys that are mapped: {end}",)
    mapped = compile_plan(read_inline_rules(["** -> **"]), source, Catalog(target))
    assert mapped.notes == (f"`b.**` (30) are mapped from elsewhere than the keys that the target ties them to: {end}",)
