"""The commands that docs/compare.md shows print what it shows."""

import re
from pathlib import Path

import pytest
import torch
from running import ckpt

TEXT = (Path(__file__).parent.parent / "docs" / "compare.md").read_text()
SHOWN = re.findall(r"```\n\$ ckpt (.*)\n((?:.|\n)*?)```", TEXT)


def block(name, generator):
    return {
        f"{name}.attn.weight": torch.randn(16, 16, generator=generator),
        f"{name}.norm.weight": torch.ones(16),
        f"{name}.norm.bias": torch.zeros(16),
        f"{name}.mlp.weight": torch.randn(16, 8, generator=generator),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    generator = torch.Generator().manual_seed(0)
    blocks = [block("", generator) for _ in range(13)]
    ends = [{name: torch.randn(rows, 16, generator=generator)} for name, rows in (("emb.weight", 12), ("head.weight", 10))]

    def model(order):
        inner = {f"layers.{i}{name}": tensor for i, place in enumerate(order) for name, tensor in blocks[place].items()}
        return {**ends[0], **inner, **ends[1]}

    base = model(range(12))
    saved = {
        "base": base,
        "longer": model([*range(7), 12, *range(7, 12)]),
        "wrapped": {"net." + key.replace("attn", "self_attention"): tensor for key, tensor in base.items()},
        "turned": {key: tensor.t().contiguous() if "mlp" in key else tensor for key, tensor in base.items()},
        "classes": base | {"head.weight": torch.randn(3, 16, generator=generator)},
    }
    for name, tensors in saved.items():
        torch.save(tensors, folder / f"{name}.pth")
    return folder


@pytest.mark.parametrize(("command", "shown"), SHOWN, ids=[command for command, _ in SHOWN])
def test_what_the_docs_show_is_printed(folder, command, shown):
    ran = ckpt(*command.split(), cwd=folder)
    assert ran.out + ran.err == shown


def test_every_kind_is_shown():
    assert len(SHOWN) == 4
