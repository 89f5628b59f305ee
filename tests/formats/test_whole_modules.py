"""Pickled modules give their state dict though their classes can't be imported."""

import importlib
import pickle
import sys
from pathlib import Path

import pytest
import torch

from ckpt_tool.formats import open_checkpoint
from tests.formats.oracles import assert_agrees

SOURCE = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)
        self.bn = nn.BatchNorm2d(3)
        self.act = nn.ReLU()
        self.register_buffer("hidden", torch.ones(4), persistent=False)
        self.register_buffer("absent", None)
        self.note = torch.zeros(2)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.pos = nn.Parameter(torch.randn(5))
        self.blocks = nn.ModuleList([Block(), Block()])
        self.scales = nn.ParameterList([torch.randn(1), torch.randn(2)])
        self.named = nn.ParameterDict({"a": torch.randn(3)})
        self.embed = nn.Embedding(4, 2)
        self.head = nn.Linear(2, 4, bias=False)
        self.head.weight = self.embed.weight
        self.again = self.blocks[0]
        self.attention = nn.MultiheadAttention(4, 2)
        self.lstm = nn.LSTM(2, 3)
        self.normed = nn.utils.spectral_norm(nn.Linear(3, 3))
        self.fn = torch.relu

class Kept(Net):
    def __getstate__(self):
        state = self.__dict__.copy()
        state["remark"] = {"lr": 0.1}
        return state
"""


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A module of classes that exists only until the test closes it."""
    (tmp_path / "gone_away.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("gone_away")
    sys.modules.pop("gone_away", None)


def forget(tmp_path: Path) -> None:
    (tmp_path / "gone_away.py").unlink()
    del sys.modules["gone_away"]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", ["Net", "Kept"])
@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize(
    "wrap", [lambda m: m, torch.nn.DataParallel, torch.optim.swa_utils.AveragedModel], ids=["bare", "parallel", "averaged"]
)
def test_a_module_of_a_lost_class_gives_its_state_dict(tmp_path: Path, foreign, kind: str, is_zip: bool, wrap) -> None:
    model = wrap(getattr(foreign, kind)())
    torch.save(model, tmp_path / "a.pth", _use_new_zipfile_serialization=is_zip)
    forget(tmp_path)
    assert_agrees(tmp_path / "a.pth", model.state_dict())


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_module_in_a_training_checkpoint_is_found(tmp_path: Path, foreign) -> None:
    model = foreign.Net()
    torch.save({"epoch": 3, "model": model, "optimizer": torch.optim.SGD(model.parameters(), 0.1).state_dict()}, tmp_path / "a.pth")
    forget(tmp_path)
    assert_agrees(tmp_path / "a.pth", model.state_dict())
    with open_checkpoint(str(tmp_path / "a.pth")) as checkpoint:
        assert checkpoint.contents.taken == "model"
        calls = {extra.text for extra in checkpoint.extras if extra.kind == "call"}
        assert {"gone_away.Net", "torch.nn.modules.conv.Conv2d"} <= calls
        left_out = {extra.path for extra in checkpoint.extras if "not in the module's state dict" in extra.text}
        assert {"model.blocks.0.hidden", "model.blocks.0.note"} <= left_out


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_part_of_a_module_can_be_named(tmp_path: Path, foreign) -> None:
    model = foreign.Net()
    torch.save({"model": model}, tmp_path / "a.pth")
    forget(tmp_path)
    assert_agrees(f"{tmp_path / 'a.pth'}#model.blocks.1", model.blocks[1].state_dict())


def rename(module: torch.nn.Module, state: dict[str, object], prefix: str, metadata: object) -> None:
    """A hook that gives a key another name."""


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_hooks_that_may_rename_keys_are_told(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.utils.spectral_norm(torch.nn.Linear(3, 3)), torch.nn.Linear(3, 2))
    torch.save(model, tmp_path / "a.pth")
    with open_checkpoint(tmp_path / "a.pth") as checkpoint:
        assert "hooks" not in " ".join(extra.text for extra in checkpoint.extras if extra.kind == "note")
    for layer in (model[0], model[2]):
        layer._register_state_dict_hook(rename)
    torch.save({"model": model}, tmp_path / "a.pth")
    with open_checkpoint(tmp_path / "a.pth") as checkpoint:
        assert [extra.text for extra in checkpoint.extras if extra.kind == "note"] == [
            "`model.0` and 1 more has state-dict hooks, which may change names: its state_dict() may have other keys"
        ]


def test_the_bound_method_that_was_saved_by_mistake_leads_to_the_module(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 3)
    torch.save(model.state_dict, tmp_path / "a.pth")
    assert_agrees(tmp_path / "a.pth", model.state_dict())


def test_a_graph_module_gives_its_state_dict(tmp_path: Path) -> None:
    model = torch.fx.symbolic_trace(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)))
    torch.save(model, tmp_path / "a.pth")
    assert_agrees(tmp_path / "a.pth", model.state_dict())


def test_a_compiled_module_keeps_the_prefix_of_its_wrapper(tmp_path: Path) -> None:
    model = torch.compile(torch.nn.Linear(2, 3))
    torch.save(model, tmp_path / "a.pth")
    assert_agrees(tmp_path / "a.pth", model.state_dict())  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", ["timm:vit_tiny_patch16_224", "timm:convnext_atto", "torchvision:mobilenet_v3_small", "torchvision:shufflenet_v2_x0_5"]
)
def test_models_of_libraries_give_their_state_dict(tmp_path: Path, torchvision, timm, name: str) -> None:
    library, model_name = name.split(":")
    model = timm.create_model(model_name) if library == "timm" else torchvision.models.get_model(model_name)
    torch.save(model, tmp_path / "a.pth")
    assert_agrees(tmp_path / "a.pth", model.state_dict())


@pytest.mark.parametrize("protocol", range(2, 6))
def test_what_pickle_itself_wrote_holds_its_storages_inside(tmp_path: Path, protocol: int) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3), torch.nn.Linear(300, 300))
    model[2].weight.data = model[2].weight.data.t()
    for value in (model, model.state_dict()):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(value, protocol))
        assert_agrees(tmp_path / "a.pkl", model.state_dict())
    with open_checkpoint(str(tmp_path / "a.pkl")) as checkpoint:
        assert [extra.text for extra in checkpoint.extras if extra.kind == "call"] == []


def test_a_stream_inside_that_torch_did_not_write_is_only_named(tmp_path: Path) -> None:
    raw = pickle.dumps({"w": torch.ones(2)}, 3)
    (tmp_path / "a.pkl").write_bytes(raw.replace(b"FloatStorage", b"EvilsStorage"))
    with open_checkpoint(str(tmp_path / "a.pkl")) as checkpoint:
        assert list(checkpoint.catalog) == []
        assert [extra.text for extra in checkpoint.extras if extra.kind == "call"] == ["torch.storage._load_from_bytes"]


def test_equal_tensors_inside_a_pickle_are_not_taken_for_tied_ones(tmp_path: Path) -> None:
    weight = torch.ones(2)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": weight, "b": torch.ones(2), "c": weight}))
    with open_checkpoint(str(tmp_path / "a.pkl")) as checkpoint:
        assert [info.shared_storage_with for info in checkpoint.catalog.values()] == [None, None, "a"]
        assert [info.tied_to for info in checkpoint.catalog.values()] == [None, None, "a"]
