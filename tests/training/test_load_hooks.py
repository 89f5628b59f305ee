"""Modules with loading code of their own: `load_into` gives what `load_state_dict` gives, or refuses, and says which module it is."""

import functools
from collections import OrderedDict

import pytest
import torch
from seeded import fill_with_seeded_values
from torch import nn

import ckpt_tool
from ckpt_tool import InputError, MappingOptions
from tests.training.sharded import on_two_processes

BY_NAME = MappingOptions(inline=("** -> **",))


class Scale(nn.Module):
    """Its first version had the scale itself, this one has the logarithm."""

    _version = 2

    def __init__(self, size=3):
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(size))

    def _load_from_state_dict(self, state, prefix, metadata, *others):
        if (metadata.get("version") or 1) < 2:
            state[prefix + "scale"] = state[prefix + "scale"].log()
        super()._load_from_state_dict(state, prefix, metadata, *others)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.scale = Scale()


def state(version=1, **tensors):
    found = OrderedDict(tensors or {"scale.scale": torch.tensor([1.0, 2.0, 4.0]), **linear_state()})
    found._metadata = {"": {"version": 1}, "head": {"version": 1}, "scale": {"version": version}}  # type: ignore[attr-defined]
    return found


def linear_state():
    return {"head.weight": torch.ones(2, 3), "head.bias": torch.ones(2)}


def file_of(source, tmp_path):
    torch.save(source, tmp_path / "source.pth")
    return str(tmp_path / "source.pth")


def equal(ours, theirs):
    return all(torch.equal(one, other) for one, other in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("is_file", [True, False])
def test_a_module_upgrades_by_the_version_of_the_state_dict(version, is_file, tmp_path):
    ours, theirs = Net(), Net()
    theirs.load_state_dict(state(version))
    report = ckpt_tool.load_into(ours, file_of(state(version), tmp_path) if is_file else state(version))
    assert equal(ours, theirs)
    assert report.loaded == ("head.weight", "head.bias", "scale.scale")
    told = "`scale.scale` was changed by the module's own load hooks, as by `load_state_dict`"
    assert report.notes == ((told,) if version == 1 else ())


def test_without_versions_torch_takes_the_first(tmp_path):
    ours, theirs = Net(), Net()
    theirs.load_state_dict(dict(state()))
    ckpt_tool.load_into(ours, dict(state()))
    assert equal(ours, theirs)


def test_the_version_goes_with_the_module_under_another_name():
    renamed = state(**{f"old.{key}": value for key, value in state().items()})
    renamed._metadata = {"old": {"version": 1}, "old.scale": {"version": 2}, "old.head": {"version": 1}}
    model = Net()
    ckpt_tool.load_into(model, renamed, options=MappingOptions(inline=("old.** -> **",)))
    assert torch.equal(model.scale.scale, renamed["old.scale.scale"])


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_hooks_run_for_models_on_any_device(device):
    with torch.device(device):
        ours = Net()
    theirs = Net()
    theirs.load_state_dict(state())
    ckpt_tool.load_into(ours, state())
    assert equal(ours, theirs)


def test_values_that_rules_make_in_another_way_are_not_changed_unseen():
    model = Net()
    given = state(**{"s": torch.tensor([1.0, 2.0, 4.0]), **linear_state()})
    with pytest.raises(InputError) as raised:
        ckpt_tool.load_into(model, given, options=MappingOptions(inline=("s -> scale.scale", "head.* -> head.*")))
    assert str(raised.value) == (
        "Net: `scale` (Scale) changes `scale.scale` on loading, by code for its own state dicts, and the plan makes it from other names; "
        "let its own `load_state_dict` read the file, or one that `ckpt map` has written, and keep its keys here"
    )
    assert equal(model.scale, Scale())
    assert not torch.equal(model.head.bias, torch.ones(2))
    ckpt_tool.load_into(model, given, options=MappingOptions(inline=("head.* -> head.*",), drop=("s",), keep=("scale.*",)))
    assert torch.equal(model.head.bias, torch.ones(2))


def test_hooks_that_change_nothing_are_no_obstacle_to_rules():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[0]._register_load_state_dict_pre_hook(lambda *_: None)
    source = {"w": torch.ones(4, 2), "b": torch.ones(2), "bn.s": torch.full((2,), 2.0), "bn.b": torch.ones(2)}
    rules = ("w -> {0.weight,1.rest}: {split: 0}",)
    model[1].rest = nn.Parameter(torch.zeros(2, 2))
    how = MappingOptions(inline=(*rules, "b -> 0.bias", "bn.{s=s,b} -> 1.{s=weight,bias}"), keep=("1.running_*", "1.num_*"))
    report = ckpt_tool.load_into(model, source, options=how)
    assert report.notes == ()
    assert torch.equal(model[1].weight, torch.full((2,), 2.0))
    assert model[1].running_var.eq(1).all()


def test_a_hook_before_loading_sees_the_state_dict_with_its_prefix():
    seen = []
    model = nn.Sequential(nn.Linear(3, 2))
    model[0].register_load_state_dict_pre_hook(lambda module, state, prefix, *_: seen.append((module, prefix, sorted(state))))
    model[0].register_load_state_dict_pre_hook(lambda module, state, *_: state.update(bias=state["bias"] * 2))
    ckpt_tool.load_into(model, {"0.weight": torch.ones(2, 3), "0.bias": torch.ones(2)})
    assert seen == [(model[0], "", ["bias", "weight"])]
    assert torch.equal(model[0].bias, torch.full((2,), 2.0))


def test_hooks_after_loading_are_called_inner_modules_first():
    class Cached(nn.Linear):
        def __init__(self):
            super().__init__(3, 2)
            self.register_buffer("twice", torch.zeros(2), persistent=False)
            self.register_load_state_dict_post_hook(lambda module, keys: setattr(module, "twice", module.bias.detach() * 2))

    calls = []
    model = nn.Sequential(Cached(), nn.Linear(2, 2))
    for name, module in {"inner": model[0], "outer": model}.items():
        module.register_load_state_dict_post_hook(lambda _, keys, name=name: calls.append((name, list(keys.missing_keys))))
    ckpt_tool.load_into(model, {"0.weight": torch.ones(2, 3), "0.bias": torch.ones(2)}, options=MappingOptions(inline=("** -> **",), keep=("1.*",)))
    assert torch.equal(model[0].twice, torch.full((2,), 2.0))
    assert calls == [("inner", ["1.weight", "1.bias"]), ("outer", ["1.weight", "1.bias"])]


def test_a_hook_that_fails_is_named_and_nothing_is_loaded():
    model = nn.Sequential(nn.Linear(3, 2), Scale())
    model[1].register_load_state_dict_pre_hook(lambda module, state, *_: state.pop("gone"))
    before = model[0].weight.clone()
    with pytest.raises(InputError, match=r"Sequential: `1` \(Scale\) can't be loaded: KeyError: 'gone'"):
        ckpt_tool.load_into(model, {"0.weight": torch.ones(2, 3), "0.bias": torch.ones(2), "1.scale": torch.ones(3)})
    assert torch.equal(model[0].weight, before)


def test_what_a_hook_takes_away_or_asks_for_is_refused():
    source = {"0.weight": torch.ones(2, 3), "0.bias": torch.ones(2)}
    for hook, fact in (
        (lambda state, *_: state.pop("bias"), "leaves out `0.bias` on loading"),
        (lambda state, *others: others[3].append("scale"), "asks for `scale` on loading, which the plan doesn't give"),
    ):
        model = nn.Sequential(nn.Linear(3, 2))
        model[0]._register_load_state_dict_pre_hook(hook)
        with pytest.raises(InputError, match=fact):
            ckpt_tool.load_into(model, source)
        assert not model[0].weight.eq(1).any()


def test_an_old_state_dict_of_spectral_norm_needs_what_the_plan_does_not_give(tmp_path):
    norm = torch.nn.utils.spectral_norm(nn.Linear(3, 3))
    old = OrderedDict((key, value) for key, value in norm.state_dict().items() if key != "weight_v")
    old["weight"] = norm.weight.detach()
    old._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    how = MappingOptions(inline=("** -> **",), drop=("weight",), keep=("weight_v",))
    with pytest.raises(InputError, match="asks for `weight` on loading"):
        ckpt_tool.load_into(torch.nn.utils.spectral_norm(nn.Linear(3, 3)), file_of(old, tmp_path), options=how)


def test_a_counter_that_older_files_lack_is_what_torch_makes_of_it():
    source = OrderedDict(weight=torch.ones(3), bias=torch.ones(3), running_mean=torch.ones(3), running_var=torch.ones(3))
    how = MappingOptions(inline=("** -> **",), keep=("num_batches_tracked",))
    for device in ("cpu", "meta"):
        with torch.device(device):
            model = nn.BatchNorm1d(3)
        report = ckpt_tool.load_into(model, source, options=how)
        assert model.num_batches_tracked.item() == 0
        assert report.fresh == (("num_batches_tracked",) if device == "cpu" else ())


def test_a_model_with_a_load_state_dict_of_its_own():
    class Stripping(nn.Linear):
        def load_state_dict(self, state_dict, *arguments, **options):
            return super().load_state_dict({key: value + 1 for key, value in state_dict.items()}, *arguments, **options)

    class Closed(nn.Linear):
        def load_state_dict(self, state_dict):
            raise AssertionError("is not called")

    source = {"weight": torch.ones(2, 3), "bias": torch.ones(2)}
    model = Stripping(3, 2)
    report = ckpt_tool.load_into(model, source)
    assert model.weight.eq(2).all()
    assert report.notes == ("`**` were changed by the module's own load hooks, as by `load_state_dict`",)
    with pytest.raises(InputError, match="Closed: can't be loaded: TypeError"):
        ckpt_tool.load_into(Closed(3, 2), source)


def test_code_that_writes_by_itself_writes_to_a_copy():
    class Writing(nn.Linear):
        def _load_from_state_dict(self, state, prefix, *_):
            with torch.no_grad():
                self.weight.copy_(state[prefix + "weight"].t())
                self.bias.copy_(state[prefix + "bias"])
            self.is_loaded = True

    model = nn.Sequential(Writing(3, 3), Scale())
    model[1].register_load_state_dict_pre_hook(lambda *_: 1 / 0)
    before = model[0].weight.clone()
    source = {"0.weight": torch.arange(9.0).reshape(3, 3), "0.bias": torch.ones(3), "1.scale": torch.ones(3)}
    with pytest.raises(InputError, match="ZeroDivisionError"):
        ckpt_tool.load_into(model, source)
    assert torch.equal(model[0].weight, before)
    assert not hasattr(model[0], "is_loaded")
    model[1] = Scale()
    ckpt_tool.load_into(model, source)
    assert torch.equal(model[0].weight, source["0.weight"].t())
    assert model[0].is_loaded


def test_modules_that_loading_would_rebuild_are_refused():
    class Rebuilding(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(2, 2)

        def _load_from_state_dict(self, *arguments):
            self.inner = nn.Linear(2, 2)
            super()._load_from_state_dict(*arguments)

    model = Rebuilding()
    inner = model.inner
    with pytest.raises(InputError, match="puts other modules into itself on loading"):
        ckpt_tool.load_into(model, {"inner.weight": torch.ones(2, 2), "inner.bias": torch.ones(2)})
    assert model.inner is inner


def library_models(torchvision, timm):
    def nets():
        yield "mnasnet0_5", lambda: torchvision.models.mnasnet0_5()
        yield "vit", lambda: torchvision.models.VisionTransformer(32, 16, 1, 2, 12, 24)
        yield "resnet18", lambda: timm.create_model("resnet18")
        yield "instance", lambda: nn.InstanceNorm2d(3, affine=True, track_running_stats=True)
        yield "weight norm", lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))
        yield "spectral norm", lambda: nn.utils.spectral_norm(nn.Linear(3, 3))
        yield "frozen", lambda: torchvision.ops.FrozenBatchNorm2d(3)

    return dict(nets())


@pytest.mark.parametrize("name", ["mnasnet0_5", "vit", "resnet18", "instance", "weight norm", "spectral norm", "frozen"])
def test_the_modules_of_libraries_load_their_own_state_dicts(torchvision, timm, name, tmp_path):
    make = library_models(torchvision, timm)[name]
    source, model = (fill_with_seeded_values(make(), seed) for seed in (1, 2))
    report = ckpt_tool.load_into(model, file_of(source.state_dict(), tmp_path))
    assert (report.fresh, report.dropped, report.notes) == ((), (), ())
    assert equal(model, source)


def test_activation_checkpointing_and_ties_are_seen_through():
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    def make(seed):
        inner = nn.Sequential(Scale(), nn.BatchNorm1d(3))
        model = nn.Sequential(checkpoint_wrapper(inner), Scale())
        model[1].scale = inner[0].scale
        return fill_with_seeded_values(model, seed)

    source, model = make(1), make(2)
    ckpt_tool.load_into(model, source)
    assert equal(model, source)
    assert model[1].scale is model[0]._checkpoint_wrapped_module[0].scale


def load_sharded(rank):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    found = []
    for device in ("cpu", "meta"):
        with torch.device(device):
            model = Net()
        mesh = init_device_mesh("cpu", (2,))
        fully_shard(model.scale, mesh=mesh)
        ckpt_tool.load_into(fully_shard(model, mesh=mesh), state())
        found.append(model.scale.scale.full_tensor().detach())  # type: ignore[attr-defined]
    return found


def test_the_hooks_of_a_sharded_model_see_whole_tensors(tmp_path):
    expected = torch.tensor([1.0, 2.0, 4.0]).log()
    for found in on_two_processes(load_sharded, tmp_path):
        assert all(torch.equal(value, expected) for value in found)  # type: ignore[attr-defined]


class Hooked(nn.Module):
    """A hook that does nothing, above whatever is in it."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.register_load_state_dict_pre_hook(lambda *_: None)


class OwnRoot(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def load_state_dict(self, *arguments, **options):
        return super().load_state_dict(*arguments, **options)


class OwnLSTM(nn.LSTM):
    def _load_from_state_dict(self, *arguments):
        super()._load_from_state_dict(*arguments)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("wrap", [Hooked, OwnRoot])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN, OwnLSTM])
def test_what_a_recurrent_layer_runs_with_are_its_parameters(kind, wrap, device):
    source = wrap(kind(2, 3))
    with torch.device(device):
        model = wrap(kind(2, 3))
    inside = list(model.parameters())
    ckpt_tool.load_into(model, source.state_dict())
    assert equal(model, source)
    assert all(one is other for one, other in zip(model.inner._flat_weights, model.parameters(), strict=True))
    assert device == "meta" or all(one is other for one, other in zip(inside, model.parameters(), strict=True))
    inputs = torch.ones(4, 1, 2)
    assert torch.equal(model.inner(inputs)[0], source.inner(inputs)[0])
    model.inner(inputs)[0].sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


class Refusing(nn.Linear):
    def _load_from_state_dict(self, *_):
        raise RuntimeError("no")


def refused_after(first, source, match="no"):
    """Another module refuses when the first has run its code; gives the model."""
    model = nn.Sequential(first, Refusing(1, 1))
    values = {**{f"0.{key}": value for key, value in source.items()}, "1.weight": torch.ones(1, 1), "1.bias": torch.ones(1)}
    with pytest.raises(InputError, match=match):
        ckpt_tool.load_into(model, values)
    return model


def test_a_recurrent_layer_is_what_it_was_when_another_module_refuses():
    first = Hooked(nn.LSTM(2, 3))
    inputs = torch.ones(4, 1, 2)
    before = first.inner(inputs)[0]
    refused_after(first, Hooked(nn.LSTM(2, 3)).state_dict())
    assert torch.equal(first.inner(inputs)[0], before)
    assert all(one is other for one, other in zip(first.inner._flat_weights, first.parameters(), strict=True))


class Noting(nn.Module):
    """Notes modules and tensors on itself, in all sorts of places."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
        self.order = (self.a, self.b)

    def _load_from_state_dict(self, state, prefix, *others):
        super()._load_from_state_dict(state, prefix, *others)
        self.order = (self.b, self.a)
        self.inside = {"list": [self.a.weight], "set": {self.b}}

    def _noted(self):
        return (*self.order, self.inside["list"][0], *self.inside["set"])


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_what_a_module_notes_on_itself_is_its_own(device):
    with torch.device(device):
        model = nn.Sequential(Noting())
    ckpt_tool.load_into(model, nn.Sequential(Noting()).state_dict())
    own = model[0]
    assert own._noted()[:2] == (own.b, own.a)
    assert own._noted()[3] is own.b
    assert own._noted()[2] is own.a.weight


class Viewing(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(4))
        self.register_buffer("last", torch.zeros(2), persistent=False)

    def _load_from_state_dict(self, *arguments):
        super()._load_from_state_dict(*arguments)
        self.view = self.w.detach()[1:]
        self.last = self.w.detach()[2:]


def test_a_view_that_a_module_notes_shows_its_own_tensor():
    model = nn.Sequential(Viewing())
    ckpt_tool.load_into(model, {"0.w": torch.arange(4.0)})
    with torch.no_grad():
        model[0].w.add_(1)
    assert (model[0].view.tolist(), model[0].last.tolist()) == ([2, 3, 4], [3, 4])


def test_a_view_of_what_is_replaced_is_refused():
    with torch.device("meta"):
        model = nn.Sequential(Viewing())
    with pytest.raises(InputError, match=r"`0` \(Viewing\) keeps a view of `0.w` on loading, which is replaced where it is on the meta"):
        ckpt_tool.load_into(model, {"0.w": torch.arange(4.0)})
    assert model[0].w.is_meta
    assert not hasattr(model[0], "view")


class Renewing(nn.Module):
    """A hook before loading that makes a buffer anew, and writes to a parameter."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2))
        self.register_buffer("pos", torch.zeros(3))
        self.cfg, self.calls, self.found = {"size": 1}, [], torch.zeros(2)
        self.register_load_state_dict_pre_hook(Renewing.renew)
        self._register_load_state_dict_pre_hook(self.note)

    @staticmethod
    def renew(module, state, prefix, *_):
        module.pos = torch.zeros_like(state[prefix + "pos"])
        with torch.no_grad():
            module.w.fill_(7)
        module.found.data.fill_(7)

    def note(self, *_):
        self.cfg["size"] = 2
        self.calls.append(self)


def test_hooks_that_write_to_their_module_do_so_as_in_torch():
    source = {"w": torch.ones(2), "pos": torch.full((3,), 2.0)}
    ours, theirs = Renewing(), Renewing()
    before = ours.pos
    theirs.load_state_dict(source)
    assert ckpt_tool.load_into(ours, source).notes == ()
    assert equal(ours, theirs)
    assert ours.pos is before
    assert (ours.cfg, ours.calls, ours.found.tolist()) == ({"size": 2}, [ours], [7, 7])


def test_what_hooks_have_changed_is_put_back_when_another_module_refuses():
    first = Renewing()
    pos, cfg = first.pos, first.cfg
    refused_after(first, {"w": torch.ones(2), "pos": torch.full((3,), 2.0)})
    assert first.pos is pos
    assert (first.w.tolist(), pos.tolist(), first.found.tolist()) == ([0, 0], [0, 0, 0], [0, 0])
    assert first.cfg is cfg
    assert (cfg, first.calls) == ({"size": 1}, [])
    assert first.w.requires_grad


def test_what_is_outside_of_the_module_is_put_back_where_its_code_reaches_it():
    class Parent(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(1), persistent=False)
            self.inner = nn.Linear(1, 1)
            self.inner._register_load_state_dict_pre_hook(self.note)

        def note(self, *_):
            self.count += 1

    first = Parent()
    refused_after(first, first.state_dict())
    assert first.count.item() == 0


class Statistics:
    __slots__ = ("count", "later", "rows")
    later: int

    def __init__(self):
        self.count, self.rows = 0, torch.zeros(2)


class Counts(nn.Linear):
    """Counts its loads where no attribute, list or dict of its own is."""

    def __init__(self):
        super().__init__(2, 2)
        loads = 0
        self.slots = Statistics()
        self.partial = functools.partial(print, {"n": 0})

        def count():
            nonlocal loads
            loads += 1
            return loads

        self.count = count

    def _load_from_state_dict(self, *args):
        super()._load_from_state_dict(*args)
        self.slots.count += 1
        self.slots.later = 1
        self.slots.rows += 1
        self.partial.args[0]["n"] += 1
        self.count()


def test_slots_variables_of_closures_and_arguments_of_partials_are_put_back():
    counts = Counts()
    refused_after(counts, counts.state_dict())
    assert (counts.slots.count, hasattr(counts.slots, "later"), counts.slots.rows.tolist()) == (0, False, [0, 0])
    assert counts.partial.args == ({"n": 0},)
    assert counts.count() == 1
