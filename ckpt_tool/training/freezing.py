"""Freezing by key: parameters take no gradient, and running statistics stay as they are even while the model trains."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ckpt_tool.errors import Problem, RuleError
from ckpt_tool.keys import Matcher, PatternError, nearest, parse
from ckpt_tool.training.live import unwrapped

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class Frozen:
    """The parameters that take no gradient any more, and the modules whose running statistics stand still."""

    parameters: tuple[str, ...]
    modules: tuple[str, ...]

    def __str__(self) -> str:
        return f"{len(self.parameters)} parameters frozen, running statistics of {len(self.modules)} modules held"


def freeze(model: nn.Module, *patterns: str, first: int | None = None) -> Frozen:
    """Freezes the keys that match any of the patterns, or the first so many keys of the state dict.

    Raises RuleError for a pattern that matches no key, ValueError when neither or both are given, or `first` is too large.
    """
    module = unwrapped(model)
    keys = list(module.state_dict())
    if any(not isinstance(pattern, str) for pattern in patterns) or not isinstance(first, int | None):
        raise ValueError("freeze(model, 'backbone.**', 'neck.*'): patterns are texts, one after the other; `first` is an integer")
    if bool(patterns) is (first is not None):
        raise ValueError("freeze(model, 'backbone.**') or freeze(model, first=100), one of the two")
    if first is not None:
        if not 0 <= first <= len(keys):
            raise ValueError(f"first={first}, but the model has {len(keys)} keys")
        return freeze_keys(module, keys[:first])
    return freeze_keys(module, dict.fromkeys(key for pattern in patterns for key in _matching(pattern, keys)))


def _matching(pattern: str, keys: list[str]) -> list[str]:
    try:
        matcher = Matcher(parse(pattern))
    except PatternError as error:
        raise RuleError([Problem("bad-pattern", f"`{pattern}`: {error.message}")]) from None
    found = [key for key in keys if matcher.match(key) is not None]
    if not found:
        near = nearest(pattern, keys)
        raise RuleError([Problem("dead-rule", f"`{pattern}` matches no key of the model", None, (f"nearest key: {near}",) if near else ())])
    return found


def freeze_keys(module: nn.Module, keys: Iterable[str]) -> Frozen:
    """Freezes exactly these keys of a module's state dict."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    wanted = list(keys)
    frozen = [key for key in wanted if key in parameters]
    for key in frozen:
        parameters[key].requires_grad_(False)
    owners = dict.fromkeys(path for path, _, name in (key.rpartition(".") for key in wanted) if name.startswith("running_"))
    for path in owners:
        _hold_statistics(module.get_submodule(path))
    return Frozen(tuple(frozen), tuple(owners))


def _hold_statistics(module: nn.Module) -> None:
    """Keeps a normalisation in eval mode: it uses its running statistics and doesn't update them."""
    module.train = partial(_train_children, module)  # type: ignore[method-assign]
    module.training = False


def _train_children(module: nn.Module, mode: bool = True) -> nn.Module:
    module.training = False
    for child in module.children():
        child.train(mode)
    return module
