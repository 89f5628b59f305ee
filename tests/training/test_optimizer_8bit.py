"""Slots of 8 bits, in the form of bitsandbytes 0.50; where it is installed, resumed by it itself."""

import importlib.util

import pytest
import torch
from resuming import Net, inverse, moved, plan_of, saved, step, train, trained

from ckpt_tool import RuleError
from ckpt_tool.training.optimizers.state import optimizer_state

HAS_BITSANDBYTES = importlib.util.find_spec("bitsandbytes") is not None
INNER = "__bnb_optimizer_quant_state__"
SHAPES = {"q": (64, 128), "k": (64, 128), "v": (32, 128), "norm": (16,)}
STEPS = {
    "names": [step([name], [f"{name}2"]) for name in SHAPES],
    "joined": [step(["q", "k", "v"], ["qkv"], {"concat": 0}), step(["norm"], ["ln"])],
    "parted": [step(["q"], ["a", "b"], {"split": {"dim": 0, "sizes": [48, 16]}}), step(["k"], ["k2"], {"reshape": [32, 256]}), step(["v"], ["v2"]), step(["norm"], ["ln"])],
    "stacked": [step(["q", "k"], ["experts"], "stack"), step(["v"], ["v2"], {"reshape": [-1]}), step(["norm"], ["ln"])],
}


def values():
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def state_of(source):
    """A state dict as `AdamW8bit.state_dict()` gives it, with random codes."""
    torch.manual_seed(2)
    state = {}
    for number, value in enumerate(source.values()):
        blocks = -(-value.numel() // 256)
        slots = {f"state{i}": torch.randint(0, 256, value.shape, dtype=torch.uint8) for i in (1, 2)}
        slots |= {f"qmap{i}": torch.linspace(-1, 1, 256) for i in (1, 2)} | {f"absmax{i}": torch.rand(blocks) for i in (1, 2)}
        if value.numel() < 4096:
            slots = {f"state{i}": torch.rand(value.shape) for i in (1, 2)}
        state[number] = {"step": 7, INNER: slots}
    group = {"lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.01, "alpha": 0.0, "t_alpha": None, "t_beta3": None}
    return {"state": state, "param_groups": [{**group, "params": list(state)}]}


def numbers(slots):
    """What the codes stand for."""
    inner = slots[INNER]
    if "absmax1" not in inner:
        return [inner["state1"], inner["state2"]]
    result = []
    for i in (1, 2):
        codes = inner[f"state{i}"]
        scale = inner[f"absmax{i}"].repeat_interleave(256)[: codes.numel()].reshape(codes.shape)
        result.append(inner[f"qmap{i}"][codes.long()] * scale)
    return result


@pytest.mark.parametrize("case", STEPS)
def test_blocks_stand_for_the_same_numbers_as_before(case):
    source, steps = values(), STEPS[case]
    state, plan = state_of(source), plan_of(steps, source)
    found = optimizer_state(plan, state)
    for place in range(2):
        before = {name: numbers(state["state"][number])[place] for number, name in enumerate(source)}
        after = {name: numbers(found["state"][number])[place] for number, name in enumerate(key for each in found.moved.groups for key in each.names)}
        expected = moved(steps, before)
        assert all(torch.equal(value, after[name]) for name, value in expected.items())
    assert all(slots["step"] == 7 for slots in found["state"].values())


CUT = {
    "inside of a block": step(["q"], ["x", "y"], {"split": {"dim": 0, "sizes": [31, 33]}}),
    "along the columns": step(["q"], ["x", "y"], {"split": {"dim": 1, "sizes": [64, 64]}}),
    "transposed": step(["q"], ["x"], "transpose"),
    "reversed": step(["q"], ["x"], {"index": {"dim": 0, "order": "reverse"}}),
    "padded": step(["q"], ["x"], {"pad": {"after": 2}}),
    "sliced": step(["q"], ["x"], {"slice": {"start": 1}}),
}


@pytest.mark.parametrize("case", CUT)
def test_what_cuts_blocks_is_refused(case):
    source = values()
    plan = plan_of([CUT[case]], source)
    with pytest.raises(RuleError, match=r"blocks of 256 elements, which would be others|begins with in new elements isn't known"):
        optimizer_state(plan, state_of(source))


def test_slices_of_whole_blocks_are_followed():
    source = values()
    steps = [step(["q"], ["x"], {"slice": {"start": 2, "stop": 12}}), step(["k"], ["y"], {"slice": {"stop": -2}})]
    state = state_of(source)
    found = optimizer_state(plan_of(steps, source), state)
    for new, old, rows in ((0, 0, slice(2, 12)), (1, 1, slice(0, 62))):
        assert all(torch.equal(one, other[rows]) for one, other in zip(numbers(found["state"][new]), numbers(state["state"][old]), strict=True))


def test_a_norm_of_the_whole_parameter_is_followed_by_names_alone():
    source = values()
    state = state_of(source)
    for slots in state["state"].values():
        slots[INNER]["unorm_vec"] = torch.ones(1)
    assert len(optimizer_state(plan_of(STEPS["names"], source), state)["state"]) == 4
    with pytest.raises(RuleError, match="its update goes by the size of the whole parameter"):
        optimizer_state(plan_of(STEPS["joined"], source), state)


@pytest.mark.skipif(not HAS_BITSANDBYTES, reason="bitsandbytes is not installed")
@pytest.mark.parametrize("name", ["AdamW8bit", "Adam8bit", "Lion8bit", "AdamW", "RMSprop8bit", "SGD8bit"])
@pytest.mark.parametrize("case", STEPS)
def test_bitsandbytes_resumes_bit_for_bit(name, case):
    import bitsandbytes

    def make(parameters):
        kwargs = {"momentum": 0.9} if name == "SGD8bit" else {}
        return getattr(bitsandbytes.optim, name)(parameters, lr=0.01, **kwargs)

    source, steps = values(), STEPS[case]
    net, optimizer = trained(source, make, 10)
    weights, state = saved(net, optimizer)
    made = moved(steps, weights)
    order = list(reversed(made))
    new = Net({key: made[key] for key in order}, inverse(steps, source))
    new_optimizer = make(new.parameters())
    new_optimizer.load_state_dict(optimizer_state(plan_of(steps, weights, order), state, new, new_optimizer))
    train(net, optimizer, range(10, 30))
    train(new, new_optimizer, range(10, 30))
    expected = moved(steps, dict(net.state_dict()))
    assert all(torch.equal(expected[key], value) for key, value in new.state_dict().items())
