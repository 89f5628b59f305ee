"""Values into the tensors of a live module, wherever these lie; what can't be filled is known
before anything is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ckpt_tool.errors import InputError
from ckpt_tool.torch_bridge import (
    identity_of,
    is_distributed,
    is_wrapper,
    local_part,
    memory_of,
    odd_kind,
)
from ckpt_tool.training.snapshots import Snapshot

if TYPE_CHECKING:
    import torch
    from torch import nn


class LiveTensors:
    """A module's tensors by the keys of its state dict."""

    def __init__(self, module: nn.Module) -> None:
        self._name = type(module).__name__
        self._by_key: Mapping[str, torch.Tensor] = module.state_dict(keep_vars=True)
        self._places: dict[object, list[tuple[nn.Module, str]]] = defaultdict(list)
        """Where a tensor of the meta device is to be replaced: every module and name that has it,
        or has it as another object.
        """
        self._views: dict[object, set[object]] = defaultdict(set)
        """The ways in which the module's tensors see each storage."""
        self.replaced: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        """Tensors of the meta device, by their identity, with what stands in their places."""
        for owner in module.modules():
            for name, tensor in [*owner._parameters.items(), *owner._buffers.items()]:
                if tensor is not None and not odd_kind(tensor):
                    self._views[memory_of(tensor)].add(identity_of(tensor))
                    if tensor.is_meta:
                        self._places[identity_of(tensor)].append((owner, name))

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
        """Why a tensor can't be filled, and what to do; None where it can."""
        import torch

        if kind := odd_kind(tensor):
            return (
                f"is {kind}, and can't be filled",
                "load before the model is made sparse or quantised, or keep it",
            )
        if is_wrapper(local_part(tensor)):
            return (
                f"is a {type(tensor).__name__}, which only its own class can fill",
                "load before the model is quantised or wrapped",
            )
        if memory_of(tensor) not in self._views:
            fact = (
                "is made anew whenever the state dict is asked for, so that what is "
                "written to it is lost"
            )
            return fact, "load before the model is sharded, quantised or wrapped"
        if tensor.is_inference() and not torch.is_inference_mode_enabled():
            return (
                "was made in inference mode, and can't be written",
                "build the model outside of torch.inference_mode()",
            )
        if _is_expanded(tensor):
            return (
                "is an expanded tensor, whose elements are one in memory",
                "give the model a tensor of its own: `.expand(…).clone()`",
            )
        if tensor.is_meta and len(self._views[memory_of(tensor)]) > 1:
            fact = (
                "lies over other tensors of the model, which can't be kept up where there "
                "is no memory yet"
            )
            return fact, "build the model on a device, not on meta"
        return None

    def fill(self, current: torch.Tensor, value: torch.Tensor, is_own: bool) -> None:
        """Copies a value into a tensor of the module, on its device; one on the meta device is
        replaced, tied ones by one.

        `is_own` says that nothing else has the value's memory, so that it needn't be copied.
        """
        import torch

        if current.is_meta:
            self._replace(current, _for_meta(value, current, is_own))
            return
        if is_distributed(current):
            value = _in_parts(value.to(current.dtype), current)
        if current.is_inference():
            with torch.inference_mode():
                current.copy_(value)
        else:
            current.copy_(value)

    def try_fill(self, current: torch.Tensor, value: torch.Tensor, undo: ExitStack) -> None:
        """The same for a tensor whose class may refuse it, which raises InputError; `undo` gets
        what puts everything back.
        """
        undo.callback(Snapshot([current]).restore)
        for owner, name in self._places[identity_of(current)] if current.is_meta else ():
            undo.callback(setattr, owner, name, getattr(owner, name))
        try:
            self.fill(current, value, is_own=False)
        except Exception as error:
            key = next(key for key, tensor in self._by_key.items() if tensor is current)
            fact = (
                f"`{key}` is a {type(current).__name__}, which can't be filled: "
                f"{type(error).__name__}: {error}"
            )
            raise InputError(
                self._name, fact, "keep it, or load before the model has it"
            ) from error

    def _replace(self, current: torch.Tensor, value: torch.Tensor) -> None:
        for owner, name in self._places[identity_of(current)]:
            tensor = getattr(owner, name)
            if id(tensor) not in self.replaced:
                self.replaced[id(tensor)] = tensor, _like(tensor, value)
            setattr(owner, name, self.replaced[id(tensor)][1])


def has_own_class(tensor: torch.Tensor) -> bool:
    """Whether a tensor's class answers torch's functions itself, and so may refuse what is written
    to it.
    """
    import torch
    from torch import nn

    kinds = (
        kind for kind in type(tensor).__mro__ if kind not in (torch.Tensor, nn.Parameter, nn.Buffer)
    )
    return any("__torch_function__" in vars(kind) for kind in kinds) and not is_wrapper(tensor)


def _for_meta(value: torch.Tensor, like: torch.Tensor, is_own: bool) -> torch.Tensor:
    """The value as a tensor of the meta device would have it: its dtype, its layout, and memory
    that is no one else's.
    """
    import torch

    value = value.to(like.dtype)
    if is_distributed(like):
        return _in_parts(
            value if is_own else value.clone(memory_format=torch.contiguous_format), like
        )
    if is_own and value.stride() == like.stride():
        return value
    return torch.empty_like(like, device=value.device).copy_(value)


def _like(tensor: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """A value as the parameter or buffer that stood there: of its class, and with what others noted
    on it.
    """
    import torch
    from torch import nn

    if type(tensor) in (torch.Tensor, nn.Parameter) or is_distributed(tensor):
        new = (
            nn.Parameter(value, requires_grad=tensor.requires_grad)
            if isinstance(tensor, nn.Parameter)
            else value
        )
    else:
        new = value.as_subclass(type(tensor)).requires_grad_(tensor.requires_grad)
    if not is_distributed(tensor):
        vars(new).update(vars(tensor))
    return new


def _in_parts(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A value with its parts where those of a distributed tensor are; the first process gives all
    others theirs.
    """
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    return distribute_tensor(
        value.to(like.device_mesh.device_type), like.device_mesh, like.placements
    )


def _is_expanded(tensor: torch.Tensor) -> bool:
    """Whether several of its elements are one in memory."""
    if is_distributed(tensor):
        return False
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    return any(size > 1 and step == 0 for size, step in steps)
