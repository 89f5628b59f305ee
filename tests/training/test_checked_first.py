"""Whatever stops a load stops it before the first tensor is copied."""

from pathlib import Path

import pytest
import torch
from seeded import fill_with_seeded_values
from torch import nn

import ckpt_tool
from ckpt_tool import FormatError, InputError, MappingOptions, RuleError
from tests.training.sharded import on_two_processes


def two(size=2, seed=0):
    layers = {"a": nn.Linear(size, size, bias=False), "b": nn.Linear(size, size, bias=False)}
    return fill_with_seeded_values(nn.ModuleDict(layers), seed)


def refused(kind, match, model, source, **options):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(kind, match=match):
        ckpt_tool.load_into(model, source, **options)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())


def test_tensors_that_must_be_the_same_and_are_not():
    source = {"x": torch.ones(2, 2), "p": torch.ones(2, 2), "q": torch.zeros(2, 2)}
    how = MappingOptions(inline=("x -> a.weight", "{p,q} -> b.weight: same"))
    refused(RuleError, "tensors that must be the same differ", two(), source, options=how)
    model = two()
    ckpt_tool.load_into(model, {**source, "q": torch.ones(2, 2)}, options=how)
    assert model["b"].weight.eq(1).all()


def spoiled(tmp_path, size=2_000):
    """A file too large to be checked on opening, with a bit of its last tensor turned."""
    torch.save(two(size, 1).state_dict(), tmp_path / "spoiled.pth")
    raw = bytearray((tmp_path / "spoiled.pth").read_bytes())
    raw[-5_000] ^= 1
    (tmp_path / "spoiled.pth").write_bytes(raw)
    return str(tmp_path / "spoiled.pth")


@pytest.mark.parametrize("view", ["whole", "transposed"])
def test_a_checksum_that_is_wrong(tmp_path, view):
    source = spoiled(tmp_path)
    if view == "transposed":
        torch.save({key: value.t() for key, value in two(2_000, 1).state_dict().items()}, source)
        raw = bytearray(Path(source).read_bytes())
        raw[-5_000] ^= 1
        Path(source).write_bytes(raw)
    refused(FormatError, "bytes don't match their checksum", two(2_000), source)


def test_what_is_not_loaded_is_not_checked(tmp_path):
    model = two(2_000)
    report = ckpt_tool.load_into(model, spoiled(tmp_path), options=MappingOptions(inline=("a.** -> a.**",), drop=("b.**",), keep=("b.**",)))
    assert torch.equal(model["a"].weight, two(2_000, 1)["a"].weight)
    assert report.fresh == ("b.weight",)


def test_a_source_without_values():
    source = two(seed=1).state_dict()
    source["b.weight"] = torch.empty(2, 2, device="meta")
    refused(InputError, "`b.weight` is on the meta device, and has no values", two(), source)


def test_a_source_that_changes_meanwhile_is_told(tmp_path, monkeypatch):
    """Nobody can hinder another program from writing to a file; it is told."""
    torch.save(two(seed=1).state_dict(), tmp_path / "a.pth")
    model = two()
    model["a"].register_load_state_dict_pre_hook(lambda *_: (tmp_path / "a.pth").write_bytes(b"other"))
    refused(FormatError, "changed while it was read; nothing was loaded; try again", model, str(tmp_path / "a.pth"))


def wrapper():
    from torch.testing._internal.two_tensor import TwoTensor

    return TwoTensor(torch.zeros(2, 2), torch.zeros(2, 2))


def test_tensors_that_only_their_class_can_fill_are_refused():
    model = two()
    model["b"].weight = nn.Parameter(wrapper())
    with pytest.raises(InputError, match=r"`b\.weight` is a TwoTensor, which only its own class can fill"):
        ckpt_tool.load_into(model, two(seed=1))
    assert torch.equal(model["a"].weight, two()["a"].weight)
    ckpt_tool.load_into(model, {"a.weight": torch.ones(2, 2)}, options=MappingOptions(inline=("** -> **",), keep=("b.*",)))
    assert model["a"].weight.eq(1).all()


def test_tensors_that_only_their_class_can_read_are_refused():
    source = {**two(seed=1).state_dict(), "b.weight": wrapper()}
    refused(InputError, "`b.weight` is a TwoTensor, whose values only its own class can read", two(), source)


def one_process_fails(rank):
    """Either the file of one process is missing, or it has a wrong checksum; what is raised on each."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    told = []
    folder = "there" if rank else "here"
    for name in (f"{folder}.pth", f"{folder}-spoiled.pth"):
        model = two(2_000)
        for layer in model.values():
            fully_shard(layer, mesh=init_device_mesh("cpu", (2,)))
        try:
            ckpt_tool.load_into(model, name)
        except InputError as error:
            whole = all(torch.equal(value.full_tensor(), two(2_000).state_dict()[key]) for key, value in model.state_dict().items())
            told.append((type(error).__name__, str(error), whole))
    return told


def test_what_stops_one_process_stops_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(two(2_000, 1).state_dict(), "here.pth")
    torch.save(two(2_000, 1).state_dict(), "here-spoiled.pth")
    spoiled(tmp_path)
    (tmp_path / "spoiled.pth").rename("there-spoiled.pth")
    here, there = on_two_processes(one_process_fails, tmp_path)
    told = "there.pth: no such file; did you mean here.pth?"
    assert there[0] == ("InputError", told, True)
    assert here[0] == ("InputError", f"ModuleDict: process 1 can't load: {told}; no process has loaded anything", True)
    assert there[1][0] == "FormatError"
    assert "process 1 can't load: there-spoiled.pth" in here[1][1]
    assert here[1][2] is there[1][2] is True
