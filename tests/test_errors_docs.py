"""docs/errors.md: the messages are those of torch and safetensors, and what it recommends works."""

import re
import shlex
import zipfile
from pathlib import Path

import pytest
import torch
from running import ckpt
from safetensors.torch import load_file, save_file
from torch import nn

PAGE = (Path(__file__).parent.parent / "docs" / "errors.md").read_text()
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"


class Net(nn.Module):
    def __init__(self, classes=3, channels=3):
        super().__init__()
        self.conv1, self.fc = nn.Conv2d(channels, 8, 3), nn.Linear(8, classes)


def on_the_gpu(path):
    """A file as a GPU saves it, without having one."""
    torch.save({"w": torch.ones(2)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0") if name.endswith("data.pkl") else data)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with one file for each message."""
    folder = tmp_path_factory.mktemp("errors")
    state = Net().state_dict()
    torch.save(state, folder / "b.pth")
    torch.save({f"module.{key}": value for key, value in state.items()}, folder / "a.pth")
    torch.save(Net(1000).state_dict(), folder / "classes.pth")
    torch.save(Net(channels=4).state_dict(), folder / "channels.pth")
    torch.save({"epoch": 3, "state_dict": state}, folder / "run.pth")
    torch.save(Net().state_dict, folder / "slip.pth")
    torch.save(Net(), folder / "x.pth")
    on_the_gpu(folder / "gpu.pth")
    tied = torch.ones(4, 2)
    torch.save({"embed.weight": tied, "head.weight": tied}, folder / "tied.pth")
    save_file({"w": torch.ones(100, 100)}, folder / "whole.safetensors")
    torch.save({"w": torch.randn(500, 500)}, folder / "whole.pth")
    for name in ("whole.pth", "whole.safetensors"):
        data = (folder / name).read_bytes()
        (folder / name.replace("whole", "cut")).write_bytes(data[: len(data) // 2])
    (folder / "empty.pth").touch()
    for ending in ("pth", "safetensors"):
        (folder / f"pointer.{ending}").write_text(POINTER)
        (folder / f"page.{ending}").write_text("<!DOCTYPE html><html><head></head></html>" * 20)
    return folder


def load(model, name):
    return lambda folder: model.load_state_dict(torch.load(folder / name))


def unsafe(name):
    return lambda folder: torch.load(folder / name, weights_only=False)


def resumed(groups):
    def run(folder):
        saved = torch.optim.Adam(Net().parameters()).state_dict()
        torch.optim.Adam(groups(Net())).load_state_dict(saved)

    return run


MESSAGES = [
    (load(Net(), "a.pth"), ['Missing key(s) in state_dict: "conv1.weight"', 'Unexpected key(s) in state_dict: "module.conv1.weight"']),
    (load(Net(), "run.pth"), ['Unexpected key(s) in state_dict: "epoch", "state_dict"']),
    (lambda folder: Net().load_state_dict(unsafe("slip.pth")(folder)), ["Expected state_dict to be dict-like, got <class 'method'>"]),
    (load(Net(), "classes.pth"), ["size mismatch for fc.weight: copying a param with shape torch.Size([1000, "]),
    (load(Net(), "channels.pth"), ["size mismatch for conv1.weight"]),
    (load(Net(), "x.pth"), ["Weights only load failed", "Unsupported global: GLOBAL "]),
    (load(Net(), "pointer.pth"), ["Unsupported operand 118"]),
    (load(Net(), "page.pth"), ["Unsupported operand 60"]),
    (unsafe("pointer.pth"), ["invalid load key, 'v'"]),
    (unsafe("page.pth"), ["invalid load key, '<'"]),
    (unsafe("empty.pth"), ["Ran out of input"]),
    (unsafe("cut.pth"), ["PytorchStreamReader failed reading zip archive: failed finding central directory"]),
    (lambda folder: load_file(folder / "pointer.safetensors"), ["header too large"]),
    (lambda folder: load_file(folder / "page.safetensors"), ["header too large"]),
    (lambda folder: save_file(torch.load(folder / "tied.pth"), folder / "t.safetensors"), ["Some tensors share memory, this will lead to duplicate memory on disk"]),
    (resumed(lambda net: [{"params": net.conv1.parameters()}, {"params": net.fc.parameters()}]), ["loaded state dict has a different number of parameter groups"]),
    (resumed(lambda net: net.fc.parameters()), ["contains a parameter group that doesn't match the size of optimizer's group"]),
]  # fmt: skip


@pytest.mark.parametrize(("provoke", "texts"), MESSAGES, ids=[texts[0][:40] for _, texts in MESSAGES])
def test_the_messages_of_the_page_are_those_that_people_see(place, provoke, texts):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - of any kind, as each library has its own
        provoke(place)
    assert all(text in PAGE and text in str(caught.value) for text in texts), str(caught.value)


@pytest.mark.parametrize(("command", "status", "printed"), [
    ("diff a.pth b.pth --renames", 1, "> module.** → **"),
    ("map a.pth b.pth -o out.pth --force", 0, "4 mapped"),
    ("map classes.pth b.pth -o out.pth --force", 0, "stays fresh"),
    ("show run.pth", 0, "state_dict"),
    ("map slip.pth -e '** -> **' -o weights.pth", 0, "wrote weights.pth: 4 tensors"),
    ("scan x.pth", 1, "Net"),
    ("map x.pth -e '** -> **' -o x.safetensors", 0, "wrote x.safetensors: 4 tensors"),
    ("show pointer.pth", 2, "is a git-lfs pointer"),
    ("show page.safetensors", 2, "is a web page"),
    ("show cut.pth", 2, "is cut off"),
    ("show cut.safetensors", 2, "is cut off"),
    ("show empty.pth", 2, "is empty"),
    ("map gpu.pth -e '** -> **' -o y.pth", 0, "wrote y.pth: 1 tensor"),
    ("map tied.pth -e '** -> **' -o tied.safetensors", 0, "these are written twice: head.weight = embed.weight"),
])  # fmt: skip
def test_what_the_page_recommends_works(place, command, status, printed):
    ran = ckpt(*shlex.split(command), cwd=place)
    assert (ran.status, printed in ran.out + ran.err) == (status, True), ran.out + ran.err


def test_what_was_saved_on_a_gpu_loads_without_one(place):
    ckpt("map", "gpu.pth", "-e", "** -> **", "-o", "anywhere.pth", cwd=place)
    assert torch.load(place / "anywhere.pth")["w"].device.type == "cpu"


def test_the_rule_file_of_the_page_is_complete(tmp_path):
    (tmp_path / "fit.yaml").write_text(re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1])
    for name, tokens in (("a", 197), ("b", 577)):
        torch.save({"w": torch.ones(2), "pos_embed": torch.ones(1, tokens, 4)}, tmp_path / f"{name}.pth")
    ran = ckpt("map", "a.pth", "b.pth", "--rules", "fit.yaml", "-o", "out.pth", cwd=tmp_path)
    assert (ran.status, "2 mapped" in ran.out + ran.err) == (0, True), ran.err
