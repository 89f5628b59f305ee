"""The Python blocks of docs/training.md and docs/resuming.md run one after the other, as somebody would paste them."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

ROOT = Path(__file__).parent.parent


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def files(tmp_path, monkeypatch, torchvision):
    """The checkpoints that the pages speak of, and an environment with one process."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(name, value)
    torch.manual_seed(0)
    net = torchvision.models.resnet18(num_classes=3)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    net(torch.randn(2, 3, 32, 32)).sum().backward()
    optimizer.step()
    state = net.state_dict()
    torch.save(torchvision.models.resnet18().state_dict(), "resnet18.pth")
    torch.save({"state_dict": {**{f"model.{key}": value for key, value in state.items()}, "criterion.weight": torch.ones(3)}, "epoch": 1}, "lightning.ckpt")
    torch.save({key: value for key, value in state.items() if not key.startswith("fc.")}, "backbone.pth")
    torch.save({key: value.half() if value.is_floating_point() else value for key, value in state.items()}, "half.pth")
    torch.save({"model": {f"net.{key}": value for key, value in state.items()}, "optimizer": optimizer.state_dict(), "epoch": 3}, "run.ckpt")
    Path("new_names.yaml").write_text("rules: ['net.** -> **']\n")
    save_file(torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(64, 4, batch_first=True), num_layers=4).state_dict(), "encoder.safetensors")
    yield net
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    assert "MASTER_ADDR" in os.environ


SAID = (
    "120 loaded, 2 kept fresh, 2 dropped",
    "60 parameters frozen, 20 modules kept in eval mode",
    "epoch 3: 17 parameters train, 45 are frozen (15 thawed, 0 frozen now)",
    "62 states of the optimizer moved, 0 parameters without one, 0 states dropped",
)


def test_the_page_on_training_runs(files, capsys):
    text = (ROOT / "docs" / "training.md").read_text()
    names: dict[str, Any] = {}
    for block in blocks("training.md"):
        exec(compile(block, "training.md", "exec"), names)
    printed = capsys.readouterr().out
    for line in SAID:
        assert line in text
        assert line in printed
    table = re.search(r"```\n(group .*?)```", text, re.DOTALL)[1]
    for part in table.split("…\n"):
        assert part in printed
    groups = names["report"].parameter_groups(names["model"], lr=1e-3, loaded_lr=1e-3)
    assert len(groups) == 1


def test_the_page_on_resuming_runs(files):
    names: dict[str, Any] = {"model": files}
    for block in blocks("resuming.md"):
        exec(compile(block, "resuming.md", "exec"), names)
    assert str(names["state"]).startswith(SAID[-1])
