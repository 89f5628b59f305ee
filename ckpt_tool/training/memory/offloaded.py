"""Modules whose values another library keeps elsewhere, and puts in before each forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn


def offloaded(module: nn.Module) -> Iterator[torch.Tensor]:
    """The tensors on the meta device whose values accelerate keeps in the map of a hook
    (`cpu_offload`, `disk_offload`, `dispatch_model`): what is loaded in their place is overwritten.
    """
    for owner in module.modules():
        for hook in _hooks_of(vars(owner).get("_hf_hook")):
            if getattr(hook, "offload", False) and getattr(hook, "weights_map", None) is not None:
                inside = owner.modules() if getattr(hook, "place_submodules", False) else (owner,)
                yield from (each for part in inside for each in _on_meta(part))


def _hooks_of(hook: object) -> Iterator[object]:
    """A hook, or all that a sequential one has."""
    inner = getattr(hook, "hooks", None)
    if isinstance(inner, list | tuple):
        for each in inner:
            yield from _hooks_of(each)
    elif hook is not None:
        yield hook


def _on_meta(module: nn.Module) -> Iterator[torch.Tensor]:
    for tensor in (*module._parameters.values(), *module._buffers.values()):
        if tensor is not None and tensor.is_meta:
            yield tensor
