"""Checkpoints in training scripts: what is loaded, what is frozen, which group a parameter is in."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from seeded import fill_with_seeded_values
from torch import nn

import ckpt_tool
from ckpt_tool import InputError, MappingOptions, RuleError


def net(classes=3, seed=0, width=4):
    layers = [nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)]
    return fill_with_seeded_values(nn.Sequential(*layers), seed)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.pth"
    torch.save(net(classes=10, seed=1).state_dict(), path)
    return str(path)


def equal_keys(model, path):
    saved = torch.load(path, weights_only=True)
    return {key for key, value in model.state_dict().items() if key in saved and torch.equal(value, saved[key])}


def test_report_names_every_key(source):
    model = net()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    report = ckpt_tool.load_into(model, source)
    assert report.loaded == ("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked")
    assert report.fresh == report.dropped == ("5.weight", "5.bias")
    assert equal_keys(model, source) == set(report.loaded)
    assert all(torch.equal(model.state_dict()[key], before[key]) for key in report.fresh)
    assert str(report).splitlines() == [
        "loaded   0.*  2",
        "         1.*  5",
        "fresh    5.*  2",
        "dropped  5.*  2",
        "",
        "note: `5.weight`: 10×4 in the source, 3×4 in the target; stays fresh",
        "note: `5.bias`: 10 in the source, 3 in the target; stays fresh",
        "",
        "7 loaded, 2 kept fresh, 2 dropped",
    ]


def test_rules_and_ways_are_those_of_the_command_line(source, tmp_path):
    (tmp_path / "rules.yaml").write_text("rules: ['0.* -> 0.*', '1.* -> 1.*']\ndrop: ['5.*']\nkeep: ['5.*']\n")
    assert len(ckpt_tool.load_into(net(), source, rules=str(tmp_path / "rules.yaml")).loaded) == 7
    assert len(ckpt_tool.load_into(net(), source, by="position", expect=7).loaded) == 7
    assert len(ckpt_tool.load_into(net(), source, rules=["0.* -> 0.*"], drop=["1.*", "5.*"], keep="**").loaded) == 2
    assert len(ckpt_tool.load_into(net(), source, options=MappingOptions(inline=("0.* -> 0.*",), drop=("1.*", "5.*"), keep=("**",))).loaded) == 2
    with pytest.raises(InputError, match="drop: is given twice"):
        ckpt_tool.load_into(net(), source, drop="1.*", options=MappingOptions(drop="5.*"))


def test_no_exception_means_that_every_key_is_loaded_or_was_named(source):
    other = nn.Sequential(*net()[:5], nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3)))
    before = {key: value.clone() for key, value in other.state_dict().items()}
    with pytest.raises(RuleError) as raised:
        ckpt_tool.load_into(other, source)
    assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items())
    assert (raised.value.tally.mapped, raised.value.tally.fresh, raised.value.tally.left) == (7, 4, 2)
    assert raised.value.next == {"drop": ["5.*"], "keep": ["5.**"]}
    assert str(raised.value).splitlines()[-1] == "next: drop=['5.*'], keep=['5.**']"
    for way in (raised.value.next, {"partial": True}, {"expect": 7}):
        report = ckpt_tool.load_into(other, source, **way)
        assert (len(report.loaded), len(report.fresh), len(report.dropped)) == (7, 4, 2)


def test_what_does_not_fit_raises_before_anything_is_loaded(source):
    model = net()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(RuleError, match="neither mapped nor dropped"):
        ckpt_tool.load_into(model, source, options=MappingOptions(inline=("0.* -> 0.*",)))
    with pytest.raises(RuleError, match="7 mapped, but 9 are expected"):
        ckpt_tool.load_into(model, source, options=MappingOptions(expect=9))
    with pytest.raises(InputError, match="no such file"):
        ckpt_tool.load_into(model, source + "x")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_what_is_raised_says_every_reason_with_what_to_do(source):
    with pytest.raises(RuleError) as raised:
        ckpt_tool.load_into(net(), source, options=MappingOptions(inline=("0.* -> 0.*", "1.wieght -> 1.weight"), drop=("5.*", "1.*"), keep=("5.*", "1.*")))
    assert str(raised.value).splitlines() == ["rules:2:1: `1.wieght` matches no key of the source", "  = nearest key: 1.weight"]
    with pytest.raises(RuleError) as raised:
        ckpt_tool.load_into(net(), source, options=MappingOptions(inline=tuple(f"a{i} -> b{i}" for i in range(12)), drop=("**",), keep=("**",)))
    assert str(raised.value).splitlines()[-1] == "and 2 more problems"


def test_a_part_of_a_model_is_named_with_all_that_is_below_it():
    model = nn.ModuleDict({"encoder": net()})
    with pytest.raises(RuleError, match=r"`encoder` matches no key of the model[^`]*`encoder.\*\*` matches [0-9]+ keys: "):
        ckpt_tool.freeze(model, "encoder")
    with pytest.raises(RuleError, match=r"`encoder.\*` matches no key of the model[^`]*`encoder.\*\*` matches [0-9]+ keys: "):
        ckpt_tool.freeze(model, "encoder.*")


def test_another_dtype_is_loaded_only_when_told(source):
    with pytest.raises(RuleError, match="would get F32, the target has BF16"):
        ckpt_tool.load_into(net().bfloat16(), source)
    model = net().bfloat16()
    ckpt_tool.load_into(model, source, options=MappingOptions(dtypes="target"))
    assert torch.equal(model[0].weight, torch.load(source)["0.weight"].bfloat16())


def test_a_state_dict_in_memory_is_a_source():
    donor, model = net(seed=5), net(seed=6)
    assert len(ckpt_tool.load_into(model, donor.state_dict()).loaded) == 9
    assert torch.equal(model[5].weight, donor[5].weight)


def test_wrapped_models_count_by_their_inner_keys(source):
    for wrap in (nn.DataParallel, torch.compile, lambda m: torch.compile(nn.DataParallel(m))):
        inner = net()
        report = ckpt_tool.load_into(wrap(inner), source)
        assert len(report.loaded) == 7
        assert equal_keys(inner, source) == set(report.loaded)
        assert len(report.freeze(wrap(inner)).parameters) == 4


def test_distributed_data_parallel(source, tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        inner = net()
        assert len(ckpt_tool.load_into(nn.parallel.DistributedDataParallel(inner), source).loaded) == 7
        assert len(equal_keys(inner, source)) == 7
    finally:
        torch.distributed.destroy_process_group()


def test_a_model_on_the_meta_device_gets_real_tensors(source):
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    how = MappingOptions(inline=("0.* -> 0.*", "1.* -> 1.*"), drop=("5.*",))
    report = ckpt_tool.load_into(model, source, options=how)
    assert not any(value.is_meta for value in model.state_dict().values())
    assert equal_keys(model, source) == set(report.loaded)


def train_a_step(model, optimizer=None):
    optimizer = optimizer or torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model.train()
    model(torch.randn(4, 3, 8, 8)).square().mean().backward()
    optimizer.step()


def test_frozen_is_exactly_what_was_loaded_running_statistics_too(source):
    model = net()
    report = ckpt_tool.load_into(model, source)
    frozen = report.freeze(model)
    assert frozen.parameters == ("0.weight", "0.bias", "1.weight", "1.bias")
    assert frozen.modules == ("1",)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    train_a_step(model)
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == set(report.fresh)
    assert (model.training, model[0].training, model[1].training) == (True, True, False)


def test_frozen_statistics_survive_copies_and_pickles(source):
    model = net()
    ckpt_tool.load_into(model, source).freeze(model)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        before = twin[1].running_mean.clone()
        train_a_step(twin)
        assert torch.equal(twin[1].running_mean, before)
    assert model[1].training is False


def test_frozen_models_are_saved_whole_without_naming_this_package(source, tmp_path):
    model = net()
    ckpt_tool.load_into(model, source).freeze(model)
    torch.save(model, tmp_path / "whole.pth")
    assert b"ckpt_tool" not in (tmp_path / "whole.pth").read_bytes()
    reader = "import sys, torch; sys.modules['ckpt_tool'] = None; m = torch.load('whole.pth', weights_only=False); kind = type(m[1])"
    reader += "; assert kind is torch.nn.BatchNorm2d; before = m[1].running_mean.clone(); m.train(); m(torch.randn(4, 3, 8, 8))"
    reader += "; assert torch.equal(m[1].running_mean, before) and not m[1].weight.requires_grad"
    subprocess.run([sys.executable, "-c", reader], cwd=tmp_path, check=True)


def test_frozen_normalisations_are_of_their_class_and_can_be_scripted_and_converted():
    model = nn.Sequential(nn.BatchNorm2d(3, momentum=None), nn.InstanceNorm2d(3, track_running_stats=True))
    ckpt_tool.freeze(ckpt_tool.freeze(model, "**") and model, "**")
    assert [type(layer).__name__ for layer in model] == ["BatchNorm2d", "InstanceNorm2d"]
    assert [isinstance(layer, nn.modules.batchnorm._NormBase) for layer in model] == [True, True]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model))
    assert converted[0].momentum == 0
    for each in (model, copy.deepcopy(model), copy.copy(model), torch.fx.symbolic_trace(model)):
        each.train()
        each[0].train() if isinstance(each, nn.Sequential) else None
        each(torch.randn(4, 3, 8, 8))
        assert all(torch.equal(value, before[key]) for key, value in each.state_dict().items())


def held_norm():
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    ckpt_tool.freeze(model, "**")
    return model


def test_a_shallow_copy_of_a_frozen_normalisation_is_held():
    norm = held_norm()[1]
    twin = copy.copy(norm)
    assert (type(twin), twin.train().training) == (type(norm), False)
    assert twin.running_mean is norm.running_mean


def test_a_frozen_normalisation_is_held_when_it_becomes_one_of_all_processes():
    model = nn.SyncBatchNorm.convert_sync_batchnorm(held_norm())
    assert isinstance(model[1], nn.SyncBatchNorm)
    assert model.train()[1].training is False
    assert b"ckpt_tool" not in pickle.dumps(model)
    inputs = torch.randn(4, 3, 2, 2)
    assert torch.equal(model(inputs), model.eval()(inputs))
    assert model[1].running_mean.eq(0).all()
    assert nn.SyncBatchNorm.convert_sync_batchnorm(net()).train()[1].training is True


@pytest.mark.parametrize("is_frozen_first", [True, False])
def test_parametrizations_of_a_frozen_normalisation_come_and_go(is_frozen_first):
    from torch.nn.utils import parametrize

    model = nn.Sequential(nn.BatchNorm2d(3))
    steps = [
        lambda: ckpt_tool.freeze(model, "**"),
        lambda: parametrize.register_parametrization(model[0], "weight", nn.Identity()),
    ]
    for step in steps if is_frozen_first else steps[::-1]:
        step()
    assert model.train()[0].training is False
    assert copy.deepcopy(model).train()[0].training is False
    parametrize.register_parametrization(model[0], "bias", nn.Identity())
    for name in ("weight", "bias"):
        parametrize.remove_parametrizations(model[0], name)
        assert model.train()[0].training is False
    assert type(model[0]).__name__ == "BatchNorm2d"
    assert b"ckpt_tool" not in pickle.dumps(model)


def test_unfrozen_statistics_move(source):
    model = net()
    before = ckpt_tool.load_into(model, source) and model[1].running_mean.clone()
    train_a_step(model)
    assert not torch.equal(model[1].running_mean, before)


def test_freeze_by_count_and_by_pattern():
    assert ckpt_tool.freeze(net(), first=6).parameters == ("0.weight", "0.bias", "1.weight", "1.bias")
    assert ckpt_tool.freeze(net(), first=2).modules == ()
    assert ckpt_tool.freeze(net(), "5.*", "0.weight").parameters == ("5.weight", "5.bias", "0.weight")
    with pytest.raises(RuleError, match=r"`5.weigth` matches no key of the model"):
        ckpt_tool.freeze(net(), "5.weigth")
    with pytest.raises(ValueError, match="first=10, but the model has 9 keys"):
        ckpt_tool.freeze(net(), first=10)
    with pytest.raises(ValueError, match="one of the two"):
        ckpt_tool.freeze(net())


def test_parameter_groups_have_each_trainable_parameter_once(source):
    model = net()
    model.add_module("tied", model[5])
    report = ckpt_tool.load_into(model, source, options=MappingOptions(inline=("0.* -> 0.*", "1.* -> 1.*"), drop=("5.*",), keep=("5.*", "tied.*")))
    groups = report.parameter_groups(model, lr=1e-3, loaded_lr=1e-5)
    assert [(g["group"], g["lr"], len(g["params"])) for g in groups] == [("fresh", 1e-3, 2), ("loaded", 1e-5, 4)]
    train_a_step(model.__class__(*list(model)[:6]), torch.optim.Adam(groups))
    report.freeze(model)
    assert [g["group"] for g in report.parameter_groups(model, lr=1e-3)] == ["fresh"]


def test_a_rate_for_nothing_and_parameters_without_a_rate_are_refused(source):
    model = net()
    report = ckpt_tool.load_into(model, source)
    with pytest.raises(InputError, match="4 of the loaded parameters are trainable, and have no rate; give `loaded_lr`, or freeze them first"):
        report.parameter_groups(model, lr=1e-3)
    report.freeze(model)
    with pytest.raises(InputError, match="`loaded_lr=1e-05` has no parameter: no loaded parameter is trainable; leave it out, or freeze less"):
        report.parameter_groups(model, lr=1e-3, loaded_lr=1e-5)
    ckpt_tool.freeze(model, "**")
    with pytest.raises(InputError, match="has no trainable parameter"):
        report.parameter_groups(model, lr=1e-3)


def test_what_is_frozen_after_a_step_stands_still_though_the_optimizer_has_momentum(source):
    model = net()
    report = ckpt_tool.load_into(model, source)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    train_a_step(model, optimizer)
    report.freeze(model)
    before = model[0].weight.clone()
    train_a_step(model, optimizer)
    assert torch.equal(model[0].weight, before)
    assert model[0].weight.grad is None


def test_a_report_is_of_one_model(source):
    model = net()
    report = ckpt_tool.load_into(model, source)
    assert repr(report) == "LoadReport(7 loaded, 2 kept fresh, 2 dropped)"
    assert repr(report.plan) == "Plan(7 mapped, 2 kept, 2 dropped)"
    for other in (nn.Sequential(model), model[0]):
        with pytest.raises(InputError, match=r"has no key `.*`; give the model that was loaded into"):
            report.freeze(other)
        with pytest.raises(InputError, match="give the model that was loaded into"):
            report.parameter_groups(other, lr=1, loaded_lr=1)


def test_a_report_is_for_models_with_its_keys_alone():
    model = nn.Sequential(nn.Linear(2, 2))
    report = ckpt_tool.load_into(model, nn.Sequential(nn.Linear(2, 2)).state_dict())
    with pytest.raises(InputError, match=r"has `1\.weight`, which the model that was loaded into has not"):
        report.freeze(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    assert len(report.freeze(model).parameters) == 2


def test_what_next_says_may_be_given_beside_how():
    source, model = nn.ModuleDict({"a": nn.Linear(2, 2), "old": nn.Linear(3, 3)}), nn.ModuleDict({"a": nn.Linear(2, 2)})
    how = MappingOptions(dtypes="target")
    with pytest.raises(RuleError) as refused:
        ckpt_tool.load_into(model, source.state_dict(), options=how)
    assert len(ckpt_tool.load_into(model, source.state_dict(), options=how, **refused.value.next).loaded) == 2
