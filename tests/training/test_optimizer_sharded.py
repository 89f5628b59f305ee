"""The state of an optimizer whose model is sharded over processes."""

import copy

import pytest
import torch
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

    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))


def work(rank):
    """What the processes see: by names, sharded as it is; joined, gathered; and ops on parts, refused."""
    from torch.distributed.checkpoint import state_dict as dsd

    torch.manual_seed(0)
    old = sharded(Old())
    optimizer = torch.optim.AdamW(old.parameters(), 0.01)
    train(old, optimizer, range(5))
    weights = {key: value.clone() for key, value in full(old).items()}
    options = dsd.StateDictOptions(full_state_dict=True)
    gathered = copy.deepcopy(dsd.get_optimizer_state_dict(old, optimizer, options=options))
    own = optimizer.state_dict()
    renamed, new = sharded(Renamed()), sharded(New())
    report, joined = ckpt_tool.load_into(renamed, weights, rules=NAMES_ALONE), ckpt_tool.load_into(new, weights, rules=RULES)
    renamed_optimizer, new_optimizer = torch.optim.AdamW(renamed.parameters(), 0.01), torch.optim.AdamW(new.parameters(), 0.01)
    with pytest.raises(InputError, match=r"part of a distributed tensor.*full_state_dict=True"):
        joined.optimizer_state(own, new, new_optimizer)
    new_state = joined.optimizer_state(gathered, new, new_optimizer)
    dsd.set_optimizer_state_dict(new, new_optimizer, new_state, options=options)
    renamed_optimizer.load_state_dict(report.optimizer_state(optimizer, renamed, renamed_optimizer))
    for one, its_own in ((old, optimizer), (renamed, renamed_optimizer), (new, new_optimizer)):
        train(one, its_own, range(5, 9))
    return {"old": full(old), "renamed": full(renamed), "new": full(new)}


def test_sharded_states_follow_names_as_they_are_and_ops_when_gathered(tmp_path):
    for found in on_two_processes(work, tmp_path):
        old, renamed, new = found["old"], found["renamed"], found["new"]
        assert torch.equal(renamed["second.weight"], old["q.weight"])
        assert torch.equal(renamed["first.weight"], old["a.weight"])
        joined = torch.cat([old["q.weight"], old["k.weight"]])
        assert torch.allclose(new["qk.weight"], joined, atol=1e-6, rtol=0)  # one product in place of two rounds otherwise
