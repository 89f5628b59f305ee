"""Whole training checkpoints: the weights are mapped where they lie, everything beside them stays. torch itself reads what comes out."""

import argparse
import json
import os
import pickle
import shlex
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

import ckpt_tool
from tests.running import ckpt

RULES = ("-e", "0.* -> conv.*", "-e", "1.* -> bn.*", "-e", "3.* -> head.*")
NAMES = {"0": "conv", "1": "bn", "3": "head"}


def new_name(key):
    module, _, rest = key.partition(".")
    return f"{NAMES[module]}.{rest}"


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def trained(seed=0):
    model = net(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model(torch.randn(2, 3, 3, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


def run_of(**more):
    model, optimizer = trained()
    return {
        "epoch": 3, "state_dict": model.state_dict(), "optimizer_states": [optimizer.state_dict()], "rng": torch.get_rng_state(),
        "args": argparse.Namespace(lr=1e-2, data=["a", "b"]), "metric": np.float64(0.5), "loss": float("nan"), **more,
    }


def pickle_of(path):
    with zipfile.ZipFile(path) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl")))


def assert_same(one, other):
    """The same values of the same types at every depth."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert one.dtype is other.dtype
        assert one.stride() == other.stride()
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    elif isinstance(one, float):
        assert one == other or (one != one and other != other)
    else:
        assert one == other


def beside(run):
    return {key: value for key, value in run.items() if key != "state_dict"}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_names_change_and_nothing_else(tmp_path, protocol):
    run = run_of()
    torch.save(run, tmp_path / "run.ckpt", pickle_protocol=protocol)
    ran = ckpt("map", "run.ckpt", *RULES, "-o", "new.ckpt", cwd=tmp_path)
    assert ran.status == 0, ran.err
    assert "copied unchanged: optimizer_states (18 tensors, 1.1 kB), rng" in ran.out
    assert "not copied" not in ran.out
    made = torch.load(tmp_path / "new.ckpt", weights_only=False)
    assert list(made) == list(run)
    assert_same(beside(made), beside(run))
    assert list(made["state_dict"]) == [new_name(key) for key in run["state_dict"]]
    assert_same(list(made["state_dict"].values()), list(run["state_dict"].values()))
    assert type(made["state_dict"]) is OrderedDict
    versions = vars(run["state_dict"])["_metadata"]
    assert vars(made["state_dict"])["_metadata"] == {"": versions[""], "conv": versions["0"], "bn": versions["1"], "head": versions["3"]}
    assert_same(torch.load(tmp_path / "new.ckpt", weights_only=False, mmap=True), made)
    assert ckpt("verify", "new.ckpt", "run.ckpt", *RULES, cwd=tmp_path).status == 0


@pytest.mark.parametrize("protocol", [2, 4])
def test_the_legacy_stream_becomes_an_archive(tmp_path, protocol):
    run = run_of(half=torch.randn(4).half(), views=[torch.arange(10)[3:5]])
    run["tied"] = run["state_dict"]["3.weight"]
    torch.save(run, tmp_path / "run.pth", _use_new_zipfile_serialization=False, pickle_protocol=protocol)
    rules = [*RULES[:4], "-e", "3.weight -> head.{a,b}.weight: split", "-e", "3.bias -> head.bias"]
    ran = ckpt("map", "run.pth", *rules, "-o", "new.pth", cwd=tmp_path)
    assert (ran.status, "give the new model as target" in ran.err) == (2, True)
    ckpt("map", "run.pth", *rules, "-o", "bare.pth", "--only-weights", cwd=tmp_path)  # has the new model's order
    ran = ckpt("map", "run.pth", "bare.pth", *rules, "-o", "new.pth", "--whole", cwd=tmp_path)
    assert ran.status == 0, ran.err
    made = torch.load(tmp_path / "new.pth", weights_only=False, mmap=True)
    assert_same({key: made[key] for key in made if key not in ("state_dict", "optimizer_states")}, {key: run[key] for key in run if key not in ("state_dict", "optimizer_states")})
    assert_same(torch.cat([made["state_dict"]["head.a.weight"], made["state_dict"]["head.b.weight"]]), run["state_dict"]["3.weight"])
    assert_same(made["state_dict"]["bn.running_mean"], run["state_dict"]["1.running_mean"])
    found, was = made["optimizer_states"][0]["state"], run["optimizer_states"][0]["state"]
    assert_same(torch.cat([found[4]["exp_avg"], found[5]["exp_avg"]]), was[4]["exp_avg"])
    assert_same(found[6], was[5])
    ran = ckpt("map", "run.pth", *RULES, "--in-place", cwd=tmp_path)
    assert (ran.status, "can't be renamed in place" in ran.err) == (2, True), ran.err


def test_opcodes_behind_the_weights_are_kept_byte_for_byte(tmp_path):
    run = run_of(more=["x"] * 3)
    torch.save(run, tmp_path / "run.ckpt")
    ckpt("map", "run.ckpt", *RULES, "-o", "new.ckpt", cwd=tmp_path)
    was, now = pickle_of(tmp_path / "run.ckpt"), pickle_of(tmp_path / "new.ckpt")
    start = was.index(b"optimizer_states")
    assert now.endswith(was[start:])
    assert now.startswith(was[: was.index(b"state_dict")])
    with zipfile.ZipFile(tmp_path / "run.ckpt") as one, zipfile.ZipFile(tmp_path / "new.ckpt") as other:
        storages = [name for name in one.namelist() if name.startswith("run/data/")]
        assert storages
        for name in storages:
            assert one.read(name) == other.read(name.replace("run/", "new/", 1))
        assert other.testzip() is None


def test_what_loads_safely_still_does(tmp_path):
    model, optimizer = trained()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state(), "step": 7}, tmp_path / "run.pt")
    assert ckpt("map", "run.pt", "-e", "0.weight, 0.bias -> conv.weight, conv.bias", *RULES[2:], "-o", "a.pt", cwd=tmp_path).status in (0, 1)
    report = ckpt_tool.map(tmp_path / "run.pt", None, tmp_path / "new.pt", rules=["0.* -> conv.*", "1.* -> bn.*", "3.* -> head.*"])
    assert (report.is_whole, str(report).splitlines()[-1]) == (True, f"wrote {tmp_path / 'new.pt'}: 9 tensors, {os.path.getsize(tmp_path / 'new.pt') / 1000:.1f} kB")
    made = torch.load(tmp_path / "new.pt", weights_only=True)
    assert made["step"] == 7
    model.load_state_dict(dict(zip(model.state_dict(), made["model"].values(), strict=True)))
    optimizer.load_state_dict(made["optimizer"])


@pytest.mark.parametrize("protocol", [2, 4])
def test_new_tensors_lie_beside_storages_that_are_kept(tmp_path, protocol):
    run = run_of()
    weight = run["state_dict"]["3.weight"]
    run["first"] = weight  # the same tensor, which the new weights have no more
    run["view"] = run["state_dict"]["0.weight"][1:]
    torch.save(run, tmp_path / "run.ckpt", pickle_protocol=protocol)
    target = OrderedDict((new_name(key), value + 1) for key, value in run["state_dict"].items() if not key.startswith("3."))
    target |= {"head.weight": torch.zeros(4, 2), "fresh.weight": torch.randn(3), "fresh.bias": torch.randn(5)}
    torch.save(target, tmp_path / "init.pth")
    ran = ckpt(
        "map", "run.ckpt", "init.pth", *RULES[:4], "-e", "3.weight -> head.weight: transpose", "--drop", "3.bias", "--keep", "fresh.*", "--whole", "-o", "new.ckpt", cwd=tmp_path,
    )
    assert ran.status == 0, ran.err
    made = torch.load(tmp_path / "new.ckpt", weights_only=False)
    assert list(made["state_dict"]) == list(target)
    torch.testing.assert_close(made["state_dict"]["head.weight"], weight.T, rtol=0, atol=0)
    torch.testing.assert_close(made["state_dict"]["fresh.bias"], target["fresh.bias"], rtol=0, atol=0)
    assert_same(made["first"], weight)
    assert_same(made["rng"], run["rng"])
    assert made["view"].untyped_storage().data_ptr() == made["state_dict"]["conv.weight"].untyped_storage().data_ptr()
    assert "`optimizer_states.0`: 5 states of the optimizer moved, 2 parameters without one, 1 state dropped" in ran.out
    was, now = run["optimizer_states"][0], made["optimizer_states"][0]
    assert [group["params"] for group in now["param_groups"]] == [list(range(7))]
    assert_same({key: value for key, value in now["param_groups"][0].items() if key != "params"}, {key: value for key, value in was["param_groups"][0].items() if key != "params"})
    assert list(now["state"]) == list(range(5))
    torch.testing.assert_close(now["state"][4]["exp_avg"], was["state"][4]["exp_avg"].T, rtol=0, atol=0)
    assert_same([now["state"][number] for number in range(4)], [was["state"][number] for number in range(4)])
    with zipfile.ZipFile(tmp_path / "new.ckpt") as archive:
        assert archive.testzip() is None


def test_the_output_has_the_form_of_the_target(tmp_path):
    run = run_of()
    torch.save(run, tmp_path / "run.ckpt")
    renamed = OrderedDict((new_name(key), value) for key, value in net(1).state_dict().items())
    torch.save(renamed, tmp_path / "bare.pth")
    torch.save({"model": renamed, "epoch": 0}, tmp_path / "init.ckpt")
    torch.save({"model": renamed}, tmp_path / "wrapped.pth")
    torch.save(run, tmp_path / "run.pt")
    cases = {
        ("run.ckpt", *RULES, "-o", "a.ckpt"): True, ("run.ckpt", *RULES, "--only-weights", "-o", "b.pth"): False,
        ("run.ckpt", *RULES, "-o", "other.pth"): False, ("run.ckpt", *RULES, "--whole", "-o", "as_asked.pth"): True,
        ("run.pt", *RULES, "-o", "alike.pth"): True, ("run.ckpt", "wrapped.pth", *RULES, "-o", "only.pth"): False,
        ("run.ckpt", "bare.pth", *RULES, "-o", "c.pth"): False, ("run.ckpt", "bare.pth", *RULES, "--whole", "-o", "d.pth"): True,
        ("run.ckpt", "init.ckpt", *RULES, "-o", "e.pth"): True, ("run.ckpt", "init.ckpt", *RULES, "--only-weights", "-o", "f.pth"): False,
        ("bare.pth", "-e", "** -> x.**", "-o", "g.pth"): False, ("bare.pth", "--whole", "-e", "** -> x.**", "-o", "h.pth"): True,
        ("run.ckpt", *RULES, "-o", "i.safetensors"): False, ("run.ckpt#state_dict", *RULES, "-o", "k.pth"): False, ("bare.pth", "init.ckpt", "-o", "j.pth"): False,
    }
    for words, is_whole in cases.items():
        ran = ckpt("map", *words, "--json", cwd=tmp_path)
        assert ran.status == 0, (words, ran.err)
        report = json.loads(ran.out)
        assert report["output"].get("whole", False) is is_whole, words
        if words[0].startswith("run.ckpt"):
            assert [one["path"] for one in report["left_behind"]] == ([] if is_whole else ["epoch", "optimizer_states", "rng", "args", "metric", "loss"])
        if words[-1].endswith(".pth") and is_whole and words[0] == "run.ckpt":
            assert torch.load(tmp_path / words[-1], weights_only=False)["epoch"] == 3
    assert list(torch.load(tmp_path / "b.pth")) == list(renamed)


class Hostile:
    def __reduce__(self):
        return (os.system, ("touch executed",))


def test_nothing_is_executed_and_no_class_is_imported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("gone_tomorrow")
    exec("class Config:\n    def __init__(self, **given): self.__dict__.update(given)", module.__dict__)
    module.Config.__module__ = "gone_tomorrow"
    monkeypatch.setitem(sys.modules, "gone_tomorrow", module)
    torch.save(run_of(hyper_parameters=module.Config(depth=3, sizes=torch.arange(3)), hostile=Hostile()), "run.ckpt")
    monkeypatch.delitem(sys.modules, "gone_tomorrow")
    ran = ckpt("map", "run.ckpt", *RULES, "-o", "new.ckpt")
    assert (ran.status, os.path.exists("executed"), "gone_tomorrow" in sys.modules) == (0, False, False)
    monkeypatch.setitem(sys.modules, "gone_tomorrow", module)
    made = torch.load("new.ckpt", weights_only=False)
    assert made["hyper_parameters"].depth == 3
    assert made["hyper_parameters"].sizes.tolist() == [0, 1, 2]
    assert os.path.exists("executed")  # by torch, which is what it was asked for


def test_ties_and_one_dict_at_two_places_stay(tmp_path):
    shared = torch.randn(3, 2)
    weights = OrderedDict([("in.weight", shared), ("out.weight", shared), ("rows.weight", shared[1:])])
    torch.save({"model": weights, "best": weights, "other": shared, "epoch": 1}, tmp_path / "run.pth")
    ran = ckpt("map", "run.pth", "-e", "*.weight -> net.*.w", "-o", "new.pth", cwd=tmp_path)
    assert ran.status == 0, ran.err
    made = torch.load(tmp_path / "new.pth")
    assert made["best"] is made["model"]
    assert list(made["model"]) == ["net.in.w", "net.out.w", "net.rows.w"]
    pointers = {value.untyped_storage().data_ptr() for value in (*made["model"].values(), made["other"])}
    assert len(pointers) == 1
    assert "best" not in ran.out
    ran = ckpt("map", "run.pth", "-e", "*.weight -> net.*.w", "--also", "#best", "-o", "no.pth", cwd=tmp_path)
    assert (ran.status, "`#best` is mapped already" in ran.err) == (2, True), ran.err


@pytest.mark.parametrize("protocol", [2, 5])
def test_other_things_in_a_state_dict_stay_in_their_places(tmp_path, protocol):
    run = OrderedDict([("epoch", 3), ("a.weight", torch.ones(2)), ("a._extra_state", {"scale": 2.5}), ("b.weight", torch.zeros(3)), ("note", "x"), ("c", {"w": torch.ones(1), "v": torch.zeros(1)})])
    torch.save(run, tmp_path / "run.pth", pickle_protocol=protocol)
    assert ckpt("map", "run.pth", "-e", "** -> net.**", "-o", "new.pth", cwd=tmp_path).status == 0
    made = torch.load(tmp_path / "new.pth", weights_only=False)
    assert list(made) == ["epoch", "net.a.weight", "a._extra_state", "net.b.weight", "note", "net.c"]
    assert (made["epoch"], made["a._extra_state"], made["note"], list(made["net.c"])) == (3, {"scale": 2.5}, "x", ["w", "v"])
    assert ckpt("map", "run.pth", "-e", "{a,b}.** -> {a,b}.**", "-e", "c.{w,v} -> c.{x,y}", "-o", "inner.pth", cwd=tmp_path).status == 0
    made = torch.load(tmp_path / "inner.pth", weights_only=False)
    assert (list(made), list(made["c"])) == (list(run), ["x", "y"])
    ran = ckpt("map", "run.pth", "-e", "a.weight -> note", "--drop", "b.**", "--drop", "c.**", "-o", "no.pth", cwd=tmp_path)
    assert (ran.status, "has `note` beside its tensors, as one would be named" in ran.err) == (2, True), ran.err
    assert not (tmp_path / "no.pth").exists()


@pytest.mark.parametrize("protocol", [2, 4])
def test_dicts_in_a_state_dict_stay_dicts(tmp_path, protocol):
    values = iter(range(100))

    def block(*names):
        return OrderedDict((name, torch.full((4, 2), float(next(values)))) for name in names)

    model = {"encoder": block("module.q", "module.k", "module.out"), "decoder": {"one": block("a", "b"), "two": block("a")}, "head": block("w"), "size": 3}
    torch.save({"model": model, "epoch": 1}, tmp_path / "run.pth", pickle_protocol=protocol)
    rules = ("-e", "encoder.module.{q,k} -> encoder.qk: concat", "-e", "encoder.module.** -> encoder.**", "-e", "decoder.** -> decoder.**", "-e", "head.** -> classifier.**")
    ran = ckpt("map", "run.pth", *rules, "-o", "new.pth", cwd=tmp_path)
    assert ran.status == 0, ran.err
    made = torch.load(tmp_path / "new.pth", weights_only=False)["model"]
    assert_same(made["encoder"], OrderedDict(qk=torch.cat([model["encoder"]["module.q"], model["encoder"]["module.k"]]), out=model["encoder"]["module.out"]))
    assert_same(made["decoder"], model["decoder"])
    assert_same(made["classifier"], model["head"])
    assert (list(made), made["size"]) == (["encoder", "decoder", "classifier", "size"], 3)
    ran = ckpt("map", "run.pth", "--drop", "decoder.one.**", "-e", "decoder.two.a -> decoder.two.x", "-e", "encoder.module.q -> decoder.two.q", "--drop", "encoder.module.{k,out}", "-e", "head.** -> head.**", "-o", "part.pth", cwd=tmp_path)
    assert ran.status == 0, ran.err
    made = torch.load(tmp_path / "part.pth", weights_only=False)["model"]
    assert (list(made), list(made["decoder"]), list(made["decoder"]["two"])) == (["decoder", "head", "size"], ["two"], ["q", "x"])
    assert_same(made["decoder"]["two"]["q"], model["encoder"]["module.q"])
    ran = ckpt("map", "run.pth", "-e", "encoder.module.{q,k} -> x.{q,k}", "-e", "** -> **", "-o", "no.pth", cwd=tmp_path)
    assert (ran.status, "has its tensors in dicts of their own, and `x.q` would be in none" in ran.err) == (2, True), ran.err


def test_copies_of_the_weights_follow_when_they_are_named(tmp_path):
    model = net()
    averaged = torch.optim.swa_utils.AveragedModel(net(1))
    parameters = {key: value.detach() + 1 for key, value in model.named_parameters()}
    run = {"state_dict": model.state_dict(), "state_dict_ema": {key: value * 2 for key, value in model.state_dict().items()}, "swa": averaged.state_dict(), "shadow": parameters, "other": {"x": torch.ones(1), "y": torch.ones(2)}}
    torch.save(run, tmp_path / "run.ckpt")
    ran = ckpt("map", "run.ckpt", *RULES, "-o", "one.ckpt", cwd=tmp_path)
    assert "`state_dict_ema` has the same keys, and keeps them: --also '#state_dict_ema' maps it, too" in ran.out
    assert "`swa` has the same keys" in ran.out
    assert_same(beside(torch.load(tmp_path / "one.ckpt")), beside(run))
    ran = ckpt("map", "run.ckpt", *RULES, "--also", "#state_dict_ema", "--also", "swa", "--also", "#shadow", "-o", "all.ckpt", cwd=tmp_path)
    assert ran.status == 0, ran.err
    assert "copied unchanged: other (" in ran.out
    made = torch.load(tmp_path / "all.ckpt")
    assert_same(made["state_dict_ema"], {new_name(key): value for key, value in run["state_dict_ema"].items()})
    assert_same(list(made["swa"].items()), [(key if key == "n_averaged" else f"module.{new_name(key[7:])}", value) for key, value in run["swa"].items()])
    assert_same(made["shadow"], {new_name(key): value for key, value in parameters.items()})
    cases = {
        ("--also", "#other"): "`#other` has none of the weights' keys", ("--also", "#state_dict"): "`#state_dict` is mapped already", ("--also", "#swa", "--also", "swa"): "`swa` is mapped already",
        ("--also", "#nothing"): "no state dict in the file is named `nothing`", ("--also", "#swa", "--only-weights"): "is for whole training checkpoints, and this writes the weights alone",
        ("--whole", "--only-weights"): "is given with --only-weights",
    }
    for words, fact in cases.items():
        ran = ckpt("map", "run.ckpt", *RULES, *words, "-o", "no.ckpt", cwd=tmp_path)
        assert (ran.status, fact in ran.err) == (2, True), ran.err


def test_averages_by_position_are_told(tmp_path):
    weights = {"a.w": torch.ones(2, 2), "b.w": torch.ones(3)}
    torch.save({"model": weights, "ema": {"decay": 0.9, "shadow_params": list(weights.values())}, "swa": {"shadow": {key: value * 2 for key, value in weights.items()}}}, tmp_path / "run.pth")
    ran = ckpt("map", "run.pth", "-e", "** -> net.**", "-o", "new.pth", cwd=tmp_path)
    assert ran.status == 0, ran.err
    assert "is averaged weights without the same keys, and stays as it is" in ran.out
    assert "`swa.shadow` has the same keys" in ran.out
    ran = ckpt("map", "run.pth", "-e", "** -> net.**", "--also", "#swa.shadow", "-o", "more.pth", cwd=tmp_path)
    assert list(torch.load(tmp_path / "more.pth")["swa"]["shadow"]) == ["net.a.w", "net.b.w"]


@pytest.mark.parametrize("words", [["-o", "new.pth"], ["--in-place"]])
def test_what_a_copy_has_beside_the_weights_stays(tmp_path, words):
    weights = {"a.w": torch.randn(2, 2), "b.w": torch.randn(3)}
    ema = {"decay": torch.tensor(0.99), **weights, "num_updates": torch.tensor(12)}
    torch.save({"model": weights, "ema": ema}, tmp_path / "new.pth" if words == ["--in-place"] else tmp_path / "run.pth")
    source = "new.pth" if words == ["--in-place"] else "run.pth"
    ran = ckpt("map", source, "-e", "** -> net.**", "--also", "#ema", *words, cwd=tmp_path)
    assert ran.status == 0, ran.err
    assert "`ema` follows the same rules: 2 tensors mapped, 2 other tensors unchanged" in ran.out
    made = torch.load(tmp_path / "new.pth")["ema"]
    assert_same(list(made.items()), [("decay", ema["decay"]), ("net.a.w", ema["a.w"]), ("net.b.w", ema["b.w"]), ("num_updates", ema["num_updates"])])


@pytest.mark.parametrize(("inner", "picked"), [("shadow", "#ema"), ("shadow", "#ema.shadow"), ("values", "#ema.values")])
def test_weights_in_a_dict_of_a_copy_are_mapped_as_the_note_says(tmp_path, inner, picked):
    weights = {"a.w": torch.randn(2, 2), "b.w": torch.randn(3)}
    torch.save({"model": weights, "ema": {"decay": 0.9, inner: dict(weights)}}, tmp_path / "run.pth")
    ran = ckpt("map", "run.pth", "-e", "** -> net.**", "-o", "alone.pth", cwd=tmp_path)
    assert f"`ema.{inner}` has the same keys, and keeps them: --also '#ema.{inner}' maps it, too" in ran.out, ran.out
    ran = ckpt("map", "run.pth", "-e", "** -> net.**", "--also", picked, "-o", "new.pth", cwd=tmp_path)
    assert ran.status == 0, ran.err
    assert f"`ema.{inner}` follows the same rules: 2 tensors mapped" in ran.out
    assert "copied unchanged" not in ran.out
    assert "has the same keys" not in ran.out
    assert list(torch.load(tmp_path / "new.pth")["ema"][inner]) == ["net.a.w", "net.b.w"]


def test_a_dict_of_a_copy_that_has_no_known_name_is_to_be_named(tmp_path):
    weights = {"a.w": torch.randn(2, 2), "b.w": torch.randn(3)}
    torch.save({"model": weights, "ema": {"decay": 0.9, "values": weights}}, tmp_path / "run.pth")
    ran = ckpt("map", "run.pth", "-e", "** -> net.**", "--also", "#ema", "-o", "new.pth", cwd=tmp_path)
    assert (ran.status, "`#ema` has the weights' keys in a dict of their own; name that: '#ema.values'" in ran.err) == (2, True), ran.err


@pytest.mark.parametrize("is_flat", [True, False])
def test_two_copies_in_one_dict_are_not_chosen_from(tmp_path, is_flat):
    weights = {"a.w": torch.ones(2), "b.w": torch.zeros(2)}
    copies = {"online": dict(weights), "target": {key: value + 1 for key, value in weights.items()}}
    flat = {f"{name}.{key}": value for name, copy in copies.items() for key, value in copy.items()}
    torch.save({"model": weights, "ema": flat if is_flat else copies}, tmp_path / "run.pth")
    ran = ckpt("map", "run.pth", "-e", "** -> net.**", "--also", "#ema", "-o", "new.pth", cwd=tmp_path)
    assert ran.status == 2
    assert "`#ema` has the weights' keys several times: behind `online.` and behind `target.`" in ran.err
    assert not (tmp_path / "new.pth").exists()
    if not is_flat:
        assert "name those: --also '#ema.online' --also '#ema.target'" in ran.err
        assert ckpt("map", "run.pth", "-e", "** -> net.**", "--also", "#ema.online", "--also", "#ema.target", "-o", "new.pth", cwd=tmp_path).status == 0
        assert {name: list(each) for name, each in torch.load(tmp_path / "new.pth")["ema"].items()} == {"online": ["net.a.w", "net.b.w"], "target": ["net.a.w", "net.b.w"]}


def test_an_averaged_model_keeps_the_prefix_of_all_its_keys(tmp_path):
    weights = {"module.a.w": torch.randn(2, 2), "module.b.w": torch.randn(3)}
    torch.save({"model": weights, "ema": {"n_averaged": torch.tensor(2), **weights}}, tmp_path / "run.pth")
    ran = ckpt("map", "run.pth", "-e", "module.** -> **", "--also", "#ema", "-o", "new.pth", cwd=tmp_path)
    assert (ran.status, "is an AveragedModel, whose keys begin with `module.`, and `a.w` would not" in ran.err) == (2, True)
    assert not (tmp_path / "new.pth").exists()
    ran = ckpt("map", "run.pth", "-e", "module.** -> **", "-o", "bare.pth", cwd=tmp_path)
    assert (ran.status, "--also" in ran.out) == (0, False)
    assert "note: `ema` has the same keys, and keeps them; `ema` is an AveragedModel, whose keys begin with `module.`, and `a.w` would not" in ran.out
    assert "--also '#ema' maps it, too" in ckpt("map", "run.pth", "-e", "module.** -> module.net.**", "-o", "net.pth", cwd=tmp_path).out
    assert ckpt("map", "run.pth", "-e", "module.** -> module.net.**", "--also", "#ema", "-o", "new.pth", cwd=tmp_path).status == 0
    assert list(torch.load(tmp_path / "new.pth")["ema"]) == ["n_averaged", "module.net.a.w", "module.net.b.w"]


@pytest.mark.parametrize(("new", "of_model"), [("", ["x.w", "y.w"]), ("module.", ["module.x.w", "module.y.w"])])
def test_a_copy_without_the_prefix_of_the_weights_keys_is_mapped_without_it(tmp_path, new, of_model):
    average = {"a.w": torch.randn(2, 2), "b.w": torch.randn(3)}
    weights = {f"module.{key}": value + 1 for key, value in average.items()}
    rules = ("-e", f"module.a.* -> {new}x.*", "-e", f"module.b.* -> {new}y.*")
    for name, copy in (("all", average), ("some", {"b.w": average["b.w"]})):
        torch.save({"model": weights, "ema": copy, "epoch": 1}, tmp_path / f"{name}.pth")
        assert "--also '#ema' maps it, too" in ckpt("map", "all.pth", *rules, "-o", f"told_{name}.pth", cwd=tmp_path).out
        ran = ckpt("map", f"{name}.pth", *rules, "--also", "#ema", "-o", f"new_{name}.pth", cwd=tmp_path)
        assert ran.status == 0, ran.err
        made = torch.load(tmp_path / f"new_{name}.pth")
        assert list(made["model"]) == of_model
        assert {key: value.tolist() for key, value in made["ema"].items()} == {f"{'xy'['ab'.index(key[0])]}.w": value.tolist() for key, value in copy.items()}


def test_outputs_that_have_the_prefix_in_part_leave_a_copy_without_it_alone(tmp_path):
    torch.save({"model": {"module.a.w": torch.ones(2), "module.b.w": torch.ones(3)}, "ema": {"a.w": torch.ones(2), "b.w": torch.ones(3)}, "epoch": 1}, tmp_path / "run.pth")
    ran = ckpt("map", "run.pth", "-e", "module.a.* -> module.x.*", "-e", "module.b.* -> y.*", "--also", "#ema", "-o", "new.pth", cwd=tmp_path)
    assert (ran.status, "`#ema` has none of the weights' keys" in ran.err) == (2, True)


def test_a_copy_that_the_plan_does_not_fit_is_refused(tmp_path):
    weights = {"q.weight": torch.randn(2, 4), "k.weight": torch.randn(2, 4), "fc.weight": torch.randn(3, 4)}
    cases = {
        "short": ({"q.weight": torch.randn(2, 4)}, "`ema` has `q.weight`, and lacks `k.weight`: `qk.weight` needs both"),
        "other": ({**weights, "fc.weight": torch.randn(5, 4)}, "`fc.weight` is 5×4 in `ema`, and 3×4 in the weights"),
    }
    for name, (ema, fact) in cases.items():
        torch.save({"model": weights, "ema": ema}, tmp_path / f"{name}.pth")
        ran = ckpt("map", f"{name}.pth", "-e", "{q,k}.weight -> qk.weight: concat", "-e", "fc.* -> head.*", "--also", "#ema", "-o", "no.pth", cwd=tmp_path)
        assert (ran.status, fact in ran.err) == (1, True), ran.err
    torch.save({"model": weights, "ema": {key: value.half() for key, value in weights.items()}}, tmp_path / "half.pth")
    ran = ckpt("map", "half.pth", "-e", "{q,k}.weight -> qk.weight: concat", "-e", "fc.* -> head.*", "--also", "#ema", "-o", "new.pth", cwd=tmp_path)
    assert ran.status == 0, ran.err
    made = torch.load(tmp_path / "new.pth")
    assert_same(made["ema"]["qk.weight"], torch.cat([weights["q.weight"], weights["k.weight"]]).half())


def test_a_training_checkpoint_is_renamed_in_place(tmp_path):
    run = run_of(ema={key: value * 2 for key, value in net().state_dict().items()})
    torch.save(run, tmp_path / "run.ckpt")
    size = os.path.getsize(tmp_path / "run.ckpt")
    ran = ckpt("map", "run.ckpt", *RULES, "--also", "#ema", "--in-place", cwd=tmp_path)
    assert ran.status == 0, ran.err
    made = torch.load(tmp_path / "run.ckpt", weights_only=False)
    assert_same({key: made[key] for key in made if key not in ("state_dict", "ema")}, {key: run[key] for key in run if key not in ("state_dict", "ema")})
    assert_same(dict(made["state_dict"]), {new_name(key): value for key, value in run["state_dict"].items()})
    assert_same(made["ema"], {new_name(key): value for key, value in run["ema"].items()})
    assert os.path.getsize(tmp_path / "run.ckpt") < 2 * size
    before = (tmp_path / "run.ckpt").read_bytes()
    for words, fact in {("--drop", "head.*", "-e", "{conv,bn}.** -> x.{conv,bn}.**"): "is dropped", ("-e", "** -> **", "--only-weights"): "would lose what else the file holds"}.items():
        ran = ckpt("map", "run.ckpt", *words, "--in-place", cwd=tmp_path)
        assert (ran.status, fact in ran.err) == (2, True), ran.err
    assert (tmp_path / "run.ckpt").read_bytes() == before


def test_what_can_not_be_written_as_a_whole_says_why(tmp_path):
    model = net()
    torch.save({"model": model, "epoch": 2}, tmp_path / "module.pt")
    with (tmp_path / "bare.pkl").open("wb") as file:
        pickle.dump({"model": {key: value.numpy() for key, value in model.state_dict().items()}, "epoch": 1}, file)
    torch.save(run_of(), tmp_path / "run.ckpt")
    with zipfile.ZipFile(tmp_path / "run.ckpt") as archive, zipfile.ZipFile(tmp_path / "more.ckpt", "w") as more:
        for name in archive.namelist():
            more.writestr(name, archive.read(name))
        more.writestr("run/notes.txt", "x")
    with zipfile.ZipFile(tmp_path / "run.ckpt") as archive, zipfile.ZipFile(tmp_path / "deflated.ckpt", "w", zipfile.ZIP_DEFLATED) as more:
        for name in archive.namelist():
            more.writestr(name, archive.read(name))
    facts = {"module.pt": "are those of a pickled module, which is code", "bare.pkl": "was not written by torch.save"}
    for name, fact in facts.items():
        ran = ckpt("map", name, *RULES, "--whole", "-o", "no.pth", cwd=tmp_path)
        assert (ran.status, fact in ran.err) == (2, True), ran.err
        ran = ckpt("map", name, *RULES, "-o", f"weights.{name}.pth", cwd=tmp_path)
        assert (ran.status, fact in ran.out) == (0, True), ran.err
        assert list(torch.load(tmp_path / f"weights.{name}.pth")) == [new_name(key) for key in model.state_dict()]
    ran = ckpt("map", "more.ckpt", *RULES, "-o", "no.ckpt", cwd=tmp_path)
    assert (ran.status, "would lack `run/notes.txt`" in ran.err) == (2, True), ran.err
    assert ckpt("map", "run.ckpt", *RULES, "--whole", "-o", "no.safetensors", cwd=tmp_path).status == 2
    assert not list(tmp_path.glob("no.*"))
    assert ckpt("map", "deflated.ckpt", *RULES, "-o", "stored.ckpt", cwd=tmp_path).status == 0
    assert_same(beside(torch.load(tmp_path / "stored.ckpt", weights_only=False)), beside(torch.load(tmp_path / "run.ckpt", weights_only=False)))


def test_a_big_endian_checkpoint_is_written_as_weights_alone(tmp_path):
    torch.save(run_of(), tmp_path / "run.ckpt")
    with zipfile.ZipFile(tmp_path / "run.ckpt") as archive, zipfile.ZipFile(tmp_path / "big.ckpt", "w") as big:
        for name in archive.namelist():
            big.writestr(name, b"big" if name.endswith("/byteorder") else archive.read(name))
    ran = ckpt("map", "big.ckpt", *RULES, "-o", "no.ckpt", cwd=tmp_path)
    assert (ran.status, "would be of two byte orders" in ran.err) == (2, True), ran.err


def test_averages_by_number_are_refused_where_the_order_changes(tmp_path):
    """As torch_ema and diffusers keep them: they would belong to other parameters."""
    state = {"a.weight": torch.ones(3, 3), "b.weight": torch.zeros(3, 3)}
    torch.save({"model": state, "ema": {"decay": 0.9, "shadow_params": [torch.ones(3, 3), torch.zeros(3, 3)]}}, tmp_path / "run.ckpt")
    torch.save({"y.weight": torch.ones(3, 3), "x.weight": torch.zeros(3, 3)}, tmp_path / "other.pth")
    words = ("map", "run.ckpt", "-e", "a.weight -> x.weight", "-e", "b.weight -> y.weight", "-o", "new.ckpt")
    assert ckpt(*words, "--force", cwd=tmp_path).status == 0
    ran = ckpt("map", "run.ckpt", "other.pth", "--whole", *words[2:], "--force", cwd=tmp_path)
    assert ran.status == 2
    assert "has averaged weights by number, which would not follow; --only-weights leaves them behind" in ran.err.replace("\n", " ")
    assert ckpt("map", "run.ckpt", "other.pth", "--only-weights", *words[2:], "--force", cwd=tmp_path).status == 0


def test_a_fresh_parameter_beside_several_groups_names_the_way_that_knows_its_group(tmp_path):
    model, wider = nn.Linear(3, 2), nn.ModuleDict({"body": nn.Linear(3, 2), "cls": nn.Linear(2, 5)})
    optimizer = torch.optim.AdamW([{"params": [model.weight]}, {"params": [model.bias], "weight_decay": 0.0}])
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "run.ckpt")
    torch.save(wider.state_dict(), tmp_path / "new.pth")
    ran = ckpt("map", "run.ckpt", "new.pth", "-e", "** -> body.**", "--keep", "cls.*", "--whole", "-o", "out.ckpt", cwd=tmp_path)
    assert ran.status == 2
    assert "nothing says in which of them `cls.weight` is, which is fresh; in Python `load_into(…).optimizer_state(saved, model, optimizer)` takes the optimizer that is to have it; or `--fresh-optimizer '**'` leaves its state behind" in ran.err


def test_what_a_refused_map_asks_of_an_optimizer_is_in_its_next_command_where_it_can_be(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 2))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    torch.save({"model": {f"enc.{key}": value for key, value in model.state_dict().items()}, "optimizer": optimizer.state_dict()}, tmp_path / "run.pth")
    torch.save({f"trunk.{key}": value for key, value in model.state_dict().items()}, tmp_path / "init.pth")
    words = ["map", "run.pth", "init.pth", "-o", "new.pth", "--fresh-optimizer"]
    ran = ckpt(*words, "nosuch", cwd=tmp_path)
    assert (ran.status, ran.err) == (2, "error: --fresh-optimizer: is for whole training checkpoints, and this writes the weights alone; --whole writes all of it\n")
    for pattern, is_known in (("nosuch", False), ("trunk.0.*", True)):
        ran = ckpt(*words, pattern, "--whole", cwd=tmp_path)
        assert (ran.status, f"`{pattern}` matches no parameter" in ran.err) == (1, not is_known)
        onwards = shlex.split(ran.err.rstrip().splitlines()[-1].removeprefix("next: ckpt "))
        assert ("--fresh-optimizer" in onwards) is is_known
        assert ckpt(*onwards, "--force", cwd=tmp_path).status == 0
