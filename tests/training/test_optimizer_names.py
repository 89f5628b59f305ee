"""Which number is which key, and which group it is in: certain, or refused."""

import copy

import pytest
import torch
from seeded import fill_with_seeded_values
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

import ckpt_tool
from ckpt_tool import InputError, RuleError
from ckpt_tool.errors import FormatError


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        return x + self.down(torch.relu(self.up(self.norm(x))))


class Old(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(3, 8, 1), nn.BatchNorm1d(8))
        self.blocks = nn.ModuleList(Block(8) for _ in range(3))
        self.register_buffer("scale", torch.ones(()))
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = self.stem(x[..., None])[..., 0] * self.scale
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class NewBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc2, self.fc1 = nn.Linear(2 * width, width), nn.Linear(width, 2 * width)
        self.ln = nn.LayerNorm(width)

    def forward(self, x):
        return x + self.fc2(torch.relu(self.fc1(self.ln(x))))


class New(nn.Module):
    """The same net with other names, declared in another order."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Linear(8, 4)
        self.layers = nn.ModuleList(NewBlock(8) for _ in range(3))
        self.conv, self.bn = nn.Conv1d(3, 8, 1), nn.BatchNorm1d(8)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x):
        x = self.bn(self.conv(x[..., None]))[..., 0] * self.scale
        for block in self.layers:
            x = block(x)
        return self.classifier(x)


RULES = [
    "stem.0.* -> conv.*", "stem.1.* -> bn.*", "head.* -> classifier.*", "scale -> scale",
    "blocks.{i}.{norm,up,down}.* -> layers.{i}.{ln,fc1,fc2}.*",
]  # fmt: skip


def train(model, optimizer, numbers):
    for number in numbers:
        generator = torch.Generator().manual_seed(number)
        x, y = torch.randn(5, 3, generator=generator), torch.randn(5, 4, generator=generator)
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()


def one_group(model):
    return model.parameters()


def named(model):
    return model.named_parameters()


def decay_first(model):
    """As transformers' Trainer has it: what decays, then what doesn't."""
    no_decay = [p for p in model.parameters() if p.dim() < 2]
    return [{"params": [p for p in model.parameters() if p.dim() > 1]}, {"params": no_decay, "weight_decay": 0.0}]


def by_depth(model):
    """A rate for each part of the net, as layer-wise decay has it."""
    parts = [list(child.parameters()) for name, child in model.named_children() if name in ("stem", "conv", "bn", "head", "classifier")]
    blocks = getattr(model, "blocks", None) or model.layers
    if isinstance(model, New):
        parts = [[*parts[1], *parts[2]], parts[0]]
    return [{"params": params, "lr": 0.01 / (1 + place)} for place, params in enumerate([*parts, *(list(b.parameters()) for b in blocks)])]


@pytest.mark.parametrize("groups", [one_group, named, decay_first, by_depth], ids=lambda f: f.__name__)
def test_numbers_are_keys_of_their_own_order_and_go_to_that_of_the_new_net(groups):
    old, new = fill_with_seeded_values(Old(), 1), New()
    optimizer = torch.optim.AdamW(groups(old), 0.01)
    train(old, optimizer, range(10))
    weights, state = copy.deepcopy(old.state_dict()), copy.deepcopy(optimizer.state_dict())
    report = ckpt_tool.load_into(new, weights, rules=RULES)
    new_optimizer = torch.optim.AdamW(groups(new), 0.01)
    names = None
    if groups is by_depth:  # blocks alike in groups of their own may stand in any order
        keys = {id(parameter): name for name, parameter in old.named_parameters()}
        names = [[keys[id(parameter)] for parameter in group["params"]] for group in optimizer.param_groups]
        with pytest.raises(InputError, match="not certain"):
            report.optimizer_state(state, new, new_optimizer)
    found = report.optimizer_state(state, new, new_optimizer, names=names)
    new_optimizer.load_state_dict(found)
    train(old, optimizer, range(10, 30))
    train(new, new_optimizer, range(10, 30))
    again = New()
    ckpt_tool.load_into(again, old, rules=RULES)
    assert all(torch.equal(value, new.state_dict()[key]) for key, value in again.state_dict().items())
    for before, after in zip(state["param_groups"], found["param_groups"], strict=True):
        assert {**before, "params": 0, "param_names": 0} == {**after, "params": 0, "param_names": 0}
    if groups is named:
        assert found["param_groups"][0]["param_names"] == [name for name, _ in new.named_parameters()]


def test_without_the_new_optimizer_numbers_are_in_the_order_of_the_new_model():
    old, new = fill_with_seeded_values(Old(), 1), New()
    optimizer = torch.optim.AdamW(decay_first(old), 0.01)
    train(old, optimizer, range(2))
    report = ckpt_tool.load_into(new, old, rules=RULES)
    new_optimizer = torch.optim.AdamW(decay_first(new), 0.01)
    found, checked = report.optimizer_state(optimizer.state_dict()), report.optimizer_state(optimizer.state_dict(), new, new_optimizer)
    assert found["param_groups"] == checked["param_groups"]
    assert found["state"].keys() == checked["state"].keys()
    assert all(torch.equal(found["state"][i]["exp_avg"], checked["state"][i]["exp_avg"]) for i in found["state"])


def test_buffers_that_stay_fresh_have_no_number():
    class Buffered(nn.Module):
        def __init__(self, is_new):
            super().__init__()
            if is_new:
                self.register_buffer("table", torch.ones(3))
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 5)
            if is_new:
                self.head = nn.Linear(5, 6)

    model, target = Buffered(False), Buffered(True)
    report = ckpt_tool.load_into(target, model, keep=["table", "head.*"])
    found = report.optimizer_state(state_of(model, model.parameters()))
    assert found.moved.groups[0].names == tuple(name for name, _ in target.named_parameters())
    torch.optim.AdamW(target.parameters()).load_state_dict(found)


def state_of(model, parameters):
    optimizer = torch.optim.AdamW(parameters)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape)
    optimizer.step()
    return optimizer.state_dict()


def test_shapes_that_leave_two_pairings_are_refused():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    report = ckpt_tool.load_into(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), model)
    with pytest.raises(InputError, match=r"not certain: 0 may be `1\.weight` or `0\.weight`.*named_parameters"):
        report.optimizer_state(state_of(model, model[1].parameters()))
    assert report.optimizer_state(state_of(model, model[1].named_parameters(prefix="1"))).moved.moved == ("1.weight", "1.bias")
    groups = [{"params": [model[0].weight, model[1].weight]}, {"params": [model[0].bias, model[1].bias]}]
    assert len(report.optimizer_state(state_of(model, groups)).moved.moved) == 4
    groups = [{"params": [model[0].weight, model[1].bias]}, {"params": [model[0].bias, model[1].weight]}]
    assert report.optimizer_state(state_of(model, groups)).moved.groups[0].names == ("0.weight", "1.bias")
    groups = [{"params": [model[1].weight, model[1].bias]}, {"params": [model[0].weight, model[0].bias]}]
    with pytest.raises(InputError, match="not certain"):
        report.optimizer_state(state_of(model, groups))


def test_a_frozen_part_has_no_number():
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, 7))
    target = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, 7))
    report = ckpt_tool.load_into(target, model)
    found = report.optimizer_state(state_of(model, model[1:].parameters()), target, torch.optim.AdamW(target[1:].parameters()))
    assert found.moved.moved == ("1.weight", "1.bias", "2.weight", "2.bias")
    whole = report.optimizer_state(state_of(model, model[1:].parameters()), target, torch.optim.AdamW(target.parameters()))
    assert whole.moved.fresh == ("0.weight", "0.bias")
    assert sorted(whole["state"]) == [2, 3, 4, 5]


def test_shapes_that_are_not_the_models_are_refused():
    model, other = nn.Sequential(nn.Linear(4, 5)), nn.Sequential(nn.Linear(5, 4))
    report = ckpt_tool.load_into(nn.Sequential(nn.Linear(4, 5)), model)
    with pytest.raises(InputError, match="its shapes are not those of the model's parameters in their order"):
        report.optimizer_state(state_of(other, other.parameters()))
    with pytest.raises(InputError, match=r"its state of `0.weight` is 4×5, the parameter 5×4; is it the optimizer of this model"):
        report.optimizer_state(state_of(other, other.named_parameters()))
    larger = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 5))
    with pytest.raises(InputError, match="has 4 parameters, the model 2 at most"):
        report.optimizer_state(state_of(larger, larger.parameters()))


def test_what_is_no_state_dict_of_an_optimizer_is_refused():
    model = nn.Sequential(nn.Linear(4, 5))
    report = ckpt_tool.load_into(nn.Sequential(nn.Linear(4, 5)), model)
    for given in ({}, model.state_dict(), {"optimizer": {}}, {"state": {}, "param_groups": 1}, {"state": {3: {}}, "param_groups": []}):
        with pytest.raises(FormatError, match="the optimizer's state: "):
            report.optimizer_state(given)


def test_parameters_of_two_groups_with_other_decay_have_no_group_together():
    model, target = nn.ModuleDict({"a": nn.Linear(4, 2), "b": nn.Linear(4, 2)}), nn.ModuleDict({"ab": nn.Linear(4, 4)})
    report = ckpt_tool.load_into(target, model, rules="{a,b}.* -> ab.*: {concat: 0}")
    groups = [{"params": model.a.parameters()}, {"params": model.b.parameters(), "weight_decay": 0.0}]
    state = state_of(model, [{**group, "params": list(group["params"])} for group in groups])
    names = [["a.weight", "a.bias"], ["b.weight", "b.bias"]]
    with pytest.raises(InputError, match=r"is made of parameters of two groups \(0, 1\), whose `weight_decay` is 0.01 and 0.0"):
        report.optimizer_state(state, names=names)
    with pytest.raises(InputError, match=r"its groups 0 and 1 would be one, whose `weight_decay` is 0.01 and 0.0; make the optimizer of as many"):
        report.optimizer_state(state, target, torch.optim.AdamW(target.parameters()), names=names)
    with pytest.raises(InputError, match="has groups of 2, 2 parameters, and `names` of 2; give a list for each group"):
        report.optimizer_state(state, names=names[:1])
    with pytest.raises(InputError, match=r"`c.weight` of `names` is not a key of the source"):
        report.optimizer_state(state, names=["c.weight"])


def test_names_may_lack_what_all_keys_begin_with():
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 6))

    whole, target = Whole(), Whole()
    report = ckpt_tool.load_into(target, whole)
    state = state_of(whole, whole.model.named_parameters())
    found = report.optimizer_state(state, target, torch.optim.AdamW(target.parameters()))
    assert found.moved.moved == tuple(name for name, _ in target.named_parameters())


def test_a_tied_key_that_was_saved_apart_is_no_parameter():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.mid, self.head = nn.Linear(4, 6, bias=False), nn.Linear(6, 4), nn.Linear(4, 6, bias=False)
            self.head.weight = self.embed.weight

    model, target = Tied(), Tied()
    apart = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(target.parameters())
    found = ckpt_tool.load_into(target, apart).optimizer_state(state_of(model, model.parameters()), target, optimizer)
    assert found.moved.moved == ("embed.weight", "mid.weight", "mid.bias")
    optimizer.load_state_dict(found)


def test_values_that_the_model_changes_on_loading_have_no_state():
    class Reordering(nn.Linear):
        def _load_from_state_dict(self, state_dict, prefix, *args):
            state_dict[f"{prefix}weight"] = state_dict[f"{prefix}weight"].flip(0)
            super()._load_from_state_dict(state_dict, prefix, *args)

    model = nn.Sequential(nn.Linear(4, 5))
    report = ckpt_tool.load_into(nn.Sequential(Reordering(4, 5)), model)
    assert report.changed == ("0.weight",)
    with pytest.raises(RuleError, match=r"can't follow to `0.weight`: the model's own load hooks changed its values"):
        report.optimizer_state(state_of(model, model.parameters()))
    assert list(report.optimizer_state(state_of(model, model.parameters()), fresh=["0.weight"])["state"]) == [1]


def test_names_that_torch_kept_from_another_model_are_not_believed():
    class Swapped(nn.Module):
        def __init__(self, names):
            super().__init__()
            for name in names:
                self.add_module(name, nn.Linear(4, 4, bias=False))

    one, other = Swapped("ba"), Swapped("ab")
    optimizer = torch.optim.AdamW(other.named_parameters())
    optimizer.load_state_dict(state_of(one, one.named_parameters()))
    assert optimizer.param_groups[0]["param_names"] == ["b.weight", "a.weight"]
    report = ckpt_tool.load_into(Swapped("ab"), other)
    state = optimizer.state_dict()
    with pytest.raises(InputError, match="names its parameters in another order than the model has them"):
        report.optimizer_state(state)
    for names in (["a.weight", "b.weight"], ["b.weight", "a.weight"]):
        found = report.optimizer_state(state, names=[names])
        assert torch.equal(found["state"][0]["exp_avg"], state["state"][names.index("a.weight")]["exp_avg"])


def test_sorted_keys_pair_nothing_by_order(tmp_path):
    """As the files of transformers' Trainer: the weights sorted by safetensors, the optimizer in the order of the model."""
    from safetensors.torch import save_file

    model = nn.ModuleDict({"embed": nn.Linear(4, 4, False), "attn": nn.ModuleDict({name: nn.Linear(4, 4, False) for name in ("q", "k", "v", "o")})})
    state = state_of(model, model.parameters())
    weights = model.state_dict()
    save_file(weights, tmp_path / "model.safetensors")
    torch.save({key: weights[key] for key in sorted(weights)}, tmp_path / "sorted.pth")
    for path in (tmp_path / "model.safetensors", tmp_path / "sorted.pth"):
        report = ckpt_tool.load_into(copy.deepcopy(model), path)
        with pytest.raises(InputError, match="can't be known: the model's keys are sorted; give `names`"):
            report.optimizer_state(state)
        found = report.optimizer_state(state, names=[name for name, _ in model.named_parameters()])
        assert list(found["state"]) == list(range(5))
        assert all(torch.equal(found["state"][i]["exp_avg"], state["state"][i]["exp_avg"]) for i in range(5))


def test_sorted_keys_with_a_shape_each_are_certain(tmp_path):
    model = nn.ModuleDict({"c": nn.Linear(3, 4), "b": nn.Linear(4, 5), "a": nn.Linear(5, 6), "d": nn.Linear(6, 7)})
    torch.save({key: model.state_dict()[key] for key in sorted(model.state_dict())}, tmp_path / "sorted.pth")
    state = state_of(model, model.parameters())
    target = copy.deepcopy(model)
    report = ckpt_tool.load_into(target, tmp_path / "sorted.pth")
    found = report.optimizer_state(state, target, torch.optim.AdamW(target.parameters()))
    assert all(torch.equal(found["state"][i]["exp_avg"], state["state"][i]["exp_avg"]) for i in range(8))


def test_groups_are_those_of_the_new_optimizer_with_the_sources_entries():
    model, target = nn.Sequential(nn.Linear(4, 5)), nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2))
    report = ckpt_tool.load_into(target, model, partial=True)
    optimizer = torch.optim.AdamW([{"params": list(target[1].parameters()), "lr": 0.1, "group": "fresh"}, {"params": list(target[0].parameters())}], lr=0.5)
    found = report.optimizer_state(state_of(model, model.parameters()), target, optimizer)
    assert [(group["lr"], group["params"]) for group in found["param_groups"]] == [(0.1, [0, 1]), (0.001, [2, 3])]
    assert found["param_groups"][0]["group"] == "fresh"
    assert found.notes == ("group 1: `lr` is 0.001, as in the source (here 0.5)",)
    assert list(found["state"]) == [2, 3]
    optimizer.load_state_dict(found)


@pytest.mark.parametrize("is_flat", [False, True])
def test_names_of_distributed_state_dicts_are_followed(is_flat):
    old, new = fill_with_seeded_values(Old(), 1), New()
    optimizer = torch.optim.AdamW(decay_first(old), 0.01)
    train(old, optimizer, range(10))
    options = StateDictOptions(flatten_optimizer_state_dict=is_flat)
    state = copy.deepcopy(get_optimizer_state_dict(old, optimizer, options=options))
    weights = copy.deepcopy(old.state_dict())
    report = ckpt_tool.load_into(new, weights, rules=RULES)
    new_optimizer = torch.optim.AdamW(decay_first(new), 0.01)
    found = report.optimizer_state(state, new, new_optimizer)
    assert report.optimizer_state(state).keys() == found.keys()
    set_optimizer_state_dict(new, new_optimizer, found, options=options)
    train(old, optimizer, range(10, 30))
    train(new, new_optimizer, range(10, 30))
    again = New()
    ckpt_tool.load_into(again, old, rules=RULES)
    assert all(torch.equal(value, new.state_dict()[key]) for key, value in again.state_dict().items())


def test_names_of_wrapped_models_are_those_inside():
    model, target = nn.Sequential(nn.Linear(4, 5)), nn.Sequential(nn.Linear(4, 5))
    report = ckpt_tool.load_into(target, model)
    state = state_of(model, nn.DataParallel(model).named_parameters())
    assert state["param_groups"][0]["param_names"] == ["module.0.weight", "module.0.bias"]
    assert report.optimizer_state(state).moved.moved == ("0.weight", "0.bias")
