"""Values come into a model by reading, by mapping (`assign`), or from a loader of somebody else; torch's own loading is the oracle."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import ckpt_tool
from ckpt_tool.errors import FormatError, InputError
from ckpt_tool.training.memory import transfer


def network():
    return nn.Sequential(nn.Linear(40, 30), nn.BatchNorm1d(30), nn.Linear(30, 20).to(torch.bfloat16), nn.Embedding(50, 7))


def filled(seed=5):
    generator = torch.Generator().manual_seed(seed)
    model = network()
    for tensor in model.state_dict().values():
        values = torch.randn(tensor.shape, generator=generator)
        tensor.copy_(values if tensor.is_floating_point() else values.mul(100))
    return model


def same(one, other):
    other = other.state_dict()
    return all(torch.equal(value, other[key]) for key, value in one.state_dict().items())


@pytest.fixture(params=["safetensors", "pth"])
def path(request, tmp_path):
    path = tmp_path / f"model.{request.param}"
    (save_file if request.param == "safetensors" else torch.save)(filled().state_dict(), path)
    return path


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("assign", [False, True])
def test_every_way_gives_the_same(path, device, assign):
    with torch.device(device):
        model = network()
    before = dict(model.named_parameters())
    report = ckpt_tool.load_into(model, path, assign=assign)
    assert same(model, filled())
    assert len(report.loaded) == 10
    assert any("mapped from" in note for note in report.notes) == assign
    if device == "cpu":
        assert all(parameter is before[name] for name, parameter in model.named_parameters())
    storages = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    assert len(storages) == len(before)
    raw = path.read_bytes()
    model[0](torch.ones(2, 40)).sum().backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    assert not same(model, filled())
    assert path.read_bytes() == raw
    torch.save(model.state_dict(), path.with_suffix(".again"))
    assert path.with_suffix(".again").stat().st_size < 30_000


@pytest.mark.parametrize("assign", [False, True])
def test_a_straight_read_is_a_change_to_autograd(path, assign):
    model = network()
    versions = [parameter._version for parameter in model.parameters()]
    loss = (model[0].weight ** 2).sum()
    ckpt_tool.load_into(model, path, assign=assign)
    assert all(parameter._version > version for parameter, version in zip(model.parameters(), versions, strict=True))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_damage_is_found_before_anything_is_read_into_the_model(tmp_path):
    torch.save(filled().state_dict(), tmp_path / "a.pth")
    raw = bytearray((tmp_path / "a.pth").read_bytes())
    raw[raw.find(bytes(filled()[3].weight.detach().view(-1).view(torch.uint8)[:40].tolist()))] ^= 4
    (tmp_path / "a.pth").write_bytes(raw)
    for assign in (False, True):
        model = filled(1)
        with pytest.raises(FormatError, match="checksum"):
            ckpt_tool.load_into(model, tmp_path / "a.pth", assign=assign)
        assert same(model, filled(1))


RULES = """rules:
  - qkv.weight -> {q,k,v}.weight: {split: 0}
  - table -> table: transpose
  - half -> full: {cast: F32}
"""


class Parts(nn.Module):
    def __init__(self):
        super().__init__()
        for name in "qkv":
            setattr(self, name, nn.Linear(300, 100, bias=False))
        self.table = nn.Parameter(torch.zeros(2000, 700))
        self.full = nn.Parameter(torch.zeros(900, 900))


def test_computed_values_come_in_pieces(tmp_path, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    state = {
        "qkv.weight": torch.randn(300, 300, generator=generator),
        "table": torch.randn(700, 2000, generator=generator),
        "half": torch.randn(900, 900, generator=generator).half(),
    }
    save_file(state, tmp_path / "a.safetensors")
    (tmp_path / "rules.yaml").write_text(RULES)
    monkeypatch.setattr(transfer, "PIECE", 10_000)
    sizes = []
    own = transfer.StepInputs.read
    monkeypatch.setattr(transfer.StepInputs, "read", lambda self, leaf, **given: sizes.append(1) or own(self, leaf, **given))
    model = Parts()
    ckpt_tool.load_into(model, tmp_path / "a.safetensors", rules=tmp_path / "rules.yaml")
    assert len(sizes) > 100
    assert torch.equal(model.table, state["table"].t())
    assert torch.equal(model.full, state["half"].float())
    assert torch.equal(torch.cat([model.state_dict()[f"{name}.weight"] for name in "qkv"]), state["qkv.weight"])


@pytest.mark.parametrize("order", ["as asked", "reversed"])
def test_a_loader_of_ones_own(path, order):
    asked = []

    def loader(keys):
        asked.extend(keys)
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path)
        for key in keys if order == "as asked" else reversed(keys):
            yield key, state[key]

    model = network()
    report = ckpt_tool.load_into(model, path, loader=loader, keep="3.*", drop="3.*")
    assert sorted(asked) == sorted(key for key in filled().state_dict() if not key.startswith("3"))
    assert len(report.loaded) == 9
    assert all(torch.equal(value, filled().state_dict()[key]) for key, value in model.state_dict().items() if key[0] != "3")


def test_a_loader_for_computed_values(tmp_path):
    state = {"qkv.weight": torch.randn(300, 300), "table": torch.randn(700, 2000), "half": torch.randn(900, 900).half()}
    save_file(state, tmp_path / "a.safetensors")
    (tmp_path / "rules.yaml").write_text(RULES)
    model = Parts()
    ckpt_tool.load_into(model, tmp_path / "a.safetensors", rules=tmp_path / "rules.yaml", loader=lambda keys: [(key, state[key]) for key in keys])
    assert torch.equal(model.table, state["table"].t())
    assert torch.equal(torch.cat([model.state_dict()[f"{name}.weight"] for name in "qkv"]), state["qkv.weight"])


def test_a_loader_may_use_one_buffer(tmp_path):
    state = {f"{name}.weight": torch.randn(5, 4) for name in "qkv"}
    save_file(state, tmp_path / "a.safetensors")
    (tmp_path / "rules.yaml").write_text("rules:\n  - '{q,k,v}.weight -> weight': {concat: 0}\n".replace("'", '"'))

    def loader(keys):
        buffer = torch.empty(5, 4)
        for key in keys:
            buffer.copy_(state[key])
            yield key, buffer

    model = nn.Linear(4, 15, bias=False)
    ckpt_tool.load_into(model, tmp_path / "a.safetensors", rules=tmp_path / "rules.yaml", loader=loader)
    assert torch.equal(model.weight, torch.cat([state[f"{name}.weight"] for name in "qkv"]))


class Tied(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.e, self.h = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
        if kind == "object":
            self.h.weight = self.e.weight
        if kind == "memory":
            self.h.weight = nn.Parameter(self.e.weight.data)


@pytest.mark.parametrize("kind", ["object", "memory", "apart"])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_ties_are_those_of_the_model_whatever_the_way(tmp_path, kind, suffix):
    weight = torch.randn(9, 4)
    state = {"e.weight": weight, "h.weight": weight if suffix == "pth" else weight.clone()}
    (torch.save if suffix == "pth" else save_file)(state, tmp_path / f"a.{suffix}")
    model = Tied(kind)
    ckpt_tool.load_into(model, tmp_path / f"a.{suffix}", assign=True)
    assert torch.equal(model.e.weight, weight)
    assert torch.equal(model.h.weight, weight)
    with torch.no_grad():
        model.e.weight[0] = 7
    assert torch.equal(model.h.weight[0], torch.full((4,), 7.0)) == (kind != "apart")


def test_views_of_one_storage_are_mapped_once(tmp_path):
    """torch saves them in one storage; the model's own tensors are apart."""
    whole = torch.randn(12, 8)
    state = {"a": whole[2:5], "whole": whole, "b": whole[8:], "c": torch.ones(4)}
    torch.save(state, tmp_path / "a.pth")
    model = nn.ParameterDict({key: nn.Parameter(torch.zeros_like(value)) for key, value in state.items()})
    ckpt_tool.load_into(model, tmp_path / "a.pth", assign=True)
    assert all(torch.equal(model[key], value) for key, value in state.items())
    for key, value in model.items():
        with torch.no_grad():
            value.fill_(len(key))
    assert all(bool((value == len(key)).all()) for key, value in model.items())
    with torch.no_grad():
        model["whole"].zero_()
    assert not any((model[key] == 0).any() for key in "abc")


WRONG = {
    "did not give `3.weight`": lambda keys, state: [(key, state[key]) for key in keys if key != "3.weight"],
    "wasn't asked for": lambda keys, state: [("else", torch.ones(1))],
    r"gave a tuple of str, int, not a \(key, tensor\) pair": lambda keys, state: [(keys[0], 3)],
    "gave a str, not": lambda keys, state: keys,
    "gave a Tensor, not": lambda keys, state: [torch.ones(2)],
    "returned a NoneType, not": lambda keys, state: None,
    "as F32": lambda keys, state: [(key, state[key][:1] if state[key].dim() else state[key]) for key in keys],
}


@pytest.mark.parametrize("said", WRONG)
def test_a_loader_that_gives_something_else(path, said):
    with pytest.raises(InputError, match=said):
        ckpt_tool.load_into(network(), path, loader=lambda keys: WRONG[said](keys, filled().state_dict()))


def test_what_is_in_memory_needs_neither():
    for way in ({"assign": True}, {"loader": lambda keys: []}):
        with pytest.raises(InputError, match="is for a file"):
            ckpt_tool.load_into(network(), filled().state_dict(), **way)


def test_modules_that_load_themselves_are_not_loaded_by_the_loader(tmp_path):
    class Own(nn.Linear):
        def _load_from_state_dict(self, *given):
            super()._load_from_state_dict(*given)

    model = nn.Sequential(Own(3, 3), nn.Linear(3, 3))
    state = {key: torch.randn_like(value) for key, value in model.state_dict().items()}
    save_file(state, tmp_path / "a.safetensors")
    asked = []
    report = ckpt_tool.load_into(model, tmp_path / "a.safetensors", loader=lambda keys: asked.extend(keys) or [(key, state[key]) for key in keys])
    assert set(asked) == {"1.weight", "1.bias"}
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert any(note.startswith("2 tensors were read from") for note in report.notes)
