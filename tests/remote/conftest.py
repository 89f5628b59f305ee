"""A web server, a hub and torch's cache of their own for each test; weights with seeded values."""

import io

import pytest
import torch
from safetensors.torch import save

from tests.remote.server import serving


@pytest.fixture
def server():
    with serving() as one:
        yield one


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """torch's folder of downloads."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("CKPT_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "torch" / "hub" / "checkpoints"


def weights(tensors=40, seed=0, rows=64):
    generator = torch.Generator().manual_seed(seed)
    return {
        f"layers.{at}.attention.weight": torch.randn(rows, 16, generator=generator)
        for at in range(tensors)
    }


def safetensors(**how):
    return save(weights(**how))


def pth(tensors=40, seed=0, rows=64, content=None, **how):
    buffer = io.BytesIO()
    torch.save(weights(tensors, seed, rows) if content is None else content, buffer, **how)
    return buffer.getvalue()
