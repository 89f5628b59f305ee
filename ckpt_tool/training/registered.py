"""A module's own tensors, whatever its overrides of `parameters`, `named_parameters` and
`state_dict` give or take.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ckpt_tool.torch_bridge import identity_of, odd_kind

if TYPE_CHECKING:
    import torch
    from torch import nn


def registered(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """All parameters and buffers with their names, as the modules have them, tied ones by each."""
    for path, owner in module.named_modules():
        for name, tensor in (*owner._parameters.items(), *owner._buffers.items()):
            if tensor is not None:
                yield (f"{path}.{name}" if path else name), tensor


def registered_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """All parameters, tied ones by each of their names, in the order of torch's own
    `named_parameters`.
    """
    for path, owner in module.named_modules(remove_duplicate=False):
        for name, parameter in owner._parameters.items():
            if parameter is not None:
                yield (f"{path}.{name}" if path else name), parameter


def has_own_parameters(module: nn.Module) -> bool:
    """Whether it gives its parameters in a way of its own, some or in another order perhaps."""
    from torch import nn

    names = ("parameters", "named_parameters")
    return any(
        getattr(type(module), name) is not getattr(nn.Module, name) or name in vars(module)
        for name in names
    )


def own_state(module: nn.Module) -> Mapping[str, torch.Tensor]:
    """The state dict with the module's own tensors, also of one whose `state_dict` takes no
    arguments.
    """
    method = module.state_dict
    try:
        inspect.signature(method).bind(keep_vars=True)
    except (TypeError, ValueError):
        return _with_own_tensors(module, method())
    return method(keep_vars=True)


def _with_own_tensors(
    module: nn.Module, state: Mapping[str, torch.Tensor]
) -> Mapping[str, torch.Tensor]:
    """The same with the module's tensors in the place of others that show their memory."""
    import torch

    own = {identity_of(tensor): tensor for _, tensor in registered(module) if not odd_kind(tensor)}
    new: OrderedDict[str, torch.Tensor] = OrderedDict()
    for key, value in state.items():
        is_plain = isinstance(value, torch.Tensor) and not odd_kind(value)
        new[key] = own.get(identity_of(value), value) if is_plain else value
    new._metadata = getattr(state, "_metadata", {})  # type: ignore[attr-defined]
    return new
