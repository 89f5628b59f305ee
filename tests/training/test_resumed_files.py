"""A run that stops, is mapped as a file and goes on, against the run that was not interrupted: bit-equal, for every optimizer."""

import copy
import zipfile

import pytest
import torch
from resuming import OPTIMIZERS, Net, inverse, moved, step, train, trained

import ckpt_tool
from ckpt_tool.errors import InputError, RuleError
from tests.running import ckpt

SHAPES = {"embed": (6, 8), "q": (8, 8), "k": (8, 8), "v": (8, 8), "norm": (8,), "out": (8, 16), "head": (8, 8), "conv": (4, 3, 2, 2)}
STEPS = [
    step(["q", "k", "v"], ["qkv"], {"concat": 0}),
    step(["embed"], ["stem"]),
    step(["out"], ["gate", "up"], {"split": {"dim": 1, "sizes": [10, 6]}}, "transpose"),
    step(["head"], ["classifier"], {"index": {"dim": 0, "order": [3, 1, 2, 0, 7, 6, 5, 4]}}),
    step(["norm"], ["ln"]),
    step(["conv"], ["kernel"], {"rearrange": "o i h w -> o (h w i)"}),
]
RULES = [
    "{q,k,v} -> qkv: {concat: 0}", "embed -> stem", "out -> {gate,up}: [{split: {dim: 1, sizes: [10, 6]}}, transpose]",
    "head -> classifier: {index: {dim: 0, order: [3, 1, 2, 0, 7, 6, 5, 4]}}", "norm -> ln", "conv -> kernel: {rearrange: 'o i h w -> o (h w i)'}",
]
ORDER = ["ln", "classifier", "up", "gate", "kernel", "stem", "qkv"]


def values():
    generator = torch.Generator().manual_seed(3)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def saved_run(path, net, optimizer, **options):
    run = {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "step": 10, "rng": torch.get_rng_state()}
    torch.save(run, path, **options)
    return run


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_mapped_file_resumes_bit_equal(tmp_path, name):
    source, make = values(), OPTIMIZERS[name]
    net, optimizer = trained(source, make, 10)
    run = saved_run(tmp_path / "run.pt", net, optimizer, pickle_protocol=4 if name == "Adam" else 2)
    made = moved(STEPS, source)
    new = Net({key: torch.zeros_like(made[key]) for key in ORDER}, inverse(STEPS, source))
    torch.save(new.state_dict(), tmp_path / "init.pt")
    report = ckpt_tool.map(tmp_path / "run.pt", tmp_path / "init.pt", tmp_path / "new.pt", rules=RULES, whole=True)
    assert report.left == ()
    found = torch.load(tmp_path / "new.pt", weights_only=name != "Adam")
    assert (found["step"], torch.equal(found["rng"], run["rng"])) == (10, True)
    new.load_state_dict(found["model"])
    new_optimizer = make(new.parameters())
    new_optimizer.load_state_dict(found["optimizer"])
    train(net, optimizer, range(10, 30))
    train(new, new_optimizer, range(10, 30))
    expected = moved(STEPS, dict(net.state_dict()))
    assert {key: torch.equal(expected[key], value) for key, value in new.state_dict().items()} == dict.fromkeys(expected, True)
    steps = [state["step"].data_ptr() for state in found["optimizer"]["state"].values() if torch.is_tensor(state.get("step"))]
    assert len(set(steps)) == len(steps)  # each parameter counts for itself
    with zipfile.ZipFile(tmp_path / "new.pt") as archive:
        assert archive.testzip() is None


def test_there_and_back_is_the_same_optimizer(tmp_path):
    net, optimizer = trained(values(), OPTIMIZERS["AdamW"], 10)
    run = saved_run(tmp_path / "run.pt", net, optimizer)
    rules = ["{q,k,v} -> qkv: {concat: 0}", "** -> **"]
    back = ["qkv -> {q,k,v}: {split: {dim: 0, sizes: [8, 8, 8]}}", "** -> **"]
    ckpt_tool.map(tmp_path / "run.pt", None, tmp_path / "there.pt", rules=rules)
    ckpt_tool.map(tmp_path / "there.pt", tmp_path / "run.pt", tmp_path / "back.pt", rules=back)
    found = torch.load(tmp_path / "back.pt")
    assert list(found["model"]) == list(run["model"])
    assert found["optimizer"]["param_groups"] == run["optimizer"]["param_groups"]
    for number, slots in run["optimizer"]["state"].items():
        assert list(found["optimizer"]["state"][number]) == list(slots)
        for slot, value in slots.items():
            assert torch.equal(found["optimizer"]["state"][number][slot], value)


def test_numbers_that_only_the_new_model_tells_are_not_guessed(tmp_path):
    """q.weight, q.bias, k.weight, … or all weights first: with equal shapes nobody would notice."""
    net = torch.nn.Sequential(torch.nn.Linear(4, 12))
    optimizer = torch.optim.AdamW(net.parameters(), 0.01)
    net(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    torch.save({"model": net.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "run.pt")
    rules = tmp_path / "rules.yaml"
    rules.write_text('rules:\n  - "0.* -> {q,k,v}.*": {split: 0}\n')
    with pytest.raises(InputError, match=r"`0\.weight` becomes 3 parameters, and without a target their numbers .* are not known") as caught:
        ckpt_tool.map(tmp_path / "run.pt", None, tmp_path / "new.pt", rules=rules)
    assert "give the new model as target" in caught.value.hint
    target = {f"{name}.{kind}": torch.zeros(*shape) for name in "qkv" for kind, shape in (("weight", (4, 4)), ("bias", (4,)))}
    torch.save(target, tmp_path / "target.pt")
    ckpt_tool.map(tmp_path / "run.pt", tmp_path / "target.pt", tmp_path / "new.pt", rules=rules, whole=True)
    found = torch.load(tmp_path / "new.pt")["optimizer"]["state"]
    assert [tuple(found[number]["exp_avg"].shape) for number in range(6)] == [(4, 4), (4,)] * 3


def test_names_in_groups_are_the_new_ones(tmp_path):
    net = Net(values(), dict)
    named = dict(net.named_parameters())
    groups = [{"params": [(key, named[key]) for key in ("norm", "embed")], "weight_decay": 0.0}, {"params": [(key, named[key]) for key in ("out", "q", "k", "v", "head", "conv")]}]
    optimizer = torch.optim.AdamW(groups, 0.01)
    train(net, optimizer, range(3))
    saved_run(tmp_path / "run.pt", net, optimizer)
    torch.save(net.state_dict(), tmp_path / "bare.pt")
    ckpt_tool.map(tmp_path / "run.pt", None, tmp_path / "new.pt", rules=["** -> net.**"])
    found = torch.load(tmp_path / "new.pt")["optimizer"]
    assert [group["param_names"] for group in found["param_groups"]] == [["net.norm", "net.embed"], ["net.out", "net.q", "net.k", "net.v", "net.head", "net.conv"]]
    was = copy.deepcopy(optimizer.state_dict())
    assert all(torch.equal(found["state"][number]["exp_avg"], was["state"][number]["exp_avg"]) for number in range(8))
    assert {key: value for key, value in found["param_groups"][0].items() if key[:5] != "param"} == {key: value for key, value in was["param_groups"][0].items() if key[:5] != "param"}


def test_what_has_no_exact_way_is_refused_or_begins_fresh(tmp_path):
    net, optimizer = trained(values(), OPTIMIZERS["AdamW"], 3)
    saved_run(tmp_path / "run.pt", net, optimizer)
    words = ("map", "run.pt", "-e", "head -> head: {affine: {scale: 2}}", "-e", "** -> **", "-o", "new.pt")
    ran = ckpt(*words, cwd=tmp_path)
    assert (ran.status, "the optimizer's state can't follow to `head`" in ran.err) == (1, True), ran.err
    assert ran.err.splitlines()[-1] == "next: ckpt map run.pt -e 'head -> head: {affine: {scale: 2}}' -e '** -> **' -o new.pt --fresh-optimizer head"
    assert not (tmp_path / "new.pt").exists()
    ran = ckpt(*words, "--fresh-optimizer", "head", cwd=tmp_path)
    assert ran.status == 0, ran.err
    found = torch.load(tmp_path / "new.pt")["optimizer"]
    assert sorted(found["state"]) == [0, 1, 2, 3, 4, 5, 7]
    ran = ckpt(*words, "--fresh-optimizer", "head", "--fresh-optimizer", "nothing.*", "--force", cwd=tmp_path)
    assert (ran.status, "`nothing.*` matches no parameter of an optimizer" in ran.err) == (1, True), ran.err
    with pytest.raises(RuleError, match="can't follow") as caught:
        ckpt_tool.map(tmp_path / "run.pt", None, tmp_path / "no.pt", rules=["head -> head: {affine: {scale: 2}}", "** -> **"])
    assert caught.value.next == {"fresh_optimizer": ["head"]}


def test_numbers_that_may_be_either_parameter_are_refused(tmp_path):
    weights = {"a": torch.zeros(2, 2), "b": torch.zeros(2, 2), "c": torch.zeros(2, 2)}
    state = {"state": {0: {"momentum_buffer": torch.ones(2, 2)}, 1: {"momentum_buffer": torch.ones(2, 2)}}, "param_groups": [{"lr": 0.1, "momentum": 0.9, "params": [0, 1]}]}
    torch.save({"model": dict(reversed(weights.items())), "optimizer": state}, tmp_path / "run.pt")
    ran = ckpt("map", "run.pt", "-e", "a -> x", "--drop", "{b,c}", "-o", "new.pt", cwd=tmp_path)
    assert (ran.status, "run.pt#optimizer: which parameter has which number is not certain" in ran.err) == (2, True), ran.err
    with pytest.raises(InputError):
        ckpt_tool.map(tmp_path / "run.pt", None, tmp_path / "no.pt", rules="a -> x", drop=["{b,c}"])
    ran = ckpt("map", "run.pt", "-e", "a -> x", "--drop", "{b,c}", "--fresh-optimizer", "**", "-o", "new.pt", cwd=tmp_path)
    assert (ran.status, list(torch.load(tmp_path / "new.pt"))) == (0, ["model"]), ran.err
    assert "`optimizer` is left out: whose state it holds is not certain" in ran.out
    assert "not copied: optimizer (2 tensors" in ran.out
    assert ckpt("map", "run.pt", "-e", "** -> x.**", "-o", "names.pt", cwd=tmp_path).status == 0
    assert torch.load(tmp_path / "names.pt")["optimizer"]["param_groups"] == state["param_groups"]


def test_an_optimizer_of_another_network_stays_as_it_is(tmp_path):
    generator, critic = torch.nn.Linear(4, 3), torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    optimizers = [torch.optim.Adam(net.parameters()) for net in (generator, critic)]
    critic(generator(torch.randn(5, 4))).sum().backward()
    for each in optimizers:
        each.step()
    run = {"generator": generator.state_dict(), "critic": critic.state_dict(), "opt_g": optimizers[0].state_dict(), "opt_c": optimizers[1].state_dict()}
    torch.save(run, tmp_path / "gan.pt")
    ran = ckpt("map", "gan.pt#generator", "-e", "weight -> fc.weight: transpose", "-e", "bias -> fc.bias", "--whole", "-o", "new.pt", cwd=tmp_path)
    assert ran.status == 0, ran.err
    found = torch.load(tmp_path / "new.pt")
    assert list(found) == list(run)
    assert list(found["generator"]) == ["fc.weight", "fc.bias"]
    assert list(found["critic"]) == list(run["critic"])
    assert torch.equal(found["opt_g"]["state"][0]["exp_avg"], run["opt_g"]["state"][0]["exp_avg"].T)
    for number, slots in run["opt_c"]["state"].items():
        assert all(torch.equal(found["opt_c"]["state"][number][slot], value) for slot, value in slots.items())
    assert "`opt_c` is that of `critic`, and is copied unchanged" in ran.out


@pytest.mark.parametrize("place", ["inside", "beside"])
def test_master_weights_that_would_not_follow_are_refused(tmp_path, place):
    net, optimizer = trained(values(), OPTIMIZERS["AdamW"], 3)
    state, masters = optimizer.state_dict(), [[value.float() for value in net.state_dict().values()]]
    kept = {**state, "fp32_groups": masters} if place == "inside" else {"optimizer": state, "fp32_from_fp16_params": masters, "scale": torch.ones(1)}
    torch.save({"model": net.state_dict(), "optimizer": kept}, tmp_path / "run.pt")
    assert ckpt("map", "run.pt", "-e", "** -> x.**", "-o", "names.pt", cwd=tmp_path).status == 0
    ran = ckpt("map", "run.pt", "-e", "{q,k,v} -> qkv: concat", "-e", "** -> **", "-o", "new.pt", cwd=tmp_path)
    assert (ran.status, "has copies of the parameters beside the state" in ran.err) == (2, True), ran.err
    ran = ckpt("map", "run.pt", "-e", "{q,k,v} -> qkv: concat", "-e", "** -> **", "-o", "new.pt", "--fresh-optimizer", "**", cwd=tmp_path)
    assert (ran.status, list(torch.load(tmp_path / "new.pt"))) == (0, ["model"]), ran.err
