"""Whether a tensor's strides give several of its elements one place in memory."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

from ckpt_tool.torch_bridge import is_distributed

if TYPE_CHECKING:
    import torch

MAX_COUNTED = 1 << 20
"""Elements of a tensor with strange strides that are counted one by one; a larger one is taken to
overlap.
"""


def overlaps_itself(tensor: torch.Tensor) -> bool:
    """Whether several of its elements are one in memory."""
    if is_distributed(tensor):
        return False
    steps = sorted(
        (abs(step), size)
        for size, step in zip(tensor.shape, tensor.stride(), strict=True)
        if size > 1
    )
    reach, may_overlap = 0, False
    for step, size in steps:
        may_overlap |= step <= reach
        reach += step * (size - 1)
    count = prod(size for _, size in steps)
    if not may_overlap or count > min(reach + 1, MAX_COUNTED):
        return may_overlap
    return _distinct(steps) < count


def _distinct(steps: Sequence[tuple[int, int]]) -> int:
    """How many elements of memory a tensor of these strides and sizes has."""
    offsets = {0}
    for step, size in steps:
        if step:
            offsets = {offset + step * index for offset in offsets for index in range(size)}
    return len(offsets)
