"""The optimizer's state out of files: torch's, Lightning's, DCP's by names and flat, and DeepSpeed's."""

import argparse
import copy

import pytest
import torch
from formats.zero_folders import Zero
from test_optimizer_names import RULES, New, Old, decay_first, named, one_group, train

import ckpt_tool
from ckpt_tool import FormatError, InputError

SGD_OF_TWO = torch.optim.SGD([torch.nn.Parameter(torch.ones(1)) for _ in range(2)], 0.1).state_dict()


@pytest.fixture(scope="module")
def run():
    """A model and its optimizer after ten steps, what is saved of both, and the model after twenty more."""
    torch.manual_seed(0)
    old = Old()
    optimizer = torch.optim.AdamW(decay_first(old), 0.01)
    train(old, optimizer, range(10))
    saved = copy.deepcopy({"model": old.state_dict(), "optimizer": optimizer.state_dict()})
    train(old, optimizer, range(10, 30))
    return saved, old.state_dict()


def assert_resumed(run, weights, state, groups=decay_first):
    """A new model that is loaded from one file and the optimizer from another, or the same, ends as the run that went on."""
    new = New()
    report = ckpt_tool.load_into(new, weights, rules=RULES)
    optimizer = torch.optim.AdamW(groups(new), 0.01)
    found = report.optimizer_state(state, new, optimizer)
    optimizer.load_state_dict(found)
    train(new, optimizer, range(10, 30))
    expected = New()
    ckpt_tool.load_into(expected, run[1], rules=RULES)
    assert all(torch.equal(value, expected.state_dict()[key]) for key, value in new.state_dict().items())
    return found


@pytest.mark.parametrize("is_legacy", [False, True])
def test_the_only_optimizer_of_a_file_is_found(run, tmp_path, is_legacy):
    path = tmp_path / "run.pth"
    torch.save({"epoch": 3, **run[0]}, path, _use_new_zipfile_serialization=not is_legacy)
    found = assert_resumed(run, path, path)
    assert found["param_groups"][1]["weight_decay"] == 0.0
    assert found["param_groups"][0]["betas"] == (0.9, 0.999)


def test_optimizers_of_lightning_and_in_files_of_their_own(run, tmp_path):
    whole, alone = tmp_path / "last.ckpt", tmp_path / "optimizer.bin"
    torch.save({"state_dict": run[0]["model"], "optimizer_states": [run[0]["optimizer"]], "lr_schedulers": [{"last_epoch": 1}]}, whole)
    torch.save(run[0]["optimizer"], alone)
    for state in (whole, f"{whole}#optim", f"{whole}#optimizer_states", f"{whole}#optimizer_states.0", alone):
        assert_resumed(run, whole, state)


def test_one_of_two_optimizers_has_to_be_named(run, tmp_path):
    path = tmp_path / "gan.pth"
    torch.save({**run[0], "other_optimizer": run[0]["optimizer"]}, path)
    with pytest.raises(InputError, match=r"holds the states of 2 optimizers; name one: `.*#optimizer`, `.*#other_optimizer`"):
        assert_resumed(run, path, path)
    assert_resumed(run, path, f"{path}#optimizer")
    torch.save({"model": run[0]["model"]}, path)
    with pytest.raises(InputError, match="holds no optimizer's state"):
        assert_resumed(run, path, path)


@pytest.mark.parametrize("fragment", ["", "#optim", "#optimizer"])
def test_an_optimizer_without_tensors_is_found_too(tmp_path, fragment):
    old, new = Old(), New()
    optimizer = torch.optim.SGD(old.parameters(), 0.25)
    torch.save({"model": old.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}, tmp_path / "run.pth")
    report = ckpt_tool.load_into(new, tmp_path / "run.pth", rules=RULES)
    target = torch.optim.SGD(new.parameters(), 0.1)
    found = report.optimizer_state(f"{tmp_path / 'run.pth'}{fragment}", new, target)
    target.load_state_dict(found)
    assert (found["state"], target.param_groups[0]["lr"]) == ({}, 0.25)
    torch.save({"model": old.state_dict(), "opt": [optimizer.state_dict()] * 2, "a": optimizer.state_dict(), "b": SGD_OF_TWO}, tmp_path / "run.pth")
    with pytest.raises(InputError):
        report.optimizer_state(f"{tmp_path / 'run.pth'}{fragment}", new, target)


@pytest.mark.parametrize("is_legacy", [False, True])
def test_a_file_of_an_optimizer_without_tensors_is_read(tmp_path, is_legacy):
    old, new, path = Old(), New(), tmp_path / "optimizer.bin"
    torch.save(old.state_dict(), tmp_path / "model.pth")
    report = ckpt_tool.load_into(new, tmp_path / "model.pth", rules=RULES)
    state = torch.optim.SGD(old.parameters(), 0.25).state_dict()
    for content, given in ((state, path), ({"epoch": 3, "sgd": state}, path), ({"epoch": 3, "sgd": state}, f"{path}#sgd")):
        torch.save(content, path, _use_new_zipfile_serialization=not is_legacy)
        target = torch.optim.SGD(new.parameters(), 0.1)
        target.load_state_dict(report.optimizer_state(given, new, target))
        assert target.param_groups[0]["lr"] == 0.25
    around = {"epoch": 3}
    around["around"] = around
    for content in ({"epoch": 3}, {"a": state, "b": SGD_OF_TWO}, {**state, "state": around}, {**state, "param_groups": [argparse.Namespace(lr=1)]}):
        torch.save(content, path, _use_new_zipfile_serialization=not is_legacy)
        with pytest.raises(InputError):
            report.optimizer_state(path, new, target)


def test_what_would_have_to_be_imported_is_refused(run, tmp_path):
    state = copy.deepcopy(run[0]["optimizer"])
    state["param_groups"][0]["extra"] = argparse.Namespace(a=1)
    torch.save({"model": run[0]["model"], "optimizer": state}, tmp_path / "run.pth")
    with pytest.raises(InputError, match=r"`param_groups\.0\.extra`: is an object of a class that is not imported"):
        assert_resumed(run, tmp_path / "run.pth", tmp_path / "run.pth")


def test_what_holds_itself_is_refused(run, tmp_path):
    state = copy.deepcopy(run[0]["optimizer"])
    state["param_groups"][0]["extra"] = state["param_groups"]
    torch.save({"model": run[0]["model"], "optimizer": state}, tmp_path / "run.pth")
    with pytest.raises(FormatError, match="nested 21 deep, or refers to itself"):
        assert_resumed(run, tmp_path / "run.pth", tmp_path / "run.pth")


@pytest.mark.filterwarnings("ignore:torch.distributed is")
@pytest.mark.parametrize("is_flat", [False, True])
def test_folders_of_distributed_checkpoints(run, tmp_path, is_flat):
    from torch.distributed import checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

    old = Old()
    old.load_state_dict(run[0]["model"])
    optimizer = torch.optim.AdamW(decay_first(old), 0.01)
    optimizer.load_state_dict(run[0]["optimizer"])
    state = get_optimizer_state_dict(old, optimizer, options=StateDictOptions(flatten_optimizer_state_dict=is_flat))
    dcp.save({"model": old.state_dict(), "optim": state}, checkpoint_id=tmp_path / "run")  # type: ignore[attr-defined]
    found = assert_resumed(run, f"{tmp_path / 'run'}#model", f"{tmp_path / 'run'}#optim")
    assert [group["weight_decay"] for group in found["param_groups"]] == [0.01, 0.0]
    assert_resumed(run, f"{tmp_path / 'run'}#model", tmp_path / "run")


@pytest.mark.filterwarnings("ignore:torch.distributed is")
def test_a_folder_with_its_optimizer_is_mapped_to_another_without_a_model(run, tmp_path):
    from torch.distributed import checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import (
        get_optimizer_state_dict,
        set_optimizer_state_dict,
    )

    old = Old()
    old.load_state_dict(run[0]["model"])
    optimizer = torch.optim.AdamW(decay_first(old), 0.01)
    optimizer.load_state_dict(run[0]["optimizer"])
    saved = {"model": old.state_dict(), "optim": get_optimizer_state_dict(old, optimizer)}
    dcp.save(saved, checkpoint_id=tmp_path / "run")  # type: ignore[attr-defined]

    plan = ckpt_tool.plan(f"{tmp_path / 'run'}#model", New(), rules=RULES)
    state = plan.optimizer_state(f"{tmp_path / 'run'}#optim", form="names")
    dcp.save({"model": plan.apply(f"{tmp_path / 'run'}#model"), "optim": state}, checkpoint_id=tmp_path / "new")  # type: ignore[attr-defined]

    new = New()
    new_optimizer = torch.optim.AdamW(decay_first(new), 0.01)
    loaded = {"model": new.state_dict(), "optim": get_optimizer_state_dict(new, new_optimizer)}
    dcp.load(loaded, checkpoint_id=tmp_path / "new")  # type: ignore[attr-defined]
    new.load_state_dict(loaded["model"])
    set_optimizer_state_dict(new, new_optimizer, loaded["optim"])
    train(new, new_optimizer, range(10, 30))
    expected = New()
    ckpt_tool.load_into(expected, run[1], rules=RULES)
    assert all(torch.equal(value, expected.state_dict()[key]) for key, value in new.state_dict().items())


@pytest.mark.parametrize("stage", [1, 3])
def test_folders_of_deepspeed(run, tmp_path, stage):
    model, state = run[0]["model"], run[0]["optimizer"]
    names = [name for name, _ in Old().named_parameters()]
    decays = [[name for name in names if (model[name].dim() > 1) is is_matrix] for is_matrix in (True, False)]
    numbers = {name: number for number, name in enumerate([*decays[0], *decays[1]])}

    class Trained(Zero):
        def slots(self):
            return {slot: [{name: state["state"][numbers[name]][slot] for name in group} for group in self.groups] for slot in ("exp_avg", "exp_avg_sq")}

    buffers = {key: value for key, value in model.items() if key not in names}
    Trained([{name: model[name] for name in group} for group in decays], stage, 2, buffers).write(tmp_path)
    new = New()
    report = ckpt_tool.load_into(new, str(tmp_path), rules=RULES)
    optimizer = torch.optim.AdamW(decay_first(new), 0.01)
    found = report.optimizer_state(f"{tmp_path}#optim", new, optimizer)
    assert report.optimizer_state(tmp_path, new, optimizer)["state"].keys() == found["state"].keys()
    by_ids = report.optimizer_state(state, new, optimizer)
    for number, slots in by_ids["state"].items():
        assert all(torch.equal(value, found["state"][number][slot]) for slot, value in slots.items() if slot != "step")
        assert found["state"][number]["step"] == 3
    assert [group["weight_decay"] for group in found["param_groups"]] == [0.01, 0.0]
    optimizer.load_state_dict(found)
    train(new, optimizer, range(3))


def test_forms_become_each_other(run):
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

    new = New()
    report = ckpt_tool.load_into(new, run[0]["model"], rules=RULES)
    optimizer = torch.optim.AdamW(decay_first(new), 0.01)
    state = run[0]["optimizer"]
    ids = report.optimizer_state(state, new, optimizer)
    by_names = report.optimizer_state(state, new, optimizer, form="names")
    flat = report.optimizer_state(state, new, optimizer, form="flat")
    names = dict(enumerate(name for group in ids.moved.groups for name in group.names))
    for number, slots in ids["state"].items():
        for slot, value in slots.items():
            assert torch.equal(by_names["state"][names[number]][slot], value)
            assert torch.equal(flat[f"state.{names[number]}.{slot}"], value)
    for form, is_flat in ((by_names, False), (flat, True)):
        set_optimizer_state_dict(new, optimizer, copy.deepcopy(form), options=StateDictOptions(flatten_optimizer_state_dict=is_flat))
        assert torch.equal(optimizer.state_dict()["state"][3]["exp_avg"], ids["state"][3]["exp_avg"])
        again = ckpt_tool.load_into(New(), new).optimizer_state(form, new, optimizer, form="ids")
        assert again["param_groups"] == ids["param_groups"]
        assert all(torch.equal(again["state"][0][slot], value) for slot, value in ids["state"][0].items())


def test_flat_states_of_one_group_need_no_optimizer(run):
    new = New()
    report = ckpt_tool.load_into(new, run[0]["model"], rules=RULES)
    old = Old()
    optimizer = torch.optim.AdamW(one_group(old), 0.01)
    train(old, optimizer, range(2))
    flat = ckpt_tool.load_into(Old(), old).optimizer_state(optimizer, form="flat")
    assert len(report.optimizer_state(flat, form="ids")["param_groups"][0]["params"]) == len(list(new.parameters()))
    optimizer = torch.optim.AdamW(named(old), 0.01)
    train(old, optimizer, range(2))
    found = ckpt_tool.load_into(new, old, rules=RULES).optimizer_state(optimizer)
    assert found["param_groups"][0]["param_names"] == [name for name, _ in new.named_parameters()]
    two = ckpt_tool.load_into(Old(), run[0]["model"]).optimizer_state(run[0]["optimizer"], form="flat")
    with pytest.raises(InputError, match="nothing says in which group"):
        report.optimizer_state(two, form="ids")
