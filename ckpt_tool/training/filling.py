"""Values into the tensors of a live module, wherever these lie; what can't be filled is known before anything is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ckpt_tool.errors import InputError
from ckpt_tool.torch_bridge import is_distributed, memory_of

if TYPE_CHECKING:
    import torch
    from torch import nn


class Tensors:
    """A module's tensors by the keys of its state dict."""

    def __init__(self, module: nn.Module) -> None:
        self._name = type(module).__name__
        self._by_key: Mapping[str, torch.Tensor] = module.state_dict(keep_vars=True)
        self._places: dict[int, list[tuple[nn.Module, str]]] = defaultdict(list)
        """Where a tensor of the meta device is to be replaced: every module and name that has it."""
        self._memory = set()
        for owner in module.modules():
            for name, tensor in [*owner._parameters.items(), *owner._buffers.items()]:
                if tensor is not None:
                    self._memory.add(memory_of(tensor))
                    if tensor.is_meta:
                        self._places[id(tensor)].append((owner, name))

    def __getitem__(self, key: str) -> torch.Tensor:
        return self._by_key[key]

    def check(self, keys: Iterable[str]) -> None:
        """Raises InputError for a tensor that can't be filled."""
        for key in keys:
            tensor = self._by_key[key]
            why = self._obstacle(tensor) if tensor.numel() else None
            if why:
                raise InputError(self._name, f"`{key}` {why[0]}", why[1])

    def _obstacle(self, tensor: torch.Tensor) -> tuple[str, str] | None:
        import torch

        if memory_of(tensor) not in self._memory:
            fact = "is made anew whenever the state dict is asked for, so that what is written to it is lost"
            return fact, "load before the model is sharded, quantised or wrapped"
        if tensor.is_inference() and not torch.is_inference_mode_enabled():
            return "was made in inference mode, and can't be written", "build the model outside of torch.inference_mode()"
        if not is_distributed(tensor) and any(size > 1 and step == 0 for size, step in zip(tensor.shape, tensor.stride(), strict=True)):
            return "is an expanded tensor, whose elements are one in memory", "give the model a tensor of its own: `.expand(…).clone()`"
        return None

    def fill(self, key: str, value: torch.Tensor) -> None:
        """Copies a value into a tensor, on its device; a tensor on the meta device is replaced, tied ones by one."""
        from torch import nn

        current = self._by_key[key]
        if is_distributed(current):
            value = _in_parts(value.to(current.dtype), current)
        if not current.is_meta:
            current.copy_(value)
            return
        is_parameter = isinstance(current, nn.Parameter)
        value = value.to(current.dtype)
        new = nn.Parameter(value, requires_grad=current.requires_grad) if is_parameter else value
        for owner, name in self._places[id(current)]:
            setattr(owner, name, new)


def _in_parts(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A value with its parts where those of a distributed tensor are; the first process gives all others theirs."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    return distribute_tensor(value.to(like.device_mesh.device_type), like.device_mesh, like.placements)
