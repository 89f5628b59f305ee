"""The state of an optimizer whose model is sharded over processes."""

import copy
from functools import partial

import pytest
import torch
from resuming import OPTIMIZERS
from sharded import on_two_processes
from torch import nn

import ckpt_tool
from ckpt_tool import InputError

RULES = ["a.* -> first.*", "{q,k}.* -> qk.*: {concat: 0}"]
NAMES_ALONE = ["a.* -> first.*", "q.* -> second.*", "k.* -> third.*"]


class Old(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.q, self.k = nn.Linear(4, 6), nn.Linear(6, 4, bias=False), nn.Linear(6, 5, bias=False)

    def forward(self, x):
        x = self.a(x)
        return torch.cat([self.q(x), self.k(x)], -1)


class New(nn.Module):
    def __init__(self):
        super().__init__()
        self.qk, self.first = nn.Linear(6, 9, bias=False), nn.Linear(4, 6)

    def forward(self, x):
        return self.qk(self.first(x))


class Renamed(nn.Module):
    def __init__(self):
        super().__init__()
        self.third, self.second, self.first = nn.Linear(6, 5, bias=False), nn.Linear(6, 4, bias=False), nn.Linear(4, 6)

    def forward(self, x):
        x = self.first(x)
        return torch.cat([self.second(x), self.third(x)], -1)


def sharded(model):
    from torch.distributed.fsdp import fully_shard

    for child in model.children():
        fully_shard(child)
    return fully_shard(model)


def train(model, optimizer, numbers):
    for number in numbers:
        generator = torch.Generator().manual_seed(number)
        optimizer.zero_grad()
        model(torch.randn(3, 4, generator=generator)).square().sum().backward()
        optimizer.step()


def full(model):
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    return {key: value.clone() for key, value in state.items()}


def resumed(model, weights, rules, make, state):
    """A sharded model and its optimizer that go on from weights and a state."""
    report = ckpt_tool.load_into(sharded(model), weights, rules=rules)
    optimizer = make(model.parameters())
    optimizer.load_state_dict(report.optimizer_state(state, model, optimizer))
    return model, optimizer


def work(folder, rank):
    """The same run on two processes and on one, renamed and joined, from states in parts, gathered, and of one process."""
    from torch.distributed.checkpoint import state_dict as dsd

    found = {}
    for name in ("SGD", "AdamW"):
        make = OPTIMIZERS[name]
        torch.manual_seed(0)
        plain = Old()
        old = sharded(copy.deepcopy(plain))
        optimizer, plain_optimizer = make(old.parameters()), make(plain.parameters())
        train(old, optimizer, range(5))
        train(plain, plain_optimizer, range(5))
        weights = full(old)
        options = dsd.StateDictOptions(full_state_dict=True)
        file = f"{folder}/{name}{rank}.pth"
        torch.save({"model": plain.state_dict(), "optimizer": plain_optimizer.state_dict()}, file)
        gathered = copy.deepcopy(dsd.get_optimizer_state_dict(old, optimizer, options=options))
        joined = ckpt_tool.load_into(sharded(New()), weights, rules=RULES)
        with pytest.raises(InputError, match=r"part of a distributed tensor.*give the model and the optimizer"):
            joined.optimizer_state(optimizer.state_dict())
        runs = {
            "renamed": resumed(Renamed(), weights, NAMES_ALONE, make, optimizer),
            "renamed from one": resumed(Renamed(), weights, NAMES_ALONE, make, copy.deepcopy(plain_optimizer.state_dict())),
            "renamed from a file": resumed(Renamed(), weights, NAMES_ALONE, make, file),
            "joined from a file": resumed(New(), weights, RULES, make, file),
            "joined": resumed(New(), weights, RULES, make, optimizer),
            "joined from one": resumed(New(), weights, RULES, make, copy.deepcopy(plain_optimizer.state_dict())),
        }
        new = sharded(New())
        new_optimizer = make(new.parameters())
        new_state = ckpt_tool.load_into(new, weights, rules=RULES).optimizer_state(gathered, new, new_optimizer)
        dsd.set_optimizer_state_dict(new, new_optimizer, new_state, options=options)
        runs["joined from gathered"] = new, new_optimizer
        back, back_optimizer = Renamed(), None
        report = ckpt_tool.load_into(back, weights, rules=NAMES_ALONE)
        back_optimizer = make(back.parameters())
        back_optimizer.load_state_dict(report.optimizer_state(optimizer, back, back_optimizer))
        for model, its_own in [(old, optimizer), (back, back_optimizer), *runs.values()]:
            train(model, its_own, range(5, 9))
        found[name] = {"old": full(old), "on one": dict(back.state_dict()), **{kind: full(model) for kind, (model, _) in runs.items()}}
    return found


@pytest.mark.skipif(not hasattr(torch.cpu.Stream, "record_event"), reason="torch 2.6 can't run sharded modules on the CPU")
def test_states_in_parts_go_on_as_whole_ones(tmp_path):
    for found in on_two_processes(partial(work, str(tmp_path)), tmp_path):
        for runs in found.values():
            old = runs["old"]
            for kind in ("renamed", "renamed from one", "renamed from a file", "on one"):
                assert torch.allclose(runs[kind]["second.weight"], old["q.weight"], atol=1e-6, rtol=0)
                assert torch.allclose(runs[kind]["first.weight"], old["a.weight"], atol=1e-6, rtol=0)
            assert torch.equal(runs["renamed"]["third.weight"], old["k.weight"])
            assert torch.equal(runs["renamed from a file"]["third.weight"], runs["renamed from one"]["third.weight"])
            assert torch.equal(runs["joined from a file"]["qk.weight"], runs["joined from one"]["qk.weight"])
            whole = torch.cat([old["q.weight"], old["k.weight"]])
            for kind in ("joined", "joined from one", "joined from a file", "joined from gathered"):
                assert torch.allclose(runs[kind]["qk.weight"], whole, atol=1e-6, rtol=0)  # one product rounds as two don't
            assert torch.equal(runs["joined"]["qk.weight"], runs["joined from gathered"]["qk.weight"])
