"""Freezing by key: parameters take no gradient, and running statistics stay as they are even while
the model trains.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckpt_tool.errors import InputError, Problem, RuleError
from ckpt_tool.keys import Matcher, PatternError, nearest, parse
from ckpt_tool.training.holding import hold_in_eval
from ckpt_tool.training.live import EXTRA_STATE, unwrapped

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True, repr=False)
class Frozen:
    """The parameters that take no gradient any more, and the modules whose running statistics stand
    still.
    """

    parameters: tuple[str, ...]
    modules: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Frozen({len(self.parameters)} parameters, {len(self.modules)} modules)"

    def __str__(self) -> str:
        return (
            f"{len(self.parameters)} parameters frozen, "
            f"running statistics of {len(self.modules)} modules held"
        )


def freeze(model: nn.Module, *patterns: str, first: int | None = None) -> Frozen:
    """Freezes the keys that match any of the patterns, or the first so many keys of the state dict.

    Parameters take no gradient, and normalisations whose running statistics are frozen stay in eval
    mode, also after `model.train()`. Raises RuleError for a pattern that matches no key, ValueError
    when neither or both are given, or `first` is too large.

    >>> import ckpt_tool, torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8))
    >>> frozen = ckpt_tool.freeze(model, "0.**", "1.running_*")
    >>> frozen
    Frozen(2 parameters, 1 modules)
    >>> frozen.parameters, model.train()[1].training
    (('0.weight', '0.bias'), False)
    """
    module = unwrapped(model)
    keys = list(module.state_dict())
    _check_arguments(patterns, first, len(keys))
    if first is not None:
        return freeze_keys(module, keys[:first])
    return freeze_keys(
        module, dict.fromkeys(key for pattern in patterns for key in _matching(pattern, keys))
    )


def _check_arguments(patterns: Sequence[object], first: object, keys: int) -> None:
    """Raises ValueError where what is to be frozen isn't said in one of the two ways."""
    if not (all(isinstance(each, str) for each in patterns) and isinstance(first, int | None)):
        raise ValueError(
            "freeze(model, 'backbone.**', 'neck.*'): patterns are texts, one after the other; "
            "`first` is an integer"
        )
    if bool(patterns) is (first is not None):
        raise ValueError("freeze(model, 'backbone.**') or freeze(model, first=100), one of the two")
    if first is not None and not 0 <= first <= keys:
        raise ValueError(f"first={first}, but the model has {keys} keys")


def _matching(pattern: str, keys: list[str]) -> list[str]:
    try:
        matcher = Matcher(parse(pattern))
    except PatternError as error:
        notes = (error.hint,) if error.hint else ()
        raise RuleError(
            [Problem("bad-pattern", f"`{pattern}`: {error.message}", None, notes)]
        ) from None
    found = [key for key in keys if matcher.match(key) is not None]
    if not found:
        near = nearest(pattern, keys)
        raise RuleError(
            [
                Problem(
                    "dead-rule",
                    f"`{pattern}` matches no key of the model",
                    None,
                    (f"nearest key: {near}",) if near else (),
                )
            ]
        )
    return found


def freeze_keys(module: nn.Module, keys: Iterable[str]) -> Frozen:
    """Freezes exactly these keys of a module's state dict. Raises InputError for one that stands
    for no parameter and no buffer.

    Nothing is frozen then. Gradients of what is frozen go: an optimizer would go on stepping by
    them.
    """
    state = module.state_dict(keep_vars=True)
    # By the tensors themselves: a state dict may have other names for them than the modules.
    parameters = {id(parameter): parameter for parameter in module.parameters()}
    buffers = _buffers_of(module)
    wanted = [(key, id(state[key])) for key in keys if key.rpartition(".")[2] != EXTRA_STATE]
    known = parameters.keys() | buffers.keys()
    strange = (key for key, tensor in wanted if tensor not in known)
    if (key := next(strange, None)) is not None:
        fact = f"`{key}` can't be frozen: the state dict has a tensor of its own for it"
        raise InputError(type(module).__name__, fact)
    found = [buffers[tensor] for _, tensor in wanted if tensor in buffers]
    owners = _owners_of_statistics(module, found)
    frozen = [key for key, tensor in wanted if tensor in parameters]
    for key in frozen:
        parameters[id(state[key])].requires_grad_(False).grad = None
    for owner in owners.values():
        hold_in_eval(owner)
    return Frozen(tuple(frozen), tuple(owners))


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
    """The modules whose running statistics are among these buffers, by their paths. Raises
    InputError for one of TorchScript.
    """
    from torch.jit import ScriptModule

    modules = dict(module.named_modules())
    owners = {path: modules[path] for path, name in buffers if name.startswith("running_")}
    for path, owner in owners.items():
        if isinstance(owner, ScriptModule):
            fact = f"`{path}` is TorchScript, whose statistics can't be held"
            raise InputError(type(module).__name__, fact, "freeze, then script")
    return owners
