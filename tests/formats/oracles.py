"""What torch and safetensors say of a file, held against what `open_checkpoint` says."""

from collections.abc import Mapping
from pathlib import Path

import torch

from ckpt_tool.formats import Checkpoint, open_checkpoint
from ckpt_tool.tensors import TORCH_NAMES
from ckpt_tool.torch_bridge import tensor_info, to_bytes


def assert_agrees(path: Path | str, expected: Mapping[str, torch.Tensor]) -> None:
    """The same keys in the same order, the same dtypes and shapes, and the same bytes, read both ways."""
    with open_checkpoint(str(path)) as checkpoint:
        assert list(checkpoint.catalog) == list(expected)
        for key, tensor in expected.items():
            assert_same_tensor(checkpoint, key, tensor)


def assert_same_tensor(checkpoint: Checkpoint, key: str, tensor: torch.Tensor) -> None:
    info, wanted = checkpoint.catalog[key], tensor_info(key, tensor)
    assert (info.dtype, info.shape) == (wanted.dtype, wanted.shape), key
    assert checkpoint.raw(key) == bytes(to_bytes(tensor)), key
    assert b"".join(checkpoint.chunks(key, 7)) == bytes(to_bytes(tensor)), key
    read = checkpoint.read(key)
    assert (read.dtype, read.shape) == (tensor.dtype, tensor.shape), key


def every_dtype(*names: str) -> list[torch.dtype]:
    """All that this torch has; the last ones came with 2.7 and 2.8."""
    return [getattr(torch, name) for name in names or TORCH_NAMES.values() if hasattr(torch, name)]


def filled(dtype: torch.dtype, *shape: int, seed: int = 0) -> torch.Tensor:
    """A contiguous tensor of arbitrary bytes (0 and 1 where they are truth values)."""
    count = torch.Size(shape).numel() * dtype.itemsize
    raw = (torch.arange(count, dtype=torch.int64) * 37 + seed * 11 + 5) % (2 if dtype is torch.bool else 251)
    return raw.to(torch.uint8).view(dtype).reshape(shape) if count else torch.empty(shape, dtype=dtype)
