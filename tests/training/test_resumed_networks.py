"""Training checkpoints of several networks: each optimizer follows its own, or the file is refused."""

import pytest
import torch

import ckpt_tool
from tests.running import ckpt

WORDS = ("-e", "a.* -> z.*", "-e", "b.* -> y.*", "--whole", "--force", "-o", "new.pt")


class Net(torch.nn.Module):
    def __init__(self, names, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        for name in names:
            self.add_module(name, torch.nn.Linear(4, 4))

    def optimizer(self):
        made = torch.optim.Adam(self.parameters(), 0.01)
        for parameter in self.parameters():
            parameter.grad = torch.randn_like(parameter)
        made.step()
        return made.state_dict()


NEW = Net("yz").state_dict()


def of(names, seed):
    net = Net(names, seed)
    return net.state_dict(), net.optimizer()


def mapped(tmp_path, run, *more, part=""):
    torch.save(run, tmp_path / "run.pt")
    torch.save(NEW, tmp_path / "init.pt")
    return ckpt("map", f"run.pt{part}", "init.pt", *WORDS, *more, cwd=tmp_path)


def at(tmp_path, path):
    value = torch.load(tmp_path / "new.pt")
    for name in path.split("."):
        value = value[name]
    return value


def numbers(optimizer):
    return [slots["exp_avg"] for slots in optimizer["state"].values()]


def assert_moved(found, was):
    assert all(torch.equal(one, other) for one, other in zip(numbers(found), [numbers(was)[n] for n in (2, 3, 0, 1)], strict=True))


def assert_kept(found, was):
    assert all(torch.equal(one, other) for one, other in zip(numbers(found), numbers(was), strict=True))


@pytest.mark.parametrize("others", ["ab", "kl", "ak"])  # the same keys, none, and one of them
@pytest.mark.parametrize(
    ("own", "own_optimizer", "other", "other_optimizer"),
    [("model", "optimizer", "D", "optimizer_D"), ("netG", "optimG", "netD", "optimD"), ("q1", "q1_opt", "q2", "q2_opt"), ("generator", "opt_g", "discriminator", "opt_d")],
)
def test_an_optimizer_stays_with_the_network_of_its_name(tmp_path, others, own, own_optimizer, other, other_optimizer):
    (one, one_state), (two, two_state) = of("ab", 1), of(others, 2)
    ran = mapped(tmp_path, {other_optimizer: two_state, own: one, other: two, own_optimizer: one_state}, part=f"#{own}")
    assert ran.status == 0, ran.err
    assert f"`{other_optimizer}` is that of `{other}`, and is copied unchanged" in ran.out
    assert_moved(at(tmp_path, own_optimizer), one_state)
    assert_kept(at(tmp_path, other_optimizer), two_state)
    if others == "ab":
        ran = mapped(tmp_path, {own: one, other: two, own_optimizer: one_state, other_optimizer: two_state}, "--also", f"#{other}", part=f"#{own}")
        assert ran.status == 0, ran.err
        assert_moved(at(tmp_path, other_optimizer), two_state)


@pytest.mark.parametrize("others", ["ab", "ak"])
def test_an_optimizer_without_the_name_of_a_network_is_refused(tmp_path, others):
    (one, state), (two, _) = of("ab", 1), of(others, 2)
    run = {"student": one, "teacher": two, "optimizer": state}
    ran = mapped(tmp_path, run, part="#student")
    assert (ran.status, "run.pt#optimizer: may be the optimizer of the weights, and that of `teacher`" in ran.err) == (2, True), ran.err
    assert ("--also '#teacher'" in ran.err, "--fresh-optimizer '**'" in ran.err) == (others == "ab", True)
    ran = mapped(tmp_path, run, "--fresh-optimizer", "**", part="#student")
    assert (ran.status, list(torch.load(tmp_path / "new.pt"))) == (0, ["student", "teacher"]), ran.err
    if others == "ab":
        assert mapped(tmp_path, run, "--also", "#teacher", part="#student").status == 0
        assert_moved(at(tmp_path, "optimizer"), state)


def test_networks_in_dicts_of_their_own(tmp_path):
    (one, one_state), (two, two_state) = of("ab", 1), of("ab", 2)
    run = {"G": {"model": one, "optimizer": one_state}, "D": {"model": two, "optimizer": two_state}, "epoch": 1}
    ran = mapped(tmp_path, run, part="#G.model")
    assert ran.status == 0, ran.err
    assert "copied unchanged: D.model" in ran.out
    assert_moved(at(tmp_path, "G.optimizer"), one_state)
    assert_kept(at(tmp_path, "D.optimizer"), two_state)
    ran = mapped(tmp_path, {"state": {"model": one, "optimizer": one_state}, "epoch": 1})
    assert ran.status == 0, ran.err
    assert_moved(at(tmp_path, "state.optimizer"), one_state)
    masters = {"state": {"model": one, "optimizer": one_state, "fp32_from_fp16": [[value.clone() for value in one.values()]]}}
    ran = mapped(tmp_path, masters)
    assert (ran.status, "has copies of the parameters beside the state" in ran.err) == (2, True), ran.err
    ran = mapped(tmp_path, masters, "--fresh-optimizer", "**")
    assert ran.status == 0, ran.err
    assert list(at(tmp_path, "state.model")) == list(NEW)
    assert "optimizer" not in at(tmp_path, "state")


@pytest.mark.parametrize("kind", ["swa_utils", "polyak", "shadow_params"])
def test_averages_are_no_other_network(tmp_path, kind):
    net = Net("ab", 1)
    state = net.optimizer()
    averages = torch.optim.swa_utils.AveragedModel(net).state_dict()
    if kind == "shadow_params":
        averages = {"decay": 0.9, "shadow_params": [value.detach().clone() for value in net.parameters()]}
    name = {"shadow_params": "average", "swa_utils": "ema"}.get(kind, kind)
    ran = mapped(tmp_path, {"model": net.state_dict(), name: averages, "optimizer": state})
    if kind == "shadow_params":  # they are the parameters by number, which the plan changes
        assert (ran.status, "run.pt#average.shadow_params: has averaged weights by number" in ran.err) == (2, True)
        return
    assert ran.status == 0, ran.err
    assert_moved(at(tmp_path, "optimizer"), state)


@pytest.mark.parametrize(("order", "alike"), [("model", 4), ("names", 0), ("shapes", 0)])
def test_an_order_that_equal_shapes_leave_open_is_told(tmp_path, order, alike):
    net = Net("ab")
    if order == "shapes":
        net.a = torch.nn.Linear(4, 3)
        net.b = torch.nn.Linear(4, 2)
    made = torch.optim.Adam(net.named_parameters() if order == "names" else net.parameters(), 0.01)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    made.step()
    torch.save({"model": net.state_dict(), "optimizer": made.state_dict()}, tmp_path / "run.pt")
    note = f"the optimizer's state names no parameters, and they were taken in the order of the model's; {alike} have equal shapes, for which another order would not be noticed"
    new = torch.nn.ModuleDict({"z": net.get_submodule("b"), "y": net.get_submodule("a")})
    torch.save(new.state_dict(), tmp_path / "init.pt")
    rules = ("-e", "a.* -> y.*", "-e", "b.* -> z.*")
    ran = ckpt("map", "run.pt", "init.pt", *rules, "--whole", "-o", "new.pt", cwd=tmp_path)
    assert (ran.status, f"note: `optimizer`: {note}" in ran.out) == (0, alike > 0), ran.err
    report = ckpt_tool.load_into(new, tmp_path / "run.pt", rules=[rules[1], rules[3]])
    state = report.optimizer_state(tmp_path / "run.pt", new, torch.optim.Adam(new.parameters()))
    assert (state.notes[:1] == (note,)) == (alike > 0)
    assert "names no parameters" in str(state) or not alike


def test_numbers_that_stay_are_said_to_be_those_of_the_source(tmp_path):
    state_dict, state = of("ab", 1)
    torch.save({"model": state_dict, "optimizer": state}, tmp_path / "run.pt")
    ran = ckpt("map", "run.pt", "-e", "a.* -> z.*", "-e", "b.* -> y.*", "-o", "new.pt", cwd=tmp_path)
    assert ran.status == 0, ran.err
    assert "`optimizer` is copied unchanged: its numbers are those of the source's order of parameters" in ran.out
    assert_kept(at(tmp_path, "optimizer"), state)
