"""Models that give their parameters or their state dict in a way of their own: all are seen, and none is said to be what it isn't."""

import pytest
import torch
from torch import nn

import ckpt_tool
from ckpt_tool import FreezeSchedule, InputError


class Trainable(nn.Sequential):
    def parameters(self, recurse=True):
        return (one for one in super().parameters(recurse) if one.requires_grad)


class TrainableNamed(nn.Sequential):
    def named_parameters(self, prefix="", recurse=True, remove_duplicate=True):
        return ((name, one) for name, one in super().named_parameters(prefix, recurse, remove_duplicate) if one.requires_grad)


class OldNamed(nn.Sequential):
    def named_parameters(self, prefix="", recurse=True):
        return super().named_parameters(prefix, recurse)


class Plain(nn.Sequential):
    def state_dict(self):
        return super().state_dict()


KINDS = [Trainable, TrainableNamed, OldNamed, Plain]


def layers():
    return nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 2)


def trained(model):
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(4, 3)).square().sum().backward()
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_loaded_whatever_it_gives(kind, device):
    source = nn.Sequential(*layers())
    with torch.device(device):
        model = kind(*layers())
    report = ckpt_tool.load_into(model, source, keep="2.*", drop="2.*")
    assert len(report.loaded) == 7
    assert torch.equal(model[0].weight, source[0].weight)
    assert type(model[0].weight) is nn.Parameter
    assert torch.equal(model[1].running_mean, source[1].running_mean)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_frozen_thaws_whatever_a_model_gives(kind):
    model = kind(*layers())
    report = ckpt_tool.load_into(model, nn.Sequential(*layers()), keep="2.*", drop="2.*")
    optimizer = torch.optim.SGD(nn.Module.parameters(model), lr=0.1)
    schedule = FreezeSchedule({0: "2.*", 1: "**"})
    assert schedule.apply(model, 0, optimizer).held == 4
    assert schedule.apply(model, 1, optimizer).trainable == 6
    assert model[0].weight.requires_grad
    assert report.freeze(model) == report.freeze(model)
    assert not model[0].weight.requires_grad
    assert ckpt_tool.thaw(model, "0.*").parameters == ("0.weight", "0.bias")
    assert all(one.requires_grad for one in model[0].parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_of_an_optimizer_goes_to_the_parameters_that_it_has(kind):
    source = nn.Sequential(*layers())
    saved = trained(source)
    model = kind(*layers())
    report = ckpt_tool.load_into(model, source)
    report.freeze(model)
    ckpt_tool.thaw(model, "2.*")
    optimizer = torch.optim.Adam(model.parameters())
    optimizer.load_state_dict(report.optimizer_state(saved, model, optimizer))
    assert torch.equal(optimizer.state[model[2].weight]["exp_avg"], saved.state[source[2].weight]["exp_avg"])


@pytest.mark.parametrize("kind", [Trainable, TrainableNamed])
def test_numbers_of_an_optimizer_that_nobody_knows_are_refused(kind):
    source = nn.Sequential(*layers())
    saved = trained(source)
    model = kind(*layers())
    report = ckpt_tool.load_into(model, source)
    assert len(report.optimizer_state(saved, model)["state"]) == 6
    ckpt_tool.freeze(model, "0.*")
    with pytest.raises(InputError, match=r"gives 4 parameters by its own `parameters\(\)`, and gave 6 when it was loaded; give the optimizer as well"):
        report.optimizer_state(saved, model)


def test_a_model_whose_shapes_are_others_by_now_is_refused():
    source = nn.Sequential(*layers())
    saved = trained(source)
    model = nn.Sequential(*layers())
    report = ckpt_tool.load_into(model, source)
    model[2] = nn.Linear(2, 7)
    optimizer = torch.optim.Adam(model.parameters())
    for ask in (
        lambda: report.freeze(model),
        lambda: report.parameter_groups(model, lr=1, loaded_lr=1),
        lambda: report.optimizer_state(saved, model),
        lambda: report.optimizer_state(saved, model, optimizer),
    ):
        with pytest.raises(InputError, match=r"`2.weight` is 7×2 now, and was loaded as 2×2"):
            ask()
    assert all(one.requires_grad for one in model.parameters())


def test_a_fresh_part_that_was_exchanged_is_no_fault():
    source = nn.Sequential(*layers())
    saved = trained(source)
    model = nn.Sequential(*layers())
    report = ckpt_tool.load_into(model, source, keep="2.*", drop="2.*")
    model[2] = nn.Linear(2, 7)
    report.freeze(model)
    assert len(report.parameter_groups(model, lr=1)) == 1
    assert len(report.optimizer_state(saved, model, torch.optim.Adam(model.parameters()))["state"]) == 4
