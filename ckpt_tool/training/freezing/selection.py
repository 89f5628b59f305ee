"""Which parameters and which normalisations the keys of a state dict stand for."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ckpt_tool.errors import InputError, Problem, RuleError
from ckpt_tool.keys import Matcher, PatternError, meant_note, parse
from ckpt_tool.training.live import EXTRA_STATE
from ckpt_tool.training.registered import own_state, registered_parameters

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class Selected:
    """Parameters by their keys, and modules whose running statistics are meant, by their paths."""

    parameters: dict[str, nn.Parameter] = field(default_factory=dict)
    owners: dict[str, nn.Module] = field(default_factory=dict)


def matching(pattern: str, keys: Sequence[str]) -> list[str]:
    """The keys that match a pattern. Raises RuleError where none does."""
    try:
        matcher = Matcher(parse(pattern))
    except PatternError as error:
        notes = (error.hint,) if error.hint else ()
        raise RuleError(
            [Problem("bad-pattern", f"`{pattern}`: {error.message}", None, notes)]
        ) from None
    found = [key for key in keys if matcher.match(key) is not None]
    if not found:
        note = meant_note(pattern, keys)
        message = f"`{pattern}` matches no key of the model"
        raise RuleError([Problem("dead-rule", message, None, (note,) if note else ())])
    return found


def selected(module: nn.Module, keys: Iterable[str]) -> Selected:
    """What the keys stand for. Raises InputError for one that stands for no parameter and no
    buffer, and for statistics of TorchScript.
    """
    state = own_state(module)
    # By the tensors themselves: a state dict may have other names for them than the modules.
    parameters = {id(parameter): parameter for _, parameter in registered_parameters(module)}
    buffers = _buffers_of(module)
    wanted = [(key, id(state[key])) for key in keys if key.rpartition(".")[2] != EXTRA_STATE]
    known = parameters.keys() | buffers.keys()
    own = {key for key, tensor in state.items() if id(tensor) in parameters}
    # What quantised parameters have beside their codes (`weight.absmax`) is a part of them.
    strange = (key for key, tensor in wanted if tensor not in known and not _is_below(key, own))
    if (key := next(strange, None)) is not None:
        fact = f"`{key}` can't be frozen or thawed: the state dict has a tensor of its own for it"
        raise InputError(type(module).__name__, fact)
    found = [buffers[tensor] for _, tensor in wanted if tensor in buffers]
    owners = _owners_of_statistics(module, found)
    return Selected(
        {key: parameters[tensor] for key, tensor in wanted if tensor in parameters}, owners
    )


def _is_below(key: str, keys: Container[str]) -> bool:
    parts = key.split(".")
    return any(".".join(parts[:count]) in keys for count in range(1, len(parts)))


def reachable_keys(module: nn.Module) -> list[str]:
    """The keys of the state dict that stand for parameters and buffers of the modules."""
    known = {id(one) for _, one in registered_parameters(module)} | _buffers_of(module).keys()
    state = own_state(module)
    return [key for key, tensor in state.items() if id(tensor) in known]


def _buffers_of(module: nn.Module) -> dict[int, tuple[str, str]]:
    """The path and the name of each buffer, by the tensor's identity."""
    return {
        id(buffer): (path, name)
        for path, owner in module.named_modules()
        for name, buffer in owner._buffers.items()
        if buffer is not None
    }


def _owners_of_statistics(
    module: nn.Module, buffers: Iterable[tuple[str, str]]
) -> dict[str, nn.Module]:
    """The modules whose running statistics, or estimates of a spectral norm, are among these
    buffers, by their paths. Raises InputError for one of TorchScript.
    """
    from torch.jit import ScriptModule

    modules = dict(module.named_modules())
    owners = {
        path: modules[path]
        for path, name in buffers
        if name.startswith("running_") or _is_spectral(modules[path], name)
    }
    for path, owner in owners.items():
        if isinstance(owner, ScriptModule):
            fact = f"`{path}` is TorchScript, whose statistics can't be held"
            raise InputError(type(module).__name__, fact, "freeze, then script")
    return owners


def _is_spectral(owner: nn.Module, name: str) -> bool:
    """Whether a buffer is what torch's spectral norm changes in training: that of its
    parametrization, or of its hook on a layer that training changes in nothing else.
    """
    from torch import nn
    from torch.nn.modules.conv import _ConvNd
    from torch.nn.utils.parametrizations import _SpectralNorm
    from torch.nn.utils.spectral_norm import SpectralNorm

    if isinstance(owner, _SpectralNorm):
        return name in ("_u", "_v")
    if not isinstance(owner, nn.Linear | nn.Bilinear | nn.Embedding | _ConvNd):
        return False
    hooks = [each for each in owner._forward_pre_hooks.values() if isinstance(each, SpectralNorm)]
    return any(name in (f"{each.name}_u", f"{each.name}_v") for each in hooks)
