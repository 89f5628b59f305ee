"""The optimizer's state follows a plan: a run that goes on with it is bit-equal to the one that was not interrupted."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from resuming import (
    OPTIMIZERS,
    Net,
    inverse,
    moved,
    plan_of,
    saved,
    step,
    train,
    trained,
)
from torch import nn

import ckpt_tool
from ckpt_tool.mapping.plan import input_forms
from ckpt_tool.ops import invert_chain
from ckpt_tool.training.optimizers.state import optimizer_state

WIDTH = 8


def values(**shapes):
    generator = torch.Generator().manual_seed(3)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


QKV = {"embed": (6, 8), "q": (8, 8), "k": (8, 8), "v": (8, 8), "norm": (8,), "out": (8, 16), "head": (8, 8), "conv": (4, 3, 2, 2)}
QKV_STEPS = [
    step(["q", "k", "v"], ["qkv"], {"concat": 0}),
    step(["embed"], ["stem"]),
    step(["out"], ["gate", "up"], {"split": {"dim": 1, "sizes": [10, 6]}}, "transpose"),
    step(["head"], ["classifier"], {"index": {"dim": 0, "order": [3, 1, 2, 0, 7, 6, 5, 4]}}),
    step(["norm"], ["ln"]),
    step(["conv"], ["kernel"], {"rearrange": "o i h w -> o (h w i)"}),
]
ORDER = ["ln", "classifier", "up", "gate", "kernel", "stem", "qkv"]


def assert_resumed(source, steps, order, make, before=10, after=20, file=None):
    """A run that goes through the steps, or through them and a file, ends where the uninterrupted one does, and so does its optimizer."""
    net, optimizer = trained(source, make, before)
    weights, state = saved(net, optimizer)
    plan = plan_of(steps, weights, order)
    made = moved(steps, weights)
    new = Net({key: made[key] for key in order}, inverse(steps, source))
    new_optimizer = make(new.parameters())
    if file is not None:
        torch.save({"model": weights, "optimizer": state}, file)
    new_optimizer.load_state_dict(optimizer_state(plan, file or state, new, new_optimizer))
    train(net, optimizer, range(before, before + after))
    train(new, new_optimizer, range(before, before + after))
    expected = moved(steps, dict(net.state_dict()))
    assert {key: torch.equal(expected[key], value) for key, value in new.state_dict().items()} == dict.fromkeys(expected, True)
    assert_equal_states(optimizer_state(plan, optimizer.state_dict(), new, new_optimizer), new_optimizer.state_dict())


def assert_equal_states(one, other):
    """The same ids with the same slots, of the same values, and the same groups."""
    assert one["param_groups"] == other["param_groups"]
    assert one["state"].keys() == other["state"].keys()
    for number, slots in one["state"].items():
        assert list(slots) == list(other["state"][number])
        for slot, value in slots.items():
            assert value.dtype == other["state"][number][slot].dtype
            assert torch.equal(value, other["state"][number][slot]), (number, slot)


@pytest.mark.parametrize("is_file", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_resumed_run_is_bit_equal(name, is_file, tmp_path):
    assert_resumed(values(**QKV), QKV_STEPS, ORDER, OPTIMIZERS[name], file=tmp_path / "run.pth" if is_file else None)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_there_and_back_is_the_state_that_was(name):
    """The way back is that of `ckpt check --invert`: the inverse ops of each step."""
    source = values(**QKV)
    net, optimizer = trained(source, OPTIMIZERS[name], 5)
    weights, state = saved(net, optimizer)
    there = plan_of(QKV_STEPS, weights, ORDER)
    made = moved(QKV_STEPS, weights)
    back = [replace(each, inputs=each.outputs, outputs=each.inputs, ops=invert_chain(each.ops, input_forms(each, there.source)).ops) for each in QKV_STEPS]
    for form in ("ids", "names", "flat"):
        moved_there = optimizer_state(there, state, form=form)
        found = optimizer_state(plan_of(back, {key: made[key] for key in ORDER}, list(source)), moved_there, form="ids", names=[ORDER] if form == "ids" else None)
        assert_equal_states(found, state)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_lost_or_positional_state_is_not_equal(name):
    """The check above finds a state that is wrong: here it goes by position, as torch would have it."""
    source = values(a=(8, 8), b=(8, 8))
    steps = [step(["a"], ["x"]), step(["b"], ["y"])]
    net, optimizer = trained(source, OPTIMIZERS[name], 10)
    weights, state = saved(net, optimizer)
    made = moved(steps, weights)
    new = Net({key: made[key] for key in ("y", "x")}, inverse(steps, source))
    wrong = OPTIMIZERS[name](new.parameters())
    wrong.load_state_dict(state)
    train(net, optimizer, range(10, 15))
    train(new, wrong, range(10, 15))
    expected = moved(steps, dict(net.state_dict()))
    plan = plan_of(steps, weights, ["y", "x"])
    states = optimizer_state(plan, optimizer.state_dict(), new, wrong)["state"], wrong.state_dict()["state"]
    assert not all(torch.equal(states[0][0][slot], value) for slot, value in states[1][0].items())
    if name != "ASGD":  # its averages are kept beside the parameters, which don't follow them
        assert not all(torch.equal(expected[key], value) for key, value in new.state_dict().items())


SIZES = st.sampled_from([1, 2, 3, 4, 8])


@st.composite
def chains(draw):
    """Tensors that go into a step, and ops that only arrange their elements."""
    shape = tuple(draw(st.lists(SIZES, min_size=1, max_size=3)))
    count = draw(st.integers(1, 3))
    ops, shapes = [], [shape] * count
    for _ in range(draw(st.integers(0, 2))):
        shape = draw_one(draw, ops, shape)
    if count > 1:
        dim = draw(st.integers(0, len(shape) - 1))
        ops.append(draw(st.sampled_from([{"concat": dim}, {"stack": dim}])))
        grown = (*shape[:dim], shape[dim] * count, *shape[dim + 1 :])
        shape = grown if "concat" in ops[-1] else (*shape[:dim], count, *shape[dim:])
    for _ in range(draw(st.integers(0, 2))):
        shape = draw_one(draw, ops, shape)
    outputs = 1
    dim = draw(st.integers(0, len(shape) - 1))
    if draw(st.booleans()) and shape[dim] > 1:
        first = draw(st.integers(1, shape[dim] - 1))
        ops.append({"split": {"dim": dim, "sizes": [first, shape[dim] - first]}})
        outputs = 2
    return shapes, ops, outputs


def draw_one(draw, ops, shape):
    """One more op on each tensor, and the shape that it makes."""
    kind = draw(st.sampled_from(["transpose", "index", "reverse", "roll", "reshape", "neg", "rearrange"]))
    dim = draw(st.integers(0, len(shape) - 1))
    if kind == "transpose" and len(shape) > 1:
        other = draw(st.integers(0, len(shape) - 1))
        ops.append({"transpose": [dim, other]})
        swapped = list(shape)
        swapped[dim], swapped[other] = shape[other], shape[dim]
        return tuple(swapped)
    if kind == "index":
        ops.append({"index": {"dim": dim, "order": draw(st.permutations(range(shape[dim])))}})
    if kind == "reverse":
        ops.append({"index": {"dim": dim, "order": "reverse"}})
    if kind == "roll":
        ops.append({"index": {"dim": dim, "order": {"roll": draw(st.integers(-3, 3))}}})
    if kind == "neg":
        ops.append({"unary": "neg"})
    if kind == "reshape":
        ops.append({"reshape": [-1]})
        return (torch.Size(shape).numel(),)
    if kind == "rearrange" and len(shape) == 2:
        ops.append({"rearrange": "a b -> (b a)"})
        return (shape[0] * shape[1],)
    return shape


@settings(max_examples=60)
@given(st.lists(chains(), min_size=1, max_size=3), st.sampled_from(sorted(OPTIMIZERS)), st.randoms(use_true_random=False))
def test_any_arrangement_is_followed_exactly(found, name, random):
    source, steps = {}, []
    for number, (shapes, ops, outputs) in enumerate(found):
        names = [f"in{number}_{i}" for i in range(len(shapes))]
        source |= values(**dict(zip(names, shapes, strict=True)))
        steps.append(step(names, [f"out{number}_{i}" for i in range(outputs)], *ops))
    order = [key for each in steps for key in each.outputs]
    random.shuffle(order)
    assert_resumed(source, steps, order, OPTIMIZERS[name], 3, 4)


def test_parameters_that_no_group_has_are_reported():
    source = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(source[0].parameters())
    source(torch.rand(2, 4)).sum().backward()
    optimizer.step()
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    report = ckpt_tool.load_into(model, source.state_dict())
    assert report.optimizer_state(optimizer).notes == ("2 parameters are in no group, as in the source's optimizer: `1.weight`, `1.bias`",)
    assert report.optimizer_state(optimizer, model, torch.optim.AdamW(model[0].parameters())).notes == ()


def test_what_adamw_sets_itself_is_not_said_to_be_the_source_s():
    source, model = nn.Linear(2, 2), nn.Linear(2, 2)
    given = torch.optim.Adam(source.parameters())
    source(torch.ones(1, 2)).sum().backward()
    given.step()
    report = ckpt_tool.load_into(model, source)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    state = report.optimizer_state(given, model, optimizer)
    assert state.notes == ("group 0: `decoupled_weight_decay` is False in the source, and stays True: AdamW sets it when it loads",)
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["decoupled_weight_decay"]
