"""Tensors of a model that share memory keep what they were given; those that don't share it never come to."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import ckpt_tool
from ckpt_tool import InputError, MappingOptions, RuleError
from ckpt_tool.api import map_checkpoint


def pair(device="cpu"):
    with torch.device(device):
        return nn.ModuleDict({"a": nn.Linear(3, 3, bias=False), "b": nn.Linear(3, 3, bias=False)})


def loaded(model, source, rule, **others):
    return ckpt_tool.load_into(model, source, options=MappingOptions(inline=(rule,), **others))


@pytest.mark.parametrize(
    ("shape", "rule"),
    [
        ((3, 3), "x -> {a,b}.weight: copy"),
        ((6, 3), "x -> {a,b}.weight: {split: 0}"),
        ((3, 6), "x -> {a,b}.weight: {split: 1}"),
        ((2, 3, 3), "x -> {a,b}.weight: {unstack: 0}"),
        ((3, 3), "x -> {a,b}.weight: [transpose, copy]"),
        ((3, 3), "x -> {a,b}.weight: [{repeat: {dim: 0, times: 2}}, {split: 0}]"),
    ],
)
def test_on_the_meta_device_as_on_any_each_has_memory_of_its_own(shape, rule, tmp_path):
    source = {"x": torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)}
    on_cpu, on_meta = pair(), pair("meta")
    for model in (on_cpu, on_meta):
        loaded(model, source, rule)
    ours, others = on_meta["a"].weight, on_meta["b"].weight
    assert all(torch.equal(one, other) for one, other in zip(on_meta.parameters(), on_cpu.parameters(), strict=True))
    assert ours.untyped_storage().data_ptr() != others.untyped_storage().data_ptr()
    assert ours.untyped_storage().nbytes() == ours.nbytes
    assert ours.is_contiguous()
    before = others.clone()
    with torch.no_grad():
        ours.add_(1)
    assert torch.equal(others, before)
    save_file(on_meta.state_dict(), tmp_path / "whole.safetensors")


def test_the_layout_of_a_meta_parameter_and_what_was_noted_on_it_stay():
    with torch.device("meta"):
        model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    class Tagged(nn.Parameter):
        pass

    model.bias = Tagged(model.bias.data)
    model.weight.rate = 0.1
    model.weight.requires_grad_(False)
    source = nn.Conv2d(3, 4, 3)
    ckpt_tool.load_into(model, source)
    assert torch.equal(model.weight, source.weight)
    assert model.weight.is_contiguous(memory_format=torch.channels_last)
    assert (model.weight.rate, model.weight.requires_grad, model.bias.requires_grad) == (0.1, False, True)
    assert (type(model.bias), dict(model.named_parameters()).keys()) == (Tagged, {"weight", "bias"})
    model(torch.ones(1, 3, 4, 4)).sum().backward()
    assert model.bias.grad is not None


def test_a_model_that_is_loaded_in_inference_mode_can_be_trained():
    source = pair()
    for device in ("cpu", "meta"):
        model = pair(device)
        with torch.inference_mode():
            ckpt_tool.load_into(model, source)
        assert not model["a"].weight.is_inference()
        model["a"](torch.ones(1, 3)).sum().backward()
        assert model["a"].weight.grad is not None


class Overlapping(nn.Module):
    """A flat buffer and a slice of it."""

    def __init__(self):
        super().__init__()
        self.flat = nn.Parameter(torch.zeros(6))
        self.register_buffer("part", self.flat.data[2:4])


def test_a_tensor_and_its_slice_get_what_they_both_can_hold():
    model = Overlapping()
    flat = torch.arange(6.0)
    report = ckpt_tool.load_into(model, {"flat": flat, "part": flat[2:4].clone()})
    assert report.loaded == ("flat", "part")
    assert torch.equal(model.flat, flat)
    model = Overlapping()
    with pytest.raises(RuleError) as raised:
        ckpt_tool.load_into(model, {"flat": flat, "part": torch.ones(2)})
    assert str(raised.value).splitlines() == [
        "`flat` lies in the same memory of the model as `part`, and would not keep the values that it gets",
        "  = load the one, and keep the other",
    ]
    assert not model.flat.any()


def test_what_is_kept_and_lies_in_what_is_loaded_is_told_or_refused():
    model = Overlapping()
    report = loaded(model, {"flat": torch.arange(6.0)}, "** -> **", keep=("part",))
    assert (report.loaded, report.fresh) == (("flat", "part"), ())
    assert report.notes == ("`part` lies in the memory of `flat`, and was loaded with it",)
    assert torch.equal(model.part, torch.tensor([2.0, 3.0]))
    model = Overlapping()
    with pytest.raises(RuleError, match="`flat` would be kept, but a part of it lies in the memory of `part`, which is loaded"):
        loaded(model, {"part": torch.ones(2)}, "** -> **", keep=("flat",))
    assert not model.flat.any()


class Conjugates(nn.Module):
    def __init__(self, values, with_more=False):
        super().__init__()
        self.register_buffer("a", torch.tensor(values))
        self.register_buffer("b", self.a.conj())
        self.register_buffer("x", torch.zeros(2), persistent=with_more)


def test_a_conjugate_is_no_tie(tmp_path):
    values, new = [1 + 2j, 3 + 4j], torch.tensor([5 + 6j, 7 - 8j])
    model = Conjugates(values)
    ckpt_tool.load_into(model, {"a": new, "b": new.conj().resolve_conj()})
    assert torch.equal(model.a, new)
    assert torch.equal(model.b.resolve_conj(), new.conj().resolve_conj())
    with pytest.raises(RuleError, match="`a` lies in the same memory of the model as `b`"):
        ckpt_tool.load_into(Conjugates(values), {"a": new, "b": new})
    model = Conjugates(values)
    report = loaded(model, {"a": new}, "** -> **", keep=("b",))
    assert report.notes == ("`b` lies in the memory of `a`, and was loaded with it",)
    assert torch.equal(model.b.resolve_conj(), new.conj().resolve_conj())
    source = ckpt_tool.load_into(Conjugates([0j, 0j]), Conjugates(values)).plan.source
    assert (source["b"].shared_storage_with, source["b"].tied_to) == ("a", None)


def test_a_matrix_and_its_transpose():
    class Transposed(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(2, 3))
            self.t = nn.Parameter(self.w.data.t())

    model, w = Transposed(), torch.arange(6.0).reshape(2, 3)
    ckpt_tool.load_into(model, {"w": w, "t": w.t().contiguous()})
    assert torch.equal(model.w, w)
    with pytest.raises(RuleError, match="`w` lies in the same memory of the model as `t`"):
        ckpt_tool.load_into(Transposed(), {"w": w, "t": w.reshape(3, 2)})


def test_tensors_side_by_side_in_one_storage_are_no_matter():
    class Interleaved(nn.Module):
        def __init__(self):
            super().__init__()
            flat = torch.zeros(4, 6)
            self.left, self.right, self.rest = (nn.Parameter(flat[:, :2]), nn.Parameter(flat[:, 2:4]), nn.Parameter(flat[:, 4:]))

    model = Interleaved()
    report = loaded(model, {"left": torch.ones(4, 2), "right": torch.full((4, 2), 2.0)}, "** -> **", keep=("rest",))
    assert (report.fresh, report.notes) == (("rest",), ())
    assert (model.left.eq(1).all(), model.right.eq(2).all(), model.rest.eq(0).all()) == (True, True, True)


def test_on_the_meta_device_what_lies_over_others_is_refused_and_ties_stay():
    with torch.device("meta"):
        overlapping, tied = Overlapping(), pair()
        tied["b"].weight = nn.Parameter(tied["a"].weight.data)
    with pytest.raises(
        InputError, match="`flat` overlaps other tensors of the model, which can't be kept up where there is no memory yet"
    ):
        ckpt_tool.load_into(overlapping, {"flat": torch.ones(6), "part": torch.ones(2)})
    loaded(tied, {"a.weight": torch.ones(3, 3)}, "** -> **", keep=("b.weight",))
    with torch.no_grad():
        tied["a"].weight.add_(1)
    assert tied["b"].weight.eq(2).all()
    assert tied["b"].weight is not tied["a"].weight


def test_buffers_outside_of_the_state_dict_without_values_are_told():
    with torch.device("meta"):
        model = pair()
        model.register_buffer("positions", torch.arange(4), persistent=False)
    report = ckpt_tool.load_into(model, pair())
    assert report.notes == ("1 tensor outside of the state dict is on the meta device, without any values: `positions`",)


def test_kept_buffers_of_a_factory_are_written_with_their_own_values(tmp_path, monkeypatch):
    (tmp_path / "conjugate_buffers.py").write_text(
        "import torch\nfrom tests.training.test_shared_memory import Conjugates\n\n\ndef build():\n    return Conjugates([1 + 2j, 3 + 4j], with_more=True)\n"
    )
    monkeypatch.chdir(tmp_path)
    torch.save({"x": torch.ones(2)}, "x.pth")
    how = MappingOptions(inline=("x -> x",), keep=("a", "b"))
    for name in ("kept.pth", "kept.safetensors"):
        map_checkpoint("x.pth", "conjugate_buffers:build", name, how)
        with ckpt_tool.open(name) as written:
            assert written.read("a").tolist() == [1 + 2j, 3 + 4j]
            assert written.read("b").tolist() == [1 - 2j, 3 - 4j]


class OfArrays(nn.Module):
    """Two storages, of which one lies in the other."""

    def __init__(self):
        super().__init__()
        array = torch.zeros(8).numpy()
        self.register_buffer("w", torch.from_numpy(array))
        self.register_buffer("v", torch.from_numpy(array[4:]))


def test_storages_that_lie_over_each_other_are_one_memory():
    model, w = OfArrays(), torch.arange(8.0)
    report = loaded(model, {"w": w}, "** -> **", keep=("v",))
    assert (report.loaded, report.fresh) == (("w", "v"), ())
    assert report.notes == ("`v` lies in the memory of `w`, and was loaded with it",)
    with pytest.raises(RuleError, match="`w` would be kept, but a part of it lies in the memory of `v`, which is loaded"):
        loaded(OfArrays(), {"v": torch.ones(4)}, "** -> **", keep=("w",))
    with pytest.raises(RuleError, match="`w` lies in the same memory of the model as `v`"):
        ckpt_tool.load_into(OfArrays(), {"w": w, "v": torch.ones(4)})
    model = OfArrays()
    ckpt_tool.load_into(model, {"w": w, "v": w[4:].clone()})
    assert torch.equal(model.w, w)


def test_a_source_that_lies_over_the_model_in_another_storage_stays_as_it_was():
    array = torch.arange(8.0).numpy()
    model = nn.Module()
    model.register_buffer("a", torch.from_numpy(array[:4]))
    model.register_buffer("b", torch.from_numpy(array[4:]))
    before = torch.from_numpy(array[1:5]).clone()
    loaded(model, {"x": torch.from_numpy(array[1:5])}, "x -> {a,b}: copy")
    assert torch.equal(model.a, before)
    assert torch.equal(model.b, before)


def test_lines_of_shared_memory_are_one_a_pattern():
    def of(count):
        return nn.ModuleList([Overlapping() for _ in range(count)])

    def told(source, **options):
        with pytest.raises(RuleError) as raised:
            ckpt_tool.load_into(of(30), source, **options)
        return [line for line in str(raised.value).splitlines() if line.startswith("`")]

    parts = {f"{i}.part": torch.ones(2) for i in range(30)}
    flats = {f"{i}.flat": torch.zeros(6) for i in range(30)}
    assert told(parts, keep="*.flat") == [
        "`{0..29}.flat` (30) would be kept, but a part of each lies in the memory of others, which are loaded",
    ]
    assert told(parts | flats) == ["`{0..29}.flat` (30) lie in the same memory of the model as others, and would not keep their values"]


def test_ties_that_would_get_two_values_are_one_line_a_pattern():
    model = nn.ModuleList([pair() for _ in range(30)])
    for each in model:
        each["b"].weight = each["a"].weight
    source = {key: torch.full((3, 3), float(place)) for place, key in enumerate(model.state_dict())}
    with pytest.raises(RuleError) as raised:
        ckpt_tool.load_into(model, source)
    told = "`{0..29}.b.weight` (30) are one tensor of the model each with another key, and would get different values"
    assert str(raised.value).splitlines()[0] == told


def test_a_device_for_new_tensors_around_the_call_is_no_matter():
    model, flat = Overlapping(), torch.arange(6.0)
    source = {"flat": flat, "part": flat[2:4].clone()}
    with torch.device("meta"):
        report = ckpt_tool.load_into(model, source)
    assert report.loaded == ("flat", "part")
    assert torch.equal(model.flat, flat)
