"""Live models that are not plain: what can't be filled is refused before anything is loaded, and nothing is said that isn't so."""

import dataclasses
import functools
import types
from typing import Any

import pytest
import torch
from seeded import fill_with_seeded_values
from torch import nn

import ckpt_tool
from ckpt_tool import InputError, MappingOptions, RuleError
from tests.training.sharded import on_two_processes


def linear(seed=0):
    return fill_with_seeded_values(nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 3)), seed)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(6, 4)
        self.body = nn.Linear(4, 4)
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.embed.weight


def tied_source(**others):
    return {"embed.weight": torch.randn(6, 4), "body.weight": torch.randn(4, 4), "body.bias": torch.randn(4), **others}


def refused(model, source, match, **options):
    before = {key: value.clone() for key, value in model.state_dict().items() if not torch.nn.parameter.is_lazy(value)}
    with pytest.raises((InputError, RuleError), match=match):
        ckpt_tool.load_into(model, source, **options)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())


def test_tied_weights_are_loaded_by_one_of_their_names():
    model, source = Tied(), tied_source()
    report = ckpt_tool.load_into(model, source)
    assert (set(report.loaded), report.fresh) == ({"embed.weight", "head.weight", "body.weight", "body.bias"}, ())
    assert torch.equal(model.head.weight, source["embed.weight"])
    assert model.head.weight is model.embed.weight


def test_what_is_kept_by_a_rule_but_tied_is_not_called_fresh():
    model, source = Tied(), tied_source()
    report = ckpt_tool.load_into(model, source, options=MappingOptions(inline=("** -> **",), keep=("head.weight",)))
    assert report.fresh == ()
    assert "`head.weight` is tied to `embed.weight`, and was loaded with it" in report.notes
    assert len(report.parameter_groups(model, lr=1, loaded_lr=1)) == 1


def test_tied_weights_get_one_value():
    same = tied_source()
    ckpt_tool.load_into(Tied(), {**same, "head.weight": same["embed.weight"].clone()})
    refused(Tied(), tied_source(**{"head.weight": torch.randn(6, 4)}), "are one tensor of the model, and would get different values")


def test_ties_survive_the_meta_device():
    with torch.device("meta"):
        model = Tied()
    source = tied_source()
    ckpt_tool.load_into(model, source)
    assert model.head.weight is model.embed.weight
    assert torch.equal(model.head.weight, source["embed.weight"])


def test_fresh_tensors_without_values_are_told():
    with torch.device("meta"):
        model = linear()
    report = ckpt_tool.load_into(model, {"0.weight": torch.randn(3, 5), "0.bias": torch.randn(3)}, keep="1.*")
    assert str(report).splitlines()[-3] == "note: 2 fresh tensors are on the meta device, without any values: `1.weight`, `1.bias`"


def test_lazy_modules_are_refused():
    refused(nn.Sequential(nn.LazyLinear(3)), {"0.weight": torch.randn(3, 5)}, "`0.weight` has no shape yet: its module is lazy")
    refused(linear(), nn.Sequential(nn.LazyLinear(3)), "the state dict: `0.weight` has no shape yet")


def test_tensors_of_inference_mode_are_refused_outside_of_it():
    with torch.inference_mode():
        model = linear()
    refused(model, linear(1), "`0.weight` was made in inference mode")
    with torch.inference_mode():
        assert len(ckpt_tool.load_into(model, linear(1)).loaded) == 4


def test_expanded_buffers_are_refused():
    model = linear()
    model.register_buffer("scale", torch.zeros(1).expand(4))
    refused(model, {**linear(1).state_dict(), "scale": torch.arange(4.0)}, "`scale` is expanded or overlaps itself")


@pytest.mark.parametrize(("size", "stride"), [((3, 3), (1, 1)), ((4, 2), (2, 3)), ((2, 3), (3, 2)), ((2, 3), (1, 2)), ((5, 1, 2), (2, 9, 1))])
def test_buffers_that_lie_over_themselves_are_refused(size, stride):
    model = linear()
    model.register_buffer("scale", torch.zeros(20).as_strided(size, stride))
    places = torch.arange(20).as_strided(size, stride)
    value = torch.arange(float(places.numel())).reshape(size)
    if len(places.unique()) < places.numel():
        refused(model, {**linear(1).state_dict(), "scale": value}, "`scale` is expanded or overlaps itself")
    else:
        ckpt_tool.load_into(model, {**linear(1).state_dict(), "scale": value})
        assert torch.equal(model.scale, value)


class Doubling(nn.Linear):
    """Its state dict has copies, as those of quantised and sharded modules do."""

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = self.weight * 2


def test_tensors_that_are_made_for_the_state_dict_are_refused():
    refused(Doubling(5, 3), nn.Linear(5, 3), "`weight` is made again whenever the state dict is asked for")
    report = ckpt_tool.load_into(Doubling(5, 3), {"bias": torch.randn(3)}, partial=True)
    assert (report.loaded, report.fresh) == (("bias",), ("weight",))


def test_a_live_model_keeps_its_types():
    refused(linear().half(), linear(1), "would become F32, and a live model keeps its own types, here F16", options=MappingOptions(dtypes="source"))
    refused(linear(), linear(1), "would become BF16", options=MappingOptions(dtypes=ckpt_tool.DType.BF16))
    model = linear().half()
    ckpt_tool.load_into(model, linear(1), options=MappingOptions(dtypes="target"))
    assert torch.equal(model[0].weight, linear(1)[0].weight.half())


def test_extra_states_are_left_alone_and_told():
    class Counting(nn.Linear):
        state: object = torch.tensor(1)

        def get_extra_state(self):
            return self.state

        def set_extra_state(self, state):
            raise AssertionError("code that a file's bytes were handed to")

    model, source = Counting(5, 3), Counting(5, 3)
    report = ckpt_tool.load_into(model, source)
    assert (report.loaded, report.notes) == (("weight", "bias"), ("1 key of the source is not a tensor of weights: `_extra_state`",))
    assert ckpt_tool.freeze(model, "**").parameters == ("weight", "bias")


def test_a_module_is_a_source():
    model = linear()
    assert len(ckpt_tool.load_into(model, nn.DataParallel(linear(1))).loaded) == 4
    assert torch.equal(model[1].weight, linear(1)[1].weight)


def test_a_model_can_be_rearranged_from_itself():
    model = nn.Sequential(*(nn.Linear(3, 3) for _ in range(4)))
    fill_with_seeded_values(model, 1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    ckpt_tool.load_into(model, model, options=MappingOptions(inline="{i}.* -> {3-i}.*"))
    assert all(torch.equal(value, before[f"{3 - int(key[0])}{key[1:]}"]) for key, value in model.state_dict().items())


def test_what_is_no_state_dict_is_told_with_where_one_is():
    inside = {"epoch": 3, "state_dict": linear(1).state_dict(), "ema": linear(2)}
    refused(linear(), inside, r"has no tensors itself, but `state_dict`, `ema` have; give `source\['state_dict'\]`")
    refused(linear(), [1], "source: is a list; give a path, a state dict or a module")
    with pytest.raises(InputError, match=r"model: is a str, not an nn\.Module"):
        ckpt_tool.load_into("resnet50.pth", linear())


def test_what_is_no_tensor_is_told():
    report = ckpt_tool.load_into(linear(), {**linear(1).state_dict(), "epoch": 3, "loss": 0.5})
    assert report.notes == ("2 keys of the source are not tensors of weights: `epoch`, `loss`",)


def test_a_model_that_gives_its_keys_other_names_is_frozen_all_the_same():
    model = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3))
    model._register_state_dict_hook(lambda own, state, *_: type(state)((f"backbone.{key}", value) for key, value in state.items()))
    source = {key: torch.randn_like(value) for key, value in model.state_dict().items() if value.is_floating_point()}
    report = ckpt_tool.load_into(model, source, keep="**.num_batches_tracked")
    assert len(report.loaded) == 6
    assert [group["group"] for group in report.parameter_groups(model, lr=1, loaded_lr=1)] == ["loaded"]
    frozen = report.freeze(model)
    assert (len(frozen.parameters), frozen.modules) == (4, ("1",))
    assert not any(parameter.requires_grad for parameter in model.parameters())


def with_sparse():
    model = nn.Linear(3, 3)
    model.register_buffer("odd", torch.eye(3).to_sparse())
    return model


def test_a_sparse_buffer_of_the_model_is_kept_like_others_and_cannot_be_filled():
    source = nn.Linear(3, 3).state_dict()
    with pytest.raises(RuleError, match="`odd`: 1 key of the target is neither mapped nor kept"):
        ckpt_tool.load_into(with_sparse(), source)
    for named in ({"keep": "odd"}, {"partial": True}):
        model = with_sparse()
        report = ckpt_tool.load_into(model, source, **named)
        assert (report.loaded, report.fresh) == (("weight", "bias"), ("odd",))
        assert torch.equal(model.odd.to_dense(), torch.eye(3))
        assert torch.equal(model.weight, source["weight"])
    model, before = with_sparse(), nn.Linear(3, 3)
    before.load_state_dict({key: value for key, value in model.state_dict().items() if key != "odd"})
    with pytest.raises(InputError, match="`odd` is sparse, and can't be filled; load before the model is made sparse"):
        ckpt_tool.load_into(model, {**source, "odd": torch.ones(3, 3)})
    assert torch.equal(model.weight, before.weight)


ODD = {"array": lambda: torch.ones(3, 3).numpy(), "sparse": lambda: torch.eye(3).to_sparse()}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("is_file", [True, False])
def test_what_cannot_be_read_is_counted_in_memory_as_in_a_file(kind, is_file, tmp_path):
    def given(state):
        torch.save(state, tmp_path / "a.pth")
        return str(tmp_path / "a.pth") if is_file else state

    bias = torch.ones(3)
    wanted = f"`weight` of the source can't be read, though the target has a place for it: 1 {kind}"
    refused(nn.Linear(3, 3), given({"weight": ODD[kind](), "bias": bias}), wanted, partial=True)
    report = ckpt_tool.load_into(nn.Linear(3, 3), given({"weight": ODD[kind](), "bias": bias}), keep="weight", drop="weight")
    assert (report.loaded, report.fresh, report.dropped) == (("bias",), ("weight",), ("weight",))
    extra = {**nn.Linear(3, 3).state_dict(), "z": ODD[kind]()}
    refused(nn.Linear(3, 3), given(extra), "`z`: 1 key of the source is neither mapped nor dropped")
    for named in ({"drop": "z"}, {"partial": True}):
        report = ckpt_tool.load_into(nn.Linear(3, 3), given(extra), **named)
        assert (report.loaded, report.dropped) == (("weight", "bias"), ("z",))


@pytest.mark.filterwarnings("ignore:torch.quantize")
def test_quantised_tensors_are_kept_and_dropped_like_others():
    def quantised():
        return torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)

    model = nn.Linear(3, 3)
    model.register_buffer("q", quantised())
    report = ckpt_tool.load_into(model, {**nn.Linear(3, 3).state_dict(), "p": quantised()}, keep="q", drop="p")
    assert (report.fresh, report.dropped) == (("q",), ("p",))


class Picky(torch.Tensor):
    """Refuses to be written."""

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), options=None):
        if function is torch.Tensor.copy_:
            raise RuntimeError("no copy")
        return super().__torch_function__(function, types, arguments, options or {})


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_tensor_whose_class_refuses_is_found_before_others_are_filled(device):
    with torch.device(device):
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        model[1].bias = nn.Parameter(torch.zeros(3).as_subclass(Picky))
    before, bias = list(model.parameters()), model[0].weight.clone()
    source = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)).state_dict()
    with pytest.raises(InputError, match=r"`1\.bias` is a Picky, which can't be filled: RuntimeError: no copy"):
        ckpt_tool.load_into(model, source)
    assert all(one is other for one, other in zip(before, model.parameters(), strict=True))
    assert device == "meta" or torch.equal(model[0].weight, bias)
    assert ckpt_tool.load_into(model, source, keep="1.bias", partial=True).fresh == ("1.bias",)


def test_several_classes_of_their_own_are_put_back_when_one_refuses():
    class Willing(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, arguments=(), options=None):
            return super().__torch_function__(function, types, arguments, options or {})

    model = nn.Linear(3, 3)
    model.weight = nn.Parameter(torch.zeros(3, 3).as_subclass(Willing))
    bias, model.bias = model.bias, nn.Parameter(torch.zeros(3).as_subclass(Picky))
    with pytest.raises(InputError, match="Picky"):
        ckpt_tool.load_into(model, nn.Linear(3, 3))
    assert not torch.Tensor.any(model.weight.as_subclass(torch.Tensor))
    model.bias = bias
    ckpt_tool.load_into(model, {"weight": torch.ones(3, 3), "bias": torch.ones(3)})
    assert type(model.weight) is Willing
    assert model.weight.eq(1).all()


def test_what_else_knows_a_tensor_of_the_meta_device_knows_the_one_in_its_place():
    with torch.device("meta"):
        model = nn.Linear(3, 3)
    model.all = [model.weight]
    model.by_name = {"bias": (model.bias,)}
    ckpt_tool.load_into(model, nn.Linear(3, 3))
    assert model.all[0] is model.weight
    assert model.by_name["bias"][0] is model.bias


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_scripted_models_are_loaded_and_frozen_but_for_statistics():
    model = torch.jit.script(nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3)))
    report = ckpt_tool.load_into(model, fill_with_seeded_values(nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3)), 1))
    assert len(report.loaded) == 7
    with pytest.raises(InputError, match="`1` is TorchScript, whose statistics can't be held; freeze, then script"):
        report.freeze(model)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert ckpt_tool.freeze(model, "0.*").parameters == ("0.weight", "0.bias")


def load_sharded(rank):
    """Loads into a model of FSDP2, on the CPU or from the meta device; gives what arrived."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    found = []
    for device in ("cpu", "meta"):
        with torch.device(device):
            model = nn.Sequential(nn.Linear(5, 3), nn.Linear(3, 3))
        mesh = init_device_mesh("cpu", (2,))
        for layer in model:
            fully_shard(layer, mesh=mesh)
        report = ckpt_tool.load_into(fully_shard(model, mesh=mesh), linear(1))
        assert len(report.parameter_groups(model, lr=1, loaded_lr=1)[0]["params"]) == len(report.freeze(model).parameters) == 4
        whole = {key: value.full_tensor() for key, value in model.state_dict().items()}
        found.append((len(report.loaded), all(torch.equal(value, whole[key]) for key, value in linear(1).state_dict().items())))
        plain = linear()
        ckpt_tool.load_into(plain, model)
        found.append(all(torch.equal(value, whole[key]) for key, value in plain.state_dict().items()))
    return found


def refuse_flattened(rank):
    """FSDP's older way gathers its tensors for the state dict."""
    from torch.distributed.fsdp import FullyShardedDataParallel

    model = FullyShardedDataParallel(linear(), device_id=torch.device("cpu"), use_orig_params=True)
    try:
        ckpt_tool.load_into(model, linear(1))
    except InputError as error:
        return str(error)
    return "loaded"


def test_a_model_that_is_sharded_over_processes_is_loaded(tmp_path):
    assert on_two_processes(load_sharded, tmp_path) == [[(4, True), True, (4, True), True]] * 2


def test_a_model_whose_state_dict_is_gathered_is_refused(tmp_path):
    for told in on_two_processes(refuse_flattened, tmp_path):
        assert "load before the model is sharded" in told


class Both(tuple):
    """A tuple that is made of two things."""

    def __new__(cls, one, other):
        return super().__new__(cls, (one, other))


def test_tuples_of_own_classes_follow_a_load_of_meta_tensors():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(2, 2))
    model.both = Both(model[0].weight, 1)
    model.both.note = "mine"
    model.some = frozenset([model[0].bias])
    ckpt_tool.load_into(model, {"0.weight": torch.ones(2, 2), "0.bias": torch.ones(2)})
    assert type(model.both) is Both
    assert model.both[0] is model[0].weight
    assert model.both.note == "mine"
    assert model[0].bias in model.some


class Strict(nn.Linear):
    """Takes no other tensors once it is built."""

    def __setattr__(self, name, value):
        if name == "bias" and "bias" in vars(self).get("_parameters", {}):
            raise RuntimeError("no")
        super().__setattr__(name, value)


def test_a_module_whose_own_code_refuses_attributes_is_loaded_from_meta():
    with torch.device("meta"):
        model = Strict(3, 2)
    source = linear(1)[0].state_dict()
    ckpt_tool.load_into(model, {"weight": source["weight"][:2, :3], "bias": source["bias"][:2]})
    assert torch.equal(model.bias, source["bias"][:2])
    assert isinstance(model.bias, nn.Parameter)


@pytest.mark.parametrize("assign", [False, True])
def test_hooks_of_gradients_follow_a_load_of_meta_tensors(assign, tmp_path):
    with torch.device("meta"):
        model = nn.Linear(3, 2)
    seen = []
    halved = model.weight.register_hook(lambda gradient: gradient / 2)
    model.weight.register_post_accumulate_grad_hook(lambda parameter: seen.append(parameter.grad.tolist()))
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "a.pth")
    assert ckpt_tool.load_into(model, tmp_path / "a.pth", assign=assign).notes[int(assign) :] == ()
    model(torch.ones(1, 3)).sum().backward()
    halved.remove()
    model.zero_grad()
    model(torch.ones(1, 3)).sum().backward()
    assert seen == [[[0.5] * 3] * 2, [[1.0] * 3] * 2]


@dataclasses.dataclass(slots=True, frozen=True)
class Shared:
    w: torch.Tensor


class Reaches(nn.Module):
    """Has its head's weight, that of the embedding, in one of many ways."""

    def __init__(self, way):
        super().__init__()
        self.emb = nn.Embedding(4, 3)
        w = self.emb.weight
        self.held: Any = {
            "slots": lambda: Shared(w),
            "partial": lambda: functools.partial(nn.functional.linear, weight=w),
            "args": lambda: functools.partial(torch.matmul, w),
            "closure": lambda: lambda x: x @ w.T,
            "default": lambda: lambda x, w=w: x @ w.T,
            "keyword": lambda: lambda x, *, w=w: x @ w.T,
            "proxy": lambda: types.MappingProxyType({"w": w}),
            "bound": lambda: w.mul,
        }[way]()
        self.way = way

    def forward(self, i):
        x = self.emb(i)
        ways = {
            "slots": lambda: x @ self.held.w.T,
            "proxy": lambda: x @ self.held["w"].T,
            "args": lambda: self.held(x.T).T,
            "bound": lambda: self.held(x),
        }
        return ways.get(self.way, lambda: self.held(x))()


EMBEDDING = {"emb.weight": torch.arange(12.0).view(4, 3)}


@pytest.mark.parametrize("way", ["slots", "partial", "args", "closure", "default", "keyword", "proxy"])
def test_what_a_model_reaches_in_whatever_way_follows_a_load_of_meta_tensors(way):
    here = Reaches(way)
    with torch.device("meta"):
        model = Reaches(way)
    ckpt_tool.load_into(here, EMBEDDING)
    assert ckpt_tool.load_into(model, EMBEDDING).notes == ()
    i = torch.tensor([1])
    assert torch.equal(model(i), here(i))


class Cached(nn.Linear):
    weights = ()


def test_what_goes_on_holding_replaced_tensors_is_listed():
    def note(keys, holder):
        return f"{keys} of the meta device, without values, {'are' if ',' in keys else 'is'} still held by {holder}: make that after the load, or build the model on the CPU"

    with torch.device("meta"):
        bound, optimised, cached, viewed = Reaches("bound"), nn.Linear(3, 2), Cached(3, 2), nn.Linear(3, 2)
    assert ckpt_tool.load_into(bound, EMBEDDING).notes == (note("`emb.weight`", "the bound method `mul`"),)
    optimizer = torch.optim.Adam(optimised.parameters())
    listed = list(cached.parameters())
    Cached.weights = (cached.weight,)
    view = viewed.weight.t()
    source = nn.Linear(3, 2).state_dict()
    assert ckpt_tool.load_into(optimised, source).notes == (note("`weight`, `bias`", "an optimizer (Adam)"),)
    notes = ckpt_tool.load_into(cached, source).notes
    Cached.weights = ()
    assert notes == (note("`weight`", "the class `Cached`"), note("`bias`", "a list"))
    assert ckpt_tool.load_into(viewed, source).notes == (note("`weight`", "something that Python doesn't tell (a view of it, say)"),)
    assert view.is_meta
    assert optimizer.param_groups[0]["params"][0].is_meta
    assert listed[0].is_meta


def test_a_variable_of_a_running_function_is_not_listed():
    with torch.device("meta"):
        model = nn.Linear(3, 2)
    for parameter in model.parameters():
        parameter.requires_grad = True
    assert ckpt_tool.load_into(model, nn.Linear(3, 2)).notes == ()
    assert parameter.is_meta


class Unregistered(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 3)
        self.proj = torch.randn(3, 3)
        self.a.some = {"x": [torch.ones(2), 1], "same": self.a.weight}


def test_attributes_that_were_never_registered_are_listed():
    with torch.device("meta"):
        model = Unregistered()
    report = ckpt_tool.load_into(model, {"a.weight": torch.ones(3, 3), "a.bias": torch.ones(3)})
    assert report.notes == ("2 tensors that are neither parameter nor buffer are on the meta device, without any values: `proj`, `a.some['x'][0]`",)
