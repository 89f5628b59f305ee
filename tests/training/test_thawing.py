"""What is frozen stands still under every optimizer, what is thawed moves again, and a schedule's state follows from the epoch alone."""

import copy
import pickle
from typing import Any

import pytest
import torch
from seeded import fill_with_seeded_values
from torch import nn

import ckpt_tool
from ckpt_tool import FreezeSchedule, InputError, RuleError
from tests.training.sharded import on_processes

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.1, nesterov=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1, amsgrad=True),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-2, weight_decay=0.1, foreach=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2, weight_decay=0.1, initial_accumulator_value=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.9, weight_decay=0.1, centered=True),
    "adamax": lambda p: torch.optim.Adamax(p, lr=1e-2, weight_decay=0.1),
    "nadam": lambda p: torch.optim.NAdam(p, lr=1e-2, weight_decay=0.1),
    "radam": lambda p: torch.optim.RAdam(p, lr=1e-2, weight_decay=0.1),
    "adadelta": lambda p: torch.optim.Adadelta(p, lr=1.0, weight_decay=0.1),
    "rprop": lambda p: torch.optim.Rprop(p, lr=1e-2),
    "asgd": lambda p: torch.optim.ASGD(p, lr=1e-2, weight_decay=0.1),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=1e-2, weight_decay=0.1),
}


def net(seed=0):
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4, momentum=None)]
    return fill_with_seeded_values(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)), seed)


def steps(model, optimizer, numbers):
    model.train()
    for number in numbers:
        generator = torch.Generator().manual_seed(number)
        loss = (model(torch.randn(4, 3, 6, 6, generator=generator)) - torch.randn(4, 2, generator=generator)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def values(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def moved(model, before):
    return {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}


STEM = {"0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "1.num_batches_tracked"}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_frozen_stands_still_and_thawed_moves_again(name):
    model = net()
    optimizer = OPTIMIZERS[name](model.parameters())
    steps(model, optimizer, range(3))
    frozen = ckpt_tool.freeze(model, "{0,1}.**", optimizer=optimizer)
    before = values(model)
    states = {key: copy.deepcopy(optimizer.state[one]) for key, one in model[:2].named_parameters()}
    steps(model, optimizer, range(3, 8))
    assert moved(model, before) == before.keys() - STEM
    assert frozen.optimizer.skipped == ("0.weight", "0.bias", "1.weight", "1.bias")
    assert frozen.optimizer.states == 4
    for key, one in model[:2].named_parameters():
        assert all(torch.equal(torch.as_tensor(optimizer.state[one][slot]), torch.as_tensor(was)) for slot, was in states[key].items())
    thawed = ckpt_tool.thaw(model, "{0,1}.**", optimizer=optimizer)
    assert (repr(thawed), thawed.optimizer.added) == ("Thawed(4 parameters, 1 module)", ())
    before = values(model)
    steps(model, optimizer, range(8, 10))
    assert moved(model, before) == set(before)


def test_frozen_for_nothing_is_as_never_frozen():
    """Freeze, thaw, train: bit for bit what training alone gives, with momenta of both kinds."""
    plain, thawed = net(), net()
    ckpt_tool.freeze(thawed, "**")
    ckpt_tool.thaw(thawed, "**")
    for model in (plain, thawed):
        steps(model, OPTIMIZERS["adamw"](model.parameters()), range(4))
    assert moved(thawed, values(plain)) == set()
    assert [thawed[1].momentum, thawed[4].momentum, type(thawed[1])] == [0.1, None, nn.BatchNorm2d]
    assert "_momentum_in_training" not in vars(thawed[1])
    assert vars(thawed[1]).keys() == vars(plain[1]).keys()


@pytest.mark.parametrize("is_training", [True, False])
def test_what_is_thawed_is_in_the_mode_that_was_asked_for(is_training):
    model = net()
    ckpt_tool.freeze(model, "**")
    model.train(is_training)
    ckpt_tool.thaw(model, "1.*")
    assert [layer.training for layer in model] == [is_training] * 4 + [False] + [is_training] * 3
    ckpt_tool.thaw(model, "**")
    assert {layer.training for layer in model} == {is_training}


def test_modes_that_are_set_without_a_call_count_too():
    """As Lightning does after validation."""
    model = net()
    ckpt_tool.freeze(model.train(), "**")
    modes = {module: module.training for module in model.modules()}
    model.eval()
    for module, mode in modes.items():
        module.training = mode
    ckpt_tool.thaw(model, "**")
    assert all(module.training for module in model.modules())
    for mode in (True, False):
        norm = nn.BatchNorm1d(3)
        ckpt_tool.freeze(norm, "**")
        ckpt_tool.thaw(norm.train(mode), "**")
        assert norm.training is mode


def converted(model):
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)


def pickled(model):
    return pickle.loads(pickle.dumps(model))


def parametrized(model):
    nn.utils.parametrize.register_parametrization(model[1], "weight", nn.Identity())
    return model


@pytest.mark.parametrize("change", [converted, pickled, copy.deepcopy, parametrized, lambda m: converted(copy.deepcopy(m)), lambda m: pickled(pickled(m))])
def test_thawing_survives_what_becomes_of_a_frozen_model(change):
    model = net()
    ckpt_tool.freeze(model, "**")
    other = change(model)
    kind = type(other[1]).__name__
    assert len(ckpt_tool.freeze(other, "**").modules) == 2
    assert not other.train()[1].training
    assert ckpt_tool.thaw(other, "**").modules == ("1", "4")
    assert (type(other[1]).__name__, other[1].momentum, other[4].momentum) == (kind, 0.1, None)
    assert other[1].training
    assert not other.eval()[1].training
    assert {one.requires_grad for one in other.parameters()} == {True}
    assert not hasattr(type(other[1]), "_held")
    assert b"ckpt_tool" not in pickle.dumps(net())


@pytest.mark.parametrize("is_thawed", [False, True])
def test_frozen_and_thawed_models_are_scripted_and_exported(is_thawed):
    model, inputs = net(), torch.randn(2, 3, 6, 6)
    ckpt_tool.freeze(model, "**")
    if is_thawed:
        ckpt_tool.thaw(model, "**")
    expected = model.eval()(inputs)
    for other in (torch.jit.script(model), torch.export.export(model, (inputs,)).module(), torch.fx.symbolic_trace(model)):
        assert torch.equal(other(inputs), expected)


def test_an_own_momentum_that_was_set_meanwhile_stays():
    model = net()
    ckpt_tool.freeze(model, "**")
    model[1].momentum = 0.3
    ckpt_tool.thaw(model, "**")
    assert model[1].momentum == 0.3


def test_statistics_alone_are_thawed_by_their_names():
    model = net()
    ckpt_tool.freeze(model, "**")
    assert repr(ckpt_tool.thaw(model, "**.running_*")) == "Thawed(0 parameters, 2 modules)"
    assert str(ckpt_tool.thaw(model, "7.*")) == "2 parameters thawed, 0 modules no longer kept in eval mode"


def test_patterns_for_nothing_and_numbers_without_gradients():
    model = net()
    with pytest.raises(RuleError, match=r"`8.weight` matches no key of the model"):
        ckpt_tool.thaw(model, "8.weight")
    with pytest.raises(ValueError, match=r"'\*\*' is all"):
        ckpt_tool.thaw(model)
    model.codes = nn.Parameter(torch.ones(3, dtype=torch.int8), requires_grad=False)
    with pytest.raises(InputError, match=r"`codes` is a Parameter of torch\.int8, with no gradient"):
        ckpt_tool.thaw(model, "codes")
    thawed = ckpt_tool.thaw(model, "**")
    assert thawed.left == ("codes",)
    assert "1 parameter is not a float, and stays as it is: `codes`" in str(thawed)


# An optimizer that was made of less


def head_only(model, kind="adamw", named=False):
    ckpt_tool.freeze(model, "{0,1,3,4}.**")
    some = [(key, p) if named else p for key, p in model.named_parameters() if p.requires_grad]
    return OPTIMIZERS[kind](some)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_what_is_thawed_and_lacking_goes_into_the_only_group(kind):
    model = net()
    optimizer = head_only(model, kind)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    steps(model, optimizer, range(2))
    thawed = ckpt_tool.thaw(model, "{3,4}.**", optimizer=optimizer)
    assert thawed.optimizer.added == ("3.weight", "3.bias", "4.weight", "4.bias")
    assert "4 parameters added to its group 0" in str(thawed)
    before = values(model)
    steps(model, optimizer, range(2, 4))
    scheduler.step()
    assert moved(model, before) == before.keys() - STEM
    assert len(optimizer.state_dict()["param_groups"]) == 1
    assert ckpt_tool.thaw(model, "3.*", optimizer=optimizer).optimizer.added == ()


def test_names_of_parameters_go_along():
    model = net()
    optimizer = head_only(model, named=True)
    ckpt_tool.thaw(model, "3.*", optimizer=optimizer)
    assert optimizer.param_groups[0]["param_names"] == ["7.weight", "7.bias", "3.weight", "3.bias"]
    ckpt_tool.thaw(model, "0.*", optimizer=optimizer, group={"lr": 1e-5})
    assert optimizer.param_groups[1]["param_names"] == ["0.weight", "0.bias"]


def test_the_group_is_said_where_there_are_several():
    model = net()
    ckpt_tool.freeze(model, "{0,1}.**")
    optimizer = torch.optim.AdamW([{"params": model[3].parameters()}, {"params": model[7].parameters(), "lr": 0.5}], lr=0.1)
    with pytest.raises(InputError, match=r"optimizer: has 2 groups, and `0.weight` and 1 more in none of them; give `group=`"):
        ckpt_tool.thaw(model, "0.*", optimizer=optimizer)
    assert not model[0].weight.requires_grad
    with pytest.raises(InputError, match="group: is 2, and the optimizer has 2 groups"):
        ckpt_tool.thaw(model, "0.*", optimizer=optimizer, group=2)
    assert ckpt_tool.thaw(model, "0.*", optimizer=optimizer, group=1).optimizer.group == 1
    assert len(optimizer.param_groups[1]["params"]) == 4
    assert ckpt_tool.thaw(model, "1.*", optimizer=optimizer, group={"lr": 1e-4}).optimizer.group == 2
    assert optimizer.param_groups[2]["lr"] == 1e-4


def test_optimizers_that_would_go_wrong_are_refused_before_anything_is_frozen():
    model = net()
    for optimizer, message in (
        (torch.optim.LBFGS(model.parameters()), "is LBFGS, which moves parameters without a gradient"),
        (torch.optim.SGD(net().parameters(), lr=0.1), "has no parameter of this model; build it of this model's parameters, after the model is sharded"),
    ):
        with pytest.raises(InputError, match=message):
            ckpt_tool.freeze(model, "0.**", optimizer=optimizer)
    assert model[0].weight.requires_grad


@pytest.mark.parametrize("is_whole", [True, False])
def test_an_optimizer_from_before_a_load_of_meta_tensors_is_refused(is_whole):
    model = net(seed=1)
    model[3].to("meta")
    if is_whole:
        model.to("meta")
    old = OPTIMIZERS["sgd"](model.parameters())
    ckpt_tool.load_into(model, net())
    before = values(model)
    steps(model, old, range(2))
    assert "3.weight" not in moved(model, before)
    message = "has no parameter of this model; build it of this model's parameters, after the model is sharded, converted, loaded from the meta device"
    parts = "has 2 parameters of the meta device that this model has not, so its steps would not reach those that were loaded; build it again"
    for call in (lambda: ckpt_tool.freeze(model, "0.*", optimizer=old), lambda: ckpt_tool.thaw(model, "**", optimizer=old), lambda: SCHEDULE.apply(model, 0, old)):
        with pytest.raises(InputError, match=message if is_whole else parts):
            call()
    steps(model, OPTIMIZERS["sgd"](model.parameters()), range(2))
    assert "3.weight" in moved(model, before)


def test_lbfgs_does_move_what_has_no_gradient():
    model = net()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)

    def loss():
        optimizer.zero_grad()
        value = model.eval()(torch.ones(2, 3, 6, 6)).square().mean()
        value.backward()
        return value

    optimizer.step(loss)
    ckpt_tool.freeze(model, "0.**")
    before = values(model)
    optimizer.step(loss)
    assert "0.weight" in moved(model, before)


# Schedules

SCHEDULE = FreezeSchedule({0: "7.*", 2: ["4.**", "3.*"], 4: "**"})


@pytest.mark.parametrize("kind", ["sgd", "adamw", "adagrad"])
@pytest.mark.parametrize("resumed_at", [1, 2, 5])
def test_a_schedule_resumed_in_the_middle_equals_one_that_ran_through(kind, resumed_at, tmp_path):
    through = net()
    optimizer = OPTIMIZERS[kind](through.parameters())
    for epoch in range(6):
        if epoch == resumed_at:
            torch.save({"model": through.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "run.pth")
        SCHEDULE.apply(through, epoch, optimizer)
        steps(through, optimizer, range(3 * epoch, 3 * epoch + 3))
    resumed = net(seed=5)
    optimizer = OPTIMIZERS[kind](resumed.parameters())
    saved = torch.load(tmp_path / "run.pth")
    resumed.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    for epoch in range(resumed_at, 6):
        SCHEDULE.apply(resumed, epoch, optimizer)
        steps(resumed, optimizer, range(3 * epoch, 3 * epoch + 3))
    assert moved(resumed, values(through)) == set()


@pytest.mark.parametrize("group", [None, {"lr": 1e-3}])
def test_an_optimizer_made_of_less_has_the_same_groups_when_it_is_resumed(group):
    def started():
        model = net()
        SCHEDULE.apply(model, 0)
        return model, OPTIMIZERS["adamw"]([p for p in model.parameters() if p.requires_grad])

    through, optimizer = started()
    for epoch in range(6):
        SCHEDULE.apply(through, epoch, optimizer, group=group)
        steps(through, optimizer, [epoch])
    resumed, other = started()
    SCHEDULE.apply(resumed, 5, other, group=group)
    resumed.load_state_dict(through.state_dict())
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for model, one in ((through, optimizer), (resumed, other)):
        SCHEDULE.apply(model, 6, one, group=group)
        steps(model, one, range(6, 9))
    assert moved(resumed, values(through)) == set()


def state(model):
    return [(one.requires_grad, one.grad is None) for one in model.parameters()], [m.training for m in model.modules()], model[1].momentum


@pytest.mark.parametrize("path", [[0, 2, 4], [4, 2, 0], [5, 0, 3, 1], [3, 3]])
def test_the_state_follows_from_the_number_alone(path):
    model, fresh = net(), net()
    for number in path:
        SCHEDULE.apply(model.train(), number)
    SCHEDULE.apply(fresh.train(), path[-1])
    assert state(model) == state(fresh)
    assert not SCHEDULE.apply(model, path[-1]).is_change


def test_a_schedule_says_what_it_changed():
    model = net()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    first = SCHEDULE.apply(model, 0, optimizer)
    assert (first.trainable, first.held, first.frozen.modules, first.is_change) == (2, 8, ("1", "4"), True)
    applied = SCHEDULE.apply(model, 2, optimizer)
    assert applied.thawed.parameters == ("3.weight", "3.bias", "4.weight", "4.bias")
    assert (applied.thawed.modules, applied.frozen.parameters) == (("4",), ())
    assert str(applied).splitlines() == [
        "epoch 2: 6 parameters train, 4 are frozen (4 thawed, 0 frozen now)",
        "optimizer: 4 frozen parameters stay in its groups and are passed over, 0 of them with a state",
    ]
    assert [SCHEDULE.stage(number) for number in range(6)] == [1, 1, 2, 2, 3, 3]
    assert SCHEDULE.trainable(list(model.state_dict()), 1) == ("7.weight", "7.bias")
    assert pickle.loads(pickle.dumps(SCHEDULE)) == copy.deepcopy(SCHEDULE) == SCHEDULE


def test_one_parameter_is_no_parameters():
    model = nn.Linear(2, 2)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    applied = ckpt_tool.FreezeSchedule({0: "bias", 1: "**"}).apply(model, 0, optimizer)
    assert str(applied).splitlines() == [
        "epoch 0: 1 parameter trains, 1 is frozen (0 thawed, 1 frozen now)",
        "optimizer: 1 frozen parameter stays in its groups and is passed over, 0 of them with a state",
    ]
    assert repr(applied.frozen) == "Frozen(1 parameter, 0 modules)"
    with pytest.raises(InputError, match=r"is 3, and the optimizer has 1 group$"):
        ckpt_tool.thaw(model, "**", optimizer=optimizer, group=3)


def test_what_is_frozen_again_counts_by_the_last_entry():
    schedule = FreezeSchedule({0: "**", 4: "1.**"}, freeze={2: "**.running_*", 3: "{0,1}.*"}, unit="step")
    model = net()
    held = [[schedule.apply(model.train(), n) and model[1].training, model[1].weight.requires_grad, model[4].training] for n in range(5)]
    assert held == [[True, True, True]] * 2 + [[False, True, False], [False, False, False], [True, True, False]]


def test_tied_tensors_train_where_one_of_their_names_does():
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 3), nn.Linear(3, 5, bias=False))
    model[2].weight = model[0].weight
    FreezeSchedule({0: "2.**"}).apply(model, 0)
    assert [p.requires_grad for p in model.parameters()] == [True, False, False]


def test_what_stayed_fresh_trains_first():
    model = net()
    source = {key: value for key, value in net(seed=1).state_dict().items() if not key.startswith(("4.", "7."))}
    report = ckpt_tool.load_into(model, source, keep=["4.*", "7.*"])
    schedule = FreezeSchedule({0: report.fresh, 1: "**"})
    assert schedule.apply(model, 0).thawed.modules == ()
    assert {name for name, one in model.named_parameters() if one.requires_grad} == {"4.weight", "4.bias", "7.weight", "7.bias"}
    assert (model[1].training, model[4].training) == (False, True)


def test_single_keys_of_a_schedule_are_printed_folded():
    fresh = [f"fpn.{i}.{name}" for i in range(5) for name in ("weight", "bias")]
    schedule = FreezeSchedule({0: [*fresh, "head.**"], 1: ["fpn.5.weight", "fpn.5.bias"], 2: ["a.w", "b.w"], 3: ["{c,d}.*"], 4: "**"})
    assert str(schedule).splitlines() == [
        "epoch 0  trains head.**  fpn.{0..4}.* (10 keys)",
        "epoch 1  trains fpn.5.* (2 keys)",
        "epoch 2  trains a.w  b.w",
        "epoch 3  trains {c,d}.*",
        "epoch 4  trains **",
    ]
    assert eval(repr(schedule)) == schedule


def test_schedules_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="say what trains from epoch 0 on"):
        FreezeSchedule({1: "**"})
    with pytest.raises(ValueError, match="-1 is not an epoch or step"):
        FreezeSchedule({0: "**", -1: "x"})
    with pytest.raises(ValueError, match=r"thaw=\[\(0, 'head.\*\*'\)\]; give a dict of patterns by epoch or step"):
        FreezeSchedule([(0, "head.**")])
    with pytest.raises(ValueError, match="freeze='head'; give a dict"):
        FreezeSchedule({0: "**"}, freeze="head")
    with pytest.raises(ValueError, match="unit='batch'"):
        FreezeSchedule({0: "**"}, unit="batch")
    with pytest.raises(ValueError, match="they are whole numbers from 0 on"):
        SCHEDULE.apply(net(), 1.5)
    with pytest.raises(InputError, match=r"both thaws and freezes `0.weight` at epoch 3"):
        FreezeSchedule({0: "7.*", 3: "**"}, {3: "0.*"}).apply(net(), 0)
    model = net()
    with pytest.raises(RuleError, match=r"`9\.\*` matches no key of the model"):
        FreezeSchedule({0: "7.*", 50: "9.*"}).apply(model, 0)
    assert model[0].weight.requires_grad


# torch.compile and DistributedDataParallel


def test_a_compiled_model_follows():
    torch._dynamo.reset()
    model = net()
    compiled = torch.compile(model, backend="aot_eager")
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    for epoch in range(5):
        before = values(model)
        SCHEDULE.apply(compiled, epoch, optimizer)
        steps(compiled, optimizer, range(epoch, epoch + 2))
        trains = set(SCHEDULE.trainable(list(before), epoch))
        assert moved(model, before) == trains, epoch


@pytest.fixture
def process(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    yield nn.parallel.DistributedDataParallel
    torch.distributed.destroy_process_group()


def test_what_a_distributed_model_would_get_wrong_is_refused(process):
    model = net()
    wrapped = process(model)
    with pytest.raises(InputError, match=r"was built to wait for the gradient of `0.weight`, which would be frozen; freeze and thaw the inner"):
        ckpt_tool.freeze(wrapped, "0.*")
    assert model[0].weight.requires_grad
    ckpt_tool.freeze(model, "0.*")
    for each in (process(model), torch.compile(process(model)), process(model, find_unused_parameters=True)):
        assert len(ckpt_tool.freeze(each, "0.*").parameters) == 2
        with pytest.raises(InputError, match=r"was built while `0.weight` was frozen, and would not average its gradient"):
            ckpt_tool.thaw(each, "0.*")
    ckpt_tool.thaw(model, "0.*")
    with pytest.raises(InputError, match=r"has `static_graph=True`, and what trains would change"):
        ckpt_tool.freeze(process(model, static_graph=True), "0.*")


def test_a_distributed_model_that_was_built_for_it_follows_a_schedule(process):
    model = net()
    wrapped = process(model, find_unused_parameters=True)
    optimizer = OPTIMIZERS["adamw"](wrapped.parameters())
    plain, plain_optimizer = net(), None
    plain_optimizer = OPTIMIZERS["adamw"](plain.parameters())
    for epoch in range(5):
        for one, its in ((wrapped, optimizer), (plain, plain_optimizer)):
            SCHEDULE.apply(one, epoch, its)
            steps(one, its, range(epoch, epoch + 2))
    assert moved(model, values(plain)) == set()


def linear_net():
    return fill_with_seeded_values(nn.Sequential(*(nn.Linear(4, 4) for _ in range(3))), 0)


def train_parts(rank):
    """One half of the batch in each of two processes, the whole of it in one."""
    model = linear_net()
    wrapped = model if rank is None else nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for epoch in range(4):
        FreezeSchedule({0: "2.*", 1: "1.*", 2: "**"}).apply(wrapped, epoch, optimizer)
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(epoch))
        optimizer.zero_grad()
        wrapped(x if rank is None else x[4 * rank : 4 * rank + 4]).square().mean().backward()
        optimizer.step()
    return model.state_dict()


def test_what_is_thawed_is_averaged_over_two_processes(tmp_path):
    one, other = on_processes(2, train_parts, tmp_path)
    whole = train_parts(None)
    for key, value in whole.items():
        assert torch.equal(one[key], other[key])
        torch.testing.assert_close(one[key], value)


@pytest.mark.skipif(not hasattr(torch.cpu.Stream, "record_event"), reason="torch 2.6 can't run sharded modules on the CPU")
@pytest.mark.parametrize("is_frozen_first", [True, False])
def test_a_normalisation_that_is_sharded_by_itself_is_thawed(process, is_frozen_first):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    model = net()
    mesh = init_device_mesh("cpu", (1,))
    todo = [lambda: ckpt_tool.freeze(model, "**"), lambda: fully_shard(model[1], mesh=mesh)]
    for each in todo if is_frozen_first else todo[::-1]:
        each()
    assert not model.train()[1].training
    ckpt_tool.thaw(model, "**")
    assert isinstance(model[1], FSDPModule)
    assert isinstance(model[1], nn.BatchNorm2d)
    before = model[1].running_mean.clone()
    model(torch.ones(2, 3, 6, 6) * torch.arange(6)).square().mean().backward()
    assert not torch.equal(model[1].running_mean, before)
    assert model[1].weight.grad is not None
    assert not hasattr(type(model[1]), "_held")


# Other libraries and what is held


def frozen_net():
    model = net()
    ckpt_tool.freeze(model, "{0,1,3,4}.**")
    return model, values(model), [torch.randn(4, 3, 6, 6) for _ in range(3)]


@pytest.mark.parametrize("copied", [lambda m: m, torch.optim.swa_utils.AveragedModel, lambda m: torch.optim.swa_utils.AveragedModel(m, use_buffers=True)])
def test_statistics_that_are_held_are_not_computed_anew_by_weight_averaging(copied):
    model, before, loader = frozen_net()
    other = copied(model)
    with pytest.warns(UserWarning, match="running statistics that ckpt_tool holds are left as they were loaded, not reset"):
        torch.optim.swa_utils.update_bn(loader, other)
    assert moved(getattr(other, "module", other), before) == set()
    ckpt_tool.thaw(other, "**")
    torch.optim.swa_utils.update_bn(loader, other)
    statistics = {f"{n}.{name}" for n in (1, 4) for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert moved(getattr(other, "module", other), before) == statistics


def test_statistics_that_are_held_are_not_replaced_by_those_of_a_new_layer():
    """As Lightning's StochasticWeightAveraging does it."""
    model, before, _ = frozen_net()
    norm = model[1]

    def begin_anew():
        norm.running_mean = torch.zeros_like(norm.running_mean)
        norm.running_var = torch.ones_like(norm.running_var)
        norm.num_batches_tracked *= 0

    with pytest.warns(UserWarning, match="not reset"):
        begin_anew()
    assert moved(model, before) == set()
    assert norm.num_batches_tracked > 0
    norm.running_mean = norm.running_mean[:2] * 0  # pruned
    assert norm.running_mean.shape == (2,)


def test_a_held_layer_that_begins_anew_as_a_whole_and_one_that_is_loaded_take_all():
    model, _, _ = frozen_net()
    model[1].reset_parameters()
    assert (model[1].running_mean.sum(), model[1].weight.sum()) == (0, 4)
    fresh = nn.BatchNorm2d(4).state_dict()
    model[4].load_state_dict(fresh, assign=True)
    assert torch.equal(model[4].running_var, torch.ones(4))
    assert not model.train()[4].training


def split_of(timm):
    return lambda model: timm.layers.convert_splitbn_model(model, 2)


@pytest.mark.parametrize("convert", [split_of, lambda timm: timm.layers.convert_sync_batchnorm])
def test_what_timm_makes_of_held_normalisations_is_held_and_thawed(timm, convert):
    model, before, _ = frozen_net()
    model = convert(timm)(model)
    model.train()
    assert [model[1].training, model[4].training] == [False, False]
    assert {name for name, one in model.named_parameters() if one.requires_grad} == {"7.weight", "7.bias"}
    steps(model, torch.optim.SGD(model.parameters(), lr=0.1), range(2))
    after = model.state_dict()
    assert {key for key, value in before.items() if not torch.equal(value, after[key])} == {"7.weight", "7.bias"}
    ckpt_tool.thaw(model, "**")
    norms = [each for each in model.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]
    assert {each.momentum for each in norms} == {0.1, None}
    assert all(each.training for each in norms)


def rebuilt(norm):
    """As code that copies all values makes it."""
    other = nn.BatchNorm2d(norm.num_features, norm.eps, norm.momentum)
    other.load_state_dict(copy.deepcopy(norm).state_dict())
    return other


LOST = "2 modules, rebuilt or unpickled since frozen, no longer stayed in eval mode (frozen again unless thawed): `1` …"


@pytest.mark.parametrize("is_inside", [False, True])
def test_a_hold_that_was_lost_is_said_and_held_again(is_inside):
    inner = frozen_net()[0]
    model = nn.ModuleDict({"body": inner}) if is_inside else inner
    prefix = "body." if is_inside else ""
    inner[1], inner[4] = rebuilt(inner[1]), rebuilt(inner[4])
    assert inner[4].momentum == 0
    thawed = ckpt_tool.thaw(model, f"{prefix}4.**")
    assert thawed.lost == (f"{prefix}1", f"{prefix}4")
    assert str(thawed).splitlines()[1:] == [LOST.replace("`1`", f"`{prefix}1`")]
    model.train()
    assert [(inner[n].training, inner[n].momentum) for n in (1, 4)] == [(False, 0.0), (True, None)]
    again = ckpt_tool.thaw(model, "**")
    assert (again.lost, inner[1].momentum, inner[1].training) == ((), 0.1, True)
    assert not hasattr(inner, "_held_momenta")


def test_a_hold_that_was_lost_is_said_by_schedules_and_with_optimizers():
    model = net()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    SCHEDULE.apply(model, 0, optimizer)
    model[1], model[4] = rebuilt(model[1]), rebuilt(model[4])
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    applied = SCHEDULE.apply(model, 1, optimizer)
    assert LOST in str(applied)
    assert not model.train()[1].training
    SCHEDULE.apply(model, 4)
    assert [model[1].momentum, model[4].momentum] == [0.1, None]
    assert LOST in str(ckpt_tool.freeze(pickled(frozen_net()[0]), "0.*"))


def test_a_new_layer_in_the_place_of_a_held_one_is_no_lost_hold():
    model = frozen_net()[0]
    model[1], model[4] = nn.BatchNorm2d(4), nn.Identity()
    frozen = ckpt_tool.freeze(model, "0.*")
    assert (frozen.lost, model.train()[1].training, hasattr(model, "_held_momenta")) == ((), True, False)
    assert ckpt_tool.thaw(model, "**").lost == ()


@pytest.mark.parametrize("normed", [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm])
def test_estimates_of_a_spectral_norm_are_held_and_released(normed):
    model = nn.Sequential(normed(nn.Linear(6, 6)), nn.Dropout(0.0), nn.Linear(6, 2))
    ckpt_tool.freeze(model, "0.**")
    before = values(model)
    for each in (model, copy.deepcopy(model)):
        steps_of(each)
        assert moved(each, before) == {"2.weight", "2.bias"}
    ckpt_tool.thaw(model, "0.**")
    steps_of(model)
    assert moved(model, before) == before.keys()


def steps_of(model):
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.1)
    for number in range(3):
        optimizer.zero_grad()
        model(torch.randn(4, 6, generator=torch.Generator().manual_seed(number))).square().mean().backward()
        optimizer.step()


def test_thawed_layers_are_fused_and_train_where_this_package_is_not(tmp_path):
    model = frozen_net()[0].eval()
    with pytest.raises(AssertionError, match="did not find fuser method"):
        torch.ao.quantization.fuse_modules(model, [["0", "1", "2"]])
    ckpt_tool.thaw(model, "**")
    torch.save(model, tmp_path / "whole.pth")
    assert torch.load(tmp_path / "whole.pth", weights_only=False)[1].momentum == 0.1
    x = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(torch.ao.quantization.fuse_modules(model, [["0", "1", "2"]])(x), model(x))


def test_a_new_group_says_that_a_scheduler_knows_the_former_ones_alone():
    model = net()
    ckpt_tool.freeze(model, "0.*", "1.*")
    optimizer = torch.optim.SGD([one for one in model.parameters() if one.requires_grad], lr=0.1)
    plain = ckpt_tool.thaw(model, "1.*", optimizer=optimizer, group={"lr": 0.02}).optimizer
    assert not plain.is_followed
    assert "initial_lr" not in optimizer.param_groups[1]
    torch.optim.lr_scheduler.LambdaLR(optimizer, [lambda step: 0.5] * 2)
    mended = ckpt_tool.thaw(model, "0.*", optimizer=optimizer, group={"lr": 0.01}).optimizer
    assert mended.is_followed
    assert str(mended).endswith("make the scheduler again, with `last_epoch`, or give the number of a group")
    again = torch.optim.lr_scheduler.LambdaLR(optimizer, [lambda step: 0.25] * 3, last_epoch=1)
    optimizer.step()
    again.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.025, 0.005, 0.0025]
    ckpt_tool.freeze(model, "0.*")
    assert not ckpt_tool.thaw(model, "0.*", optimizer=optimizer, group={"lr": 1.0}).optimizer.is_followed


class Keyed(nn.BatchNorm2d):
    def __init_subclass__(cls, *, key, **others):
        super().__init_subclass__(**others)
        KEYS[cls] = key


KEYS: dict[type, str] = {}


class Norm(Keyed, key="mine"):
    pass


class Meta(type):
    def __new__(mcs, name, bases, names):
        if any(type(base) is Meta for base in bases):
            raise TypeError("final")
        return super().__new__(mcs, name, bases, names)


class Final(nn.BatchNorm2d, metaclass=Meta):
    pass


def test_classes_that_ask_something_of_those_below_them_are_held():
    model = nn.Sequential(nn.Conv2d(3, 2, 1), Norm(2))
    assert ckpt_tool.freeze(model, "**").modules == ("1",)
    assert (model.train()[1].training, type(model[1]).__name__, KEYS) == (False, "Norm", {Norm: "mine"})
    ckpt_tool.thaw(model, "**")
    assert type(model[1]) is Norm


def test_a_class_that_can_not_be_held_is_refused_before_anything_is_frozen():
    model = nn.Sequential(nn.Conv2d(3, 2, 1), Final(2))
    with pytest.raises(InputError, match=r"`1`: can't be held in eval mode: a class below Final can't be made \(final\)"):
        ckpt_tool.freeze(model, "**")
    assert all(one.requires_grad for one in model.parameters())


class Integer:
    """As numpy's and torch's."""

    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value


def test_numbers_of_other_libraries_are_numbers_and_truth_is_none():
    odd: Any = {Integer(0): "7.*", torch.tensor(2): "**"}
    schedule = FreezeSchedule(odd)
    assert schedule == FreezeSchedule({0: "7.*", 2: "**"})
    assert schedule.apply(net(), Integer(2)).number == 2
    assert len(ckpt_tool.freeze(net(), first=Integer(2)).parameters) == 2
    with pytest.raises(ValueError, match="True is not an epoch"):
        FreezeSchedule({0: "7.*", True: "**"})
    with pytest.raises(ValueError, match="epoch True"):
        schedule.apply(net(), True)
    with pytest.raises(ValueError, match="`first` is an integer"):
        ckpt_tool.freeze(net(), first=True)
