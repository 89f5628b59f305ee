"""Moving elements of any type: torch lacks many kernels for the small floats, which move as
integers of their size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def moved(
    tensors: Sequence[torch.Tensor], move: Callable[[list[torch.Tensor]], list[torch.Tensor]]
) -> list[torch.Tensor]:
    """The result of `move`, which must only move elements of one type; it sees small floats as
    bytes.
    """
    import torch

    dtype = tensors[0].dtype
    if not (dtype.is_floating_point and dtype.itemsize == 1):
        return move(list(tensors))
    return [
        tensor.view(dtype)
        for tensor in move([tensor.contiguous().view(torch.uint8) for tensor in tensors])
    ]
