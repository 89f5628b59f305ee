"""Folders as transformers' Trainer leaves them: the weights sorted by name, the optimizer by the numbers of its groups."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_optimizer_names import decay_first, state_of
from torch import nn

import ckpt_tool
from ckpt_tool import InputError
from tests.running import ckpt


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(4, 4, bias=False) for _ in range(4))
        self.norm = nn.LayerNorm(4)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(6, 4)
        self.layers = nn.ModuleList(Attention() for _ in range(3))


RULES = ["layers.{i}.{q,k,v}.weight -> layers.{i}.qkv.weight: {concat: 0}", "** -> **"]


@pytest.fixture
def run(tmp_path):
    torch.manual_seed(0)
    model = Model()
    folder = tmp_path / "checkpoint-5"
    folder.mkdir()
    torch.save(state_of(model, decay_first(model)), folder / "optimizer.pt")
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text("{}")
    return model, folder


def test_the_order_of_a_model_tells_which_number_is_which(run, tmp_path):
    model, folder = run
    with pytest.raises(InputError, match="can't be known: the model's keys are sorted; `optimizer_order=` gives"):
        ckpt_tool.map(folder, None, tmp_path / "new", rules=RULES)
    torch.save(model.state_dict(), tmp_path / "model.pth")
    for place, order in enumerate([model, tmp_path / "model.pth"]):
        new = tmp_path / f"new{place}"
        ckpt_tool.map(folder, None, new, rules=RULES, optimizer_order=order)
        before, after = (torch.load(each / "optimizer.pt") for each in (folder, new))
        assert [len(group["params"]) for group in after["param_groups"]] == [7, 6]
        assert [group["weight_decay"] for group in after["param_groups"]] == [0.01, 0.0]
        # embed, then q, k, v, o of each layer, then the norms of all: embed, qkv, o, qkv, o, qkv, o, norms.
        for layer in range(3):
            q = 1 + 4 * layer
            for slot in ("exp_avg", "exp_avg_sq"):
                assert torch.equal(after["state"][1 + 2 * layer][slot], torch.cat([before["state"][q + i][slot] for i in range(3)]))
                assert torch.equal(after["state"][2 + 2 * layer][slot], before["state"][q + 3][slot])
        assert torch.equal(after["state"][7]["exp_avg"], before["state"][13]["exp_avg"])
        assert torch.equal(load_file(new / "model.safetensors")["layers.1.qkv.weight"][:4], model.layers[1].q.weight)


def test_an_order_of_other_keys_is_refused(run, tmp_path):
    model, folder = run
    with pytest.raises(InputError, match=r"`optimizer_order=`: has `weight`, and no key of the source"):
        ckpt_tool.map(folder, None, tmp_path / "new", rules=RULES, optimizer_order=nn.Linear(3, 3))
    with pytest.raises(InputError, match="its keys are sorted, so they don't show a model's order"):
        ckpt_tool.map(folder, None, tmp_path / "new", rules=RULES, optimizer_order=folder)
    with pytest.raises(InputError, match="`optimizer_order=`: is for whole training checkpoints"):
        ckpt_tool.map(folder, None, tmp_path / "new.safetensors", rules=RULES, optimizer_order=model)


class Weighted(nn.Module):
    """A buffer with the shape of a parameter, as the class weights of a criterion are."""

    def __init__(self):
        super().__init__()
        self.model = nn.Linear(3, 4)
        self.criterion = nn.CrossEntropyLoss(weight=torch.ones(4))


def test_a_model_knows_which_of_its_keys_are_parameters(tmp_path, monkeypatch):
    model = Weighted()
    run = {"state_dict": model.state_dict(), "optimizer_states": [state_of(model, model.parameters())]}
    torch.save(run, tmp_path / "run.ckpt")
    torch.save(model.state_dict(), tmp_path / "model.pth")
    how = {"rules": ["model.** -> **"], "drop": "criterion.**"}
    alone = r"1 may be `criterion.weight` or `model.bias`; if the order has buffers, too, give to `optimizer_order=` the model itself"
    with pytest.raises(InputError, match=r"1 may be `criterion.weight` or `model.bias`; `optimizer_order=` gives"):
        ckpt_tool.map(tmp_path / "run.ckpt", None, tmp_path / "new.ckpt", **how)
    with pytest.raises(InputError, match=alone):
        ckpt_tool.map(tmp_path / "run.ckpt", None, tmp_path / "new.ckpt", optimizer_order=tmp_path / "model.pth", **how)
    (tmp_path / "weighted_nets.py").write_text("from test_optimizer_order import Weighted as build")
    monkeypatch.chdir(tmp_path)
    for place, order in enumerate([model, "weighted_nets:build"]):
        new = tmp_path / f"new{place}.ckpt"
        ckpt_tool.map(tmp_path / "run.ckpt", None, new, optimizer_order=order, **how)
        state = torch.load(new)["optimizer_states"][0]["state"]
        assert [state[number]["exp_avg"].shape for number in (0, 1)] == [(4, 3), (4,)]


def test_a_target_that_is_a_model_tells_its_parameters_from_buffers(tmp_path):
    model, new = nn.Linear(3, 4), Weighted()
    state = state_of(model, model.parameters())
    torch.save({"model": model.state_dict(), "optimizer": state}, tmp_path / "run.ckpt")
    ckpt_tool.map(tmp_path / "run.ckpt", new, tmp_path / "new.ckpt", rules=["** -> model.**"], keep="criterion.**", whole=True)
    found = torch.load(tmp_path / "new.ckpt")["optimizer"]
    assert found["param_groups"][0]["params"] == [0, 1]
    optimizer = torch.optim.AdamW(new.parameters())
    optimizer.load_state_dict(found)
    assert all(torch.equal(optimizer.state[one]["exp_avg"], state["state"][place]["exp_avg"]) for place, one in enumerate(new.parameters()))


class Chain(nn.Module):
    """Layers of one shape, without biases."""

    def __init__(self, *names):
        super().__init__()
        for name in names:
            setattr(self, name, nn.Linear(4, 4, bias=False))


def ascending():
    return Chain("n_alpha", "n_mid", "n_zeta")


def chain_run(*names):
    model = Chain(*names)
    return model, {"model": model.state_dict(), "optimizer": state_of(model, model.parameters()), "epoch": 1}


def in_order_of_text(state):
    return dict(sorted(state.items()))


NO_ORDER = "the order of the target's parameters is not known: its keys are sorted; give a target that keeps"


def test_targets_with_sorted_keys_have_no_order(tmp_path):
    """A .pth that somebody sorted, a safetensors file, and the key lists of both; with two element types, too."""
    _, whole = chain_run("zeta", "alpha", "mid")
    torch.save(whole, tmp_path / "run.ckpt")
    torch.save({**whole, "model": {**whole["model"], "zeta.count": torch.tensor([3])}}, tmp_path / "types.ckpt")
    new = Chain("n_zeta", "n_alpha", "n_mid")
    half = {**new.state_dict(), "n_zeta.count": torch.tensor([3])}
    torch.save(new.state_dict(), tmp_path / "own.pth")
    torch.save(in_order_of_text(new.state_dict()), tmp_path / "sorted.pth")
    save_file(new.state_dict(), tmp_path / "sorted.safetensors")
    save_file(half, tmp_path / "types.safetensors")
    for name in ("own.pth", "sorted.pth", "sorted.safetensors", "types.safetensors"):
        (tmp_path / f"{name}.keys").write_text(ckpt("show", "--keys", tmp_path / name).out)
    own = ["{r=**} -> n_{r}"]
    for name in ("sorted.pth", "sorted.safetensors", "sorted.pth.keys", "sorted.safetensors.keys", "types.safetensors.keys"):
        with pytest.raises(InputError, match=NO_ORDER):
            ckpt_tool.map(tmp_path / ("types.ckpt" if "types" in name else "run.ckpt"), tmp_path / name, tmp_path / "no.ckpt", rules=own, whole=True)
    for name in ("own.pth", "own.pth.keys"):
        ckpt_tool.map(tmp_path / "run.ckpt", tmp_path / name, tmp_path / f"{name}.ckpt", rules=own, whole=True)
        moved = torch.load(tmp_path / f"{name}.ckpt")["optimizer"]
        assert torch.equal(moved["state"][0]["exp_avg"], whole["optimizer"]["state"][0]["exp_avg"])


def test_sorted_keys_of_a_source_have_no_order_and_those_of_a_model_have(tmp_path):
    model, whole = chain_run("zeta", "alpha", "mid")
    torch.save({**whole, "model": in_order_of_text(model.state_dict())}, tmp_path / "sorted.ckpt")
    rules = ["{r=**} -> n_{r}"]
    new = Chain("n_zeta", "n_alpha", "n_mid")
    with pytest.raises(InputError, match="can't be known: the model's keys are sorted"):
        ckpt_tool.map(tmp_path / "sorted.ckpt", new, tmp_path / "no.ckpt", rules=rules, whole=True)
    # A network that is declared in the order of the alphabet: torch notes its modules, and a module says it.
    model, whole = chain_run("alpha", "mid", "zeta")
    torch.save(whole, tmp_path / "run.ckpt")
    torch.save(ascending().state_dict(), tmp_path / "own.pth")
    for place, target in enumerate([ascending(), tmp_path / "own.pth", new]):
        ckpt_tool.map(tmp_path / "run.ckpt", target, tmp_path / f"{place}.ckpt", rules=rules, whole=True)
        found = torch.load(tmp_path / f"{place}.ckpt")["optimizer"]["state"]
        first = found[1 if target is new else 0]
        assert torch.equal(first["exp_avg"], whole["optimizer"]["state"][0]["exp_avg"])


@pytest.mark.parametrize("count", [10, 12])
def test_numbers_are_sorted_as_text_from_ten_on(tmp_path, count):
    model = nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(count)))
    torch.save({"model": in_order_of_text(model.state_dict()), "optimizer": state_of(model, model.parameters()), "epoch": 1}, tmp_path / "run.ckpt")
    torch.save(in_order_of_text(model.state_dict()), tmp_path / "sorted.pth")
    rules = {"rules": "{r=**} -> {r}", "whole": True}
    if count < 11:
        ckpt_tool.map(tmp_path / "run.ckpt", tmp_path / "sorted.pth", tmp_path / "new.ckpt", **rules)
        return
    with pytest.raises(InputError, match="the model's keys are sorted"):
        ckpt_tool.map(tmp_path / "run.ckpt", model, tmp_path / "no.ckpt", **rules)
    torch.save({"model": model.state_dict(), "optimizer": state_of(model, model.parameters()), "epoch": 1}, tmp_path / "run.ckpt")
    with pytest.raises(InputError, match=NO_ORDER):
        ckpt_tool.map(tmp_path / "run.ckpt", tmp_path / "sorted.pth", tmp_path / "no.ckpt", **rules)
