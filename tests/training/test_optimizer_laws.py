"""Laws of single optimizers and ops, with torch as the oracle; and what has no law is refused, with the reason."""

import copy
from collections import OrderedDict
from functools import partial
from importlib import import_module

import pytest
import torch
from resuming import OPTIMIZERS, Net, inverse, moved, plan_of, saved, step, train, trained
from torch import nn
from transformers.optimization import Adafactor as TransformersAdafactor

import ckpt_tool
from ckpt_tool import InputError, RuleError
from ckpt_tool.training.optimizers.state import OptimizerState, optimizer_state

WHOLE = {
    "Adafactor": lambda p: torch.optim.Adafactor(p, 0.01),
    "transformers": lambda p: TransformersAdafactor(p, relative_step=False, lr=0.01),
    "transformers, beta1": lambda p: TransformersAdafactor(p, lr=None, beta1=0.9),
}
if hasattr(torch.optim, "Muon"):  # from torch 2.9 on
    WHOLE["Muon"] = lambda p: torch.optim.Muon(p, 0.01)
    WHOLE["Muon as AdamW"] = lambda p: torch.optim.Muon(p, 0.01, adjust_lr_fn="match_rms_adamw")
ORDERS = {
    "names": [step(["a"], ["x"]), step(["b"], ["y"])],
    "transposed": [step(["a"], ["x"], "transpose"), step(["b"], ["y"])],
    "permuted": [step(["a"], ["x"], {"rearrange": "a b -> b a"}), step(["b"], ["y"])],
    "rows": [step(["a"], ["x"], {"index": {"dim": 0, "order": [5, 4, 3, 0, 1, 2]}}), step(["b"], ["y"], {"index": {"dim": -1, "order": "reverse"}})],
    "signs": [step(["a"], ["x"], {"unary": "neg"}), step(["b"], ["y"], {"affine": {"scale": -1.0}})],
}


def values(**shapes):
    generator = torch.Generator().manual_seed(5)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def difference(source, steps, make, order=()):
    """How far a resumed run is from the uninterrupted one after 10 + 20 steps."""
    net, optimizer = trained(source, make, 10)
    weights, state = saved(net, optimizer)
    made = moved(steps, weights)
    names = list(order or reversed(made))
    plan = plan_of(steps, weights, names)
    new = Net({key: made[key] for key in names}, inverse(steps, source))
    new_optimizer = make(new.parameters())
    new_optimizer.load_state_dict(optimizer_state(plan, state, new, new_optimizer))
    train(net, optimizer, range(10, 30))
    train(new, new_optimizer, range(10, 30))
    expected = moved(steps, dict(net.state_dict()))
    return max(float((expected[key] - value).abs().max()) for key, value in new.state_dict().items())


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", WHOLE)
def test_optimizers_of_whole_parameters_follow_their_order(name, order):
    if name == "Muon" and order in ("transposed", "permuted"):
        return  # its rate is another then: refused below
    exact = 0.0 if order in ("names", "signs") else 5e-7  # norms and means are added up in another order
    assert difference(values(a=(6, 10), b=(8, 8)), ORDERS[order], WHOLE[name]) <= exact


@pytest.mark.parametrize("name", ["Adafactor", "transformers"])
def test_means_over_the_last_two_of_three_dimensions_follow(name):
    steps = [step(["c"], ["x"], {"rearrange": "e a b -> e b a"}, {"index": {"dim": 0, "order": [2, 0, 1]}}), step(["d"], ["y"])]
    assert difference(values(c=(3, 4, 5), d=(7,)), steps, WHOLE[name]) <= 5e-7


REFUSED = {
    ("Muon", "transpose"): ("transpose", "`transpose`: Muon's rate goes by rows per column, here 6×10"),
    ("Muon", "split"): ({"split": {"dim": 0, "sizes": [2, 4]}}, "`split`: Muon makes the update of a whole matrix orthogonal"),
    ("Muon as AdamW", "reshape"): ({"reshape": [10, 6]}, "`reshape`: Muon makes the update of a whole matrix orthogonal"),
    ("Adafactor", "split"): ({"split": {"dim": 1, "sizes": [2, 8]}}, "`split`: Adafactor scales the update by the RMS of the whole parameter"),
    ("transformers", "slice"): ({"slice": {"stop": 3}}, "`slice`: Adafactor scales the update by the RMS of the whole parameter"),
    ("AdamW", "sum"): ({"sum": 0}, "`sum` of `exp_avg`: it mixes elements, and their gradients can't be separated"),
    ("AdamW", "scale"): ({"affine": {"scale": 2.0}}, "`affine` of `exp_avg`: a scale changes the gradient, and steps of another size would follow"),
    ("AdamW", "shift"): ({"affine": {"shift": 1.0}}, "`affine` of `exp_avg`: a shift changes what weight decay does"),
    ("ASGD", "shift"): ({"affine": {"shift": 1.0}}, "`affine` of `ax`: a shift changes what weight decay does"),
    ("SGD", "exp"): ({"unary": "exp"}, "`unary` of `momentum_buffer`: it changes the gradient"),
    ("Adam", "pad"): ({"pad": {"after": 2}}, "`pad` of `exp_avg`: new elements can't join the state: Adam counts the steps of all together"),
    ("SGD-dampening", "pad"): ({"pad": {"after": 2}}, "`pad` of `momentum_buffer`: new elements can't join the state while `dampening` is not 0"),
    ("AdamW", "repeat"): ({"repeat": {"times": 2}}, "`repeat` of `exp_avg`: an element that occurs several times has a gradient for each"),
    ("AdamW", "index"): ({"index": {"dim": 0, "order": [0, 0, 1]}}, "`index` of `exp_avg`: an element that occurs twice has two gradients, and one state"),
}


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, case in REFUSED if name in {**OPTIMIZERS, **WHOLE}])
def test_ops_without_a_law_are_refused_with_the_reason(name, case):
    op, reason = REFUSED[name, case]
    source = values(a=(6, 10), b=(4, 4))
    net, optimizer = trained(source, {**OPTIMIZERS, **WHOLE}[name], 3)
    weights, state = saved(net, optimizer)
    outputs = ["x0", "x1"] if case == "split" else ["x"]
    plan = plan_of([step(["a"], outputs, op), step(["b"], ["y"])], weights)
    with pytest.raises(RuleError) as refused:
        optimizer_state(plan, state)
    (problem,) = refused.value.problems
    pattern = "x{0..1}" if case == "split" else "x"
    count = " (2 parameters)" if case == "split" else ""
    assert problem.code == "optimizer-state"
    assert problem.message == f"the optimizer's state can't follow to `{pattern}`{count}: {reason}"
    assert problem.notes == (f"--fresh-optimizer '{pattern}' (fresh=['{pattern}']) begins without a state there",)
    fresh = optimizer_state(plan, state, fresh=[pattern])
    assert fresh.moved.moved == ("y",)
    assert fresh.moved.fresh == tuple(outputs)
    assert fresh.moved.lost == ("a",)


@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adadelta"])
@pytest.mark.parametrize("is_fit", [False, True])
def test_new_rows_join_as_parameters_of_their_own_where_no_step_counts(name, is_fit):
    source = values(a=(4, 8))
    net, optimizer = trained(source, OPTIMIZERS[name], 10)
    weights, state = saved(net, optimizer)
    new_rows = values(r=(3, 8))["r"]
    target = torch.cat([weights["a"], new_rows])
    plan = plan_of([step(["a"], ["x"], {"pad": {"after": 3}})], weights)
    if is_fit:
        from dataclasses import replace

        from ckpt_tool.ops import TensorForm
        from ckpt_tool.ops.fits.layers import Rows
        from ckpt_tool.tensors import DType

        plan = replace(plan, steps=(replace(plan.steps[0], ops=(Rows(TensorForm(DType.F32, (7, 8))),)),))
    together = Net({"x": target}, lambda given: {"a": given["x"][:4], "r": given["x"][4:]})
    apart = Net({"a": weights["a"], "r": new_rows}, dict)
    one, old, new = OPTIMIZERS[name](together.parameters()), OPTIMIZERS[name]([apart.a]), OPTIMIZERS[name]([apart.r])
    one.load_state_dict(optimizer_state(plan, state, together, one))
    old.load_state_dict(state)
    train(together, one, range(10, 30))
    for number in range(10, 30):
        apart.zero_grad()
        apart.loss(number).backward()
        old.step()
        new.step()
    assert torch.equal(together.x, torch.cat([apart.a, apart.r]))


def test_adagrad_begins_in_new_elements_with_its_initial_value():
    def make(p):
        return torch.optim.Adagrad(p, 0.1, initial_accumulator_value=0.25)

    net, optimizer = trained(values(a=(2, 3)), make, 2)
    weights, state = saved(net, optimizer)
    found = optimizer_state(plan_of([step(["a"], ["x"], {"pad": {"before": 1}})], weights), state)
    assert found["state"][0]["sum"][0].tolist() == [0.25] * 3
    assert torch.equal(found["state"][0]["sum"][1:], state["state"][0]["sum"])


def test_rows_that_are_left_out_take_their_state_along():
    net, optimizer = trained(values(a=(6, 3)), OPTIMIZERS["AdamW"], 4)
    weights, state = saved(net, optimizer)
    found = optimizer_state(plan_of([step(["a"], ["x"], {"slice": {"start": 1, "stop": 4}})], weights), state)
    assert torch.equal(found["state"][0]["exp_avg"], state["state"][0]["exp_avg"][1:4])
    assert found["state"][0]["exp_avg"].untyped_storage().nbytes() == 9 * 4


def test_a_shift_is_followed_where_nothing_decays():
    def make(p):
        return torch.optim.Adam(p, 0.01)

    steps = [step(["a"], ["x"], {"affine": {"shift": 1.0}}), step(["b"], ["y"])]
    assert difference(values(a=(4, 4), b=(3,)), steps, make) <= 1e-6


def test_parts_of_one_need_one_step_and_the_same_slots():
    source = values(a=(2, 3), b=(2, 3), c=(1,))
    steps = [step(["a", "b"], ["x"], {"concat": 0}), step(["c"], ["y"])]
    net, optimizer = trained(source, OPTIMIZERS["AdamW"], 3)
    weights, state = saved(net, optimizer)
    plan = plan_of(steps, weights)
    state["state"][1]["step"] += 1
    with pytest.raises(RuleError, match=r"`0\.step` would be made of several that differ: 3, 4"):
        optimizer_state(plan, state)
    del state["state"][1]
    with pytest.raises(RuleError, match=r"can't follow to `x`: `a` has a state, and `b` has none"):
        optimizer_state(plan, state)
    del state["state"][0]
    assert list(optimizer_state(plan, state)["state"]) == [1]


def test_integer_steps_are_compared_and_copied_too():
    source = values(a=(2, 4), b=(2, 4))
    net, optimizer = trained(source, lambda p: torch.optim.Adam(p, 0.1), 3)
    weights, state = saved(net, optimizer)
    for slots in state["state"].values():
        slots["step"] = 3
    plan = plan_of([step(["a", "b"], ["x"], {"concat": 0})], weights)
    assert optimizer_state(plan, state)["state"][0]["step"] == 3
    state["state"][1]["step"] = 4
    with pytest.raises(RuleError, match="its parts have other values of `step`: 3, 4"):
        optimizer_state(plan, state)


class Tied(nn.Module):
    def __init__(self, is_tied):
        super().__init__()
        self.embed, self.head = nn.Linear(4, 6, bias=False), nn.Linear(4, 6, bias=False)
        if is_tied:
            self.head.weight = self.embed.weight


@pytest.mark.parametrize("from_tied", [True, False])
@pytest.mark.parametrize("to_tied", [True, False])
def test_ties_are_one_parameter_with_one_state(from_tied, to_tied):
    torch.manual_seed(0)
    source, target = Tied(from_tied), Tied(to_tied)
    if not from_tied:
        source.head.load_state_dict(source.embed.state_dict())
    optimizer = torch.optim.AdamW(source.parameters())
    for parameter in source.parameters():
        parameter.grad = torch.randn(6, 4)
    optimizer.step()
    if not from_tied:
        source.head.load_state_dict(source.embed.state_dict())
    report = ckpt_tool.load_into(target, source)
    new = torch.optim.AdamW(target.parameters())
    if from_tied == to_tied:
        found = report.optimizer_state(optimizer, target, new)
        assert len(found["state"]) == (1 if to_tied else 2)
        assert torch.equal(found["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])
        return
    reason = "come from one parameter, whose state is of both" if from_tied else "its keys come from several"
    with pytest.raises(RuleError, match=reason):
        report.optimizer_state(optimizer, target, new)
    assert not report.optimizer_state(optimizer, target, new, fresh=["**"])["state"]


def test_the_state_is_saved_as_a_plain_dict_and_printed_as_a_report(tmp_path):
    net, optimizer = trained(values(a=(2, 3), b=(3,)), OPTIMIZERS["AdamW"], 3)
    weights, state = saved(net, optimizer)
    found = optimizer_state(plan_of([step(["a"], ["x"])], weights), state)
    assert isinstance(found, OptimizerState)
    assert str(found) == "1 state of the optimizer moved, 0 parameters without one, 1 state dropped"
    torch.save(found, tmp_path / "o.pt")
    assert type(torch.load(tmp_path / "o.pt", weights_only=True)) is OrderedDict


def test_copies_of_parameters_beside_the_state_are_refused():
    net, optimizer = trained(values(a=(2, 3)), OPTIMIZERS["AdamW"], 3)
    weights, state = saved(net, optimizer)
    plan = plan_of([step(["a"], ["x"])], weights)
    state["scale"] = torch.tensor([2.0])
    assert optimizer_state(plan, state)["scale"] == 2
    state["fp32_from_fp16"] = [[weights["a"]]]
    with pytest.raises(InputError, match="has tensors beside the state, in `fp32_from_fp16`, which would stay what they are"):
        optimizer_state(plan, state)


def test_a_live_optimizer_keeps_its_own_tensors():
    net, optimizer = trained(values(a=(2, 3)), OPTIMIZERS["AdamW"], 3)
    weights, state = saved(net, optimizer)
    found = optimizer_state(plan_of([step(["a"], ["x"])], weights), optimizer)
    found["state"][0]["exp_avg"].zero_()
    assert torch.equal(optimizer.state_dict()["state"][0]["exp_avg"], state["state"][0]["exp_avg"])


def test_optimizers_of_other_kinds_are_refused():
    net, optimizer = trained(values(a=(2, 3)), OPTIMIZERS["SGD"], 3)
    weights, state = saved(net, optimizer)
    new = Net({"x": weights["a"]}, dict)
    plan = plan_of([step(["a"], ["x"])], weights)
    with pytest.raises(InputError, match="is one of SGD, the optimizer is AdamW"):
        optimizer_state(plan, state, new, torch.optim.AdamW(new.parameters()))
    with pytest.raises(InputError, match="has a parameter \\(2×3\\) that Net has not; make the optimizer after loading"):
        optimizer_state(plan, state, new, torch.optim.SGD(net.parameters(), 0.1))


def test_one_state_for_all_parameters_stays_where_they_do(tmp_path):
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 3))
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)

    def closure():
        optimizer.zero_grad()
        loss = (model(torch.ones(2, 3)) ** 2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    report = ckpt_tool.load_into(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 3)), model)
    found = report.optimizer_state(copy.deepcopy(optimizer.state_dict()))
    assert torch.equal(found["state"][0]["prev_flat_grad"], optimizer.state_dict()["state"][0]["prev_flat_grad"])
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    read = report.optimizer_state(tmp_path / "optimizer.pt")
    assert all(torch.equal(one, other) for one, other in zip(read["state"][0]["old_dirs"], found["state"][0]["old_dirs"], strict=True))
    other = nn.ModuleDict({"b": nn.Linear(4, 3), "a": nn.Linear(3, 4)})
    report = ckpt_tool.load_into(other, model, rules=["{0,1}.* -> {a,b}.*"])
    with pytest.raises(InputError, match="has one state for all parameters, and they don't stay the same in the same order"):
        report.optimizer_state(optimizer.state_dict())


class Lion(torch.optim.Optimizer):
    """As in arXiv 2302.06675, with the names of its authors' code."""

    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 0.001, "betas": (0.9, 0.99), "weight_decay": 0.01})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                average = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_((average * group["betas"][0] + p.grad * (1 - group["betas"][0])).sign_(), alpha=-group["lr"])
                average.mul_(group["betas"][1]).add_(p.grad, alpha=1 - group["betas"][1])


@pytest.mark.parametrize("kind", ["own", "timm", "timm corrected"])
def test_an_optimizer_of_another_class_is_known_by_its_names(timm, kind):
    import_module("timm.optim")
    source = values(a=(4, 6), b=(4, 6))
    steps = [step(["a", "b"], ["x"], {"concat": 1}, "transpose", {"unary": "neg"})]
    settings = {"lr": 1e-2, "weight_decay": 0.1, "corrected_weight_decay": kind != "timm"}
    made_of = Lion if kind == "own" else partial(timm.optim.Lion, **settings)
    net, optimizer = trained(source, made_of, 10)
    weights, state = saved(net, optimizer)
    plan, made = plan_of(steps, weights), moved(steps, weights)
    new = Net(made, inverse(steps, source))
    new_optimizer = made_of(new.parameters())
    new_optimizer.load_state_dict(optimizer_state(plan, state, new, new_optimizer))
    train(net, optimizer, range(10, 30))
    train(new, new_optimizer, range(10, 30))
    assert torch.equal(new.x, moved(steps, dict(net.state_dict()))["x"])
    other = type("Tiger", (Lion,), {"step": lambda self: None})(new.parameters())
    with pytest.raises(RuleError, match="the optimizer is not known: Tiger is not a known optimizer"):
        optimizer_state(plan, state, new, other)


def test_lion_that_looks_at_a_whole_parameter_is_unknown(timm):
    import_module("timm.optim")
    net, optimizer = trained(values(a=(4, 6), b=(4, 6)), partial(timm.optim.Lion, lr=1e-2, caution=True), 3)
    weights, state = saved(net, optimizer)
    with pytest.raises(RuleError, match="`caution` is not a hyper-parameter of Lion"):
        optimizer_state(plan_of([step(["a", "b"], ["x"], {"concat": 1})], weights), state)


def test_an_unknown_optimizer_moves_by_names_alone():
    class Lamb(torch.optim.Adam):
        def step(self, closure=None):
            return super().step(closure)

    net, optimizer = trained(values(a=(2, 3)), Lamb, 3)
    weights, state = saved(net, optimizer)
    by_name, by_op = plan_of([step(["a"], ["x"])], weights), plan_of([step(["a"], ["x"], "transpose")], weights)
    assert len(optimizer_state(by_name, optimizer)["state"]) == 1
    with pytest.raises(RuleError, match="the optimizer is not known: Lamb is not a known optimizer"):
        optimizer_state(by_op, optimizer)
    state["param_groups"][0]["trust_clip"] = True
    with pytest.raises(RuleError, match="the optimizer is not known: `trust_clip` is not a hyper-parameter of Adam"):
        optimizer_state(by_op, state)
