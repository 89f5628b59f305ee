"""Freezing by key, and thawing: parameters take no gradient, and running statistics stay as they
are even while the model trains; until they may.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckpt_tool.errors import InputError
from ckpt_tool.torch_bridge import is_wrapper, local_part
from ckpt_tool.training.freezing.holding import check_holdable, hold_in_eval, is_held, release
from ckpt_tool.training.freezing.noting import forget, hold_again, lost_text, note
from ckpt_tool.training.freezing.optimizer import Group, Mended, check_optimizer, mend
from ckpt_tool.training.freezing.selection import Selected, matching, selected
from ckpt_tool.training.freezing.wrapped import check_wrapped
from ckpt_tool.training.live import unwrapped
from ckpt_tool.wording import plural, type_text

if TYPE_CHECKING:
    import torch
    from torch import nn


_NO_FLOATS = ("are not floats", "stay as they are")


@dataclass(frozen=True, slots=True, repr=False)
class Frozen:
    """The parameters that take no gradient any more, and the modules whose running statistics stand
    still; what an optimizer that was given has of them. `lost` are modules that had been held, and
    were not any more: other code has rebuilt them, or they were unpickled; they are held again.
    """

    parameters: tuple[str, ...]
    modules: tuple[str, ...]
    optimizer: Mended | None = None
    lost: tuple[str, ...] = ()

    def __repr__(self) -> str:
        modules = plural(len(self.modules), "module")
        return f"Frozen({plural(len(self.parameters), 'parameter')}, {modules})"

    def __str__(self) -> str:
        modules = plural(len(self.modules), "module")
        text = f"{plural(len(self.parameters), 'parameter')} frozen, {modules} kept in eval mode"
        lines = [text, *([lost_text(self.lost)] if self.lost else [])]
        return "\n".join([*lines, *([str(self.optimizer)] if self.optimizer else [])])


@dataclass(frozen=True, slots=True, repr=False)
class Thawed:
    """The parameters that take gradients again, and the modules whose running statistics move
    again; `already` counts the parameters that took gradients before, `left` are parameters whose
    numbers can have no gradient, `lost` modules that had been held, and were not any more.
    """

    parameters: tuple[str, ...]
    modules: tuple[str, ...]
    left: tuple[str, ...] = ()
    optimizer: Mended | None = None
    already: int = 0
    lost: tuple[str, ...] = ()

    def __repr__(self) -> str:
        modules = plural(len(self.modules), "module")
        return f"Thawed({plural(len(self.parameters), 'parameter')}, {modules})"

    def __str__(self) -> str:
        before = f" ({self.already} of them trained already)" if self.already else ""
        lines = [
            f"{plural(len(self.parameters), 'parameter')} thawed{before}, "
            f"{plural(len(self.modules), 'module')} no longer kept in eval mode"
        ]
        if self.left:
            some = f"`{self.left[0]}`" + (" …" if self.left[1:] else "")
            are, stay = ("is not a float", "stays as it is") if len(self.left) == 1 else _NO_FLOATS
            lines.append(f"{plural(len(self.left), 'parameter')} {are}, and {stay}: {some}")
        lines += [lost_text(self.lost)] if self.lost else []
        return "\n".join([*lines, *([str(self.optimizer)] if self.optimizer else [])])


def freeze(
    model: nn.Module,
    *patterns: str,
    first: int | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> Frozen:
    """Freezes the keys that match any of the patterns, or the first so many keys of the state dict.

    Parameters take no gradient, and normalisations whose running statistics are frozen stay in eval
    mode, also after `model.train()`. Existing gradients are dropped, so that an `optimizer` built
    before skips the parameters; if it is given, it is checked, and the result says which of them it
    has. Raises RuleError for a pattern that matches no key, ValueError when neither or both
    are given, or `first` is too large, InputError where an optimizer or DistributedDataParallel
    would go wrong.

    >>> import ckpt_tool, torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8))
    >>> frozen = ckpt_tool.freeze(model, "0.**", "1.running_*")
    >>> frozen
    Frozen(2 parameters, 1 module)
    >>> frozen.parameters, model.train()[1].training
    (('0.weight', '0.bias'), False)
    """
    keys = list(unwrapped(model).state_dict())
    _check_arguments(patterns, first, len(keys))
    if first is not None:
        return freeze_keys(model, keys[:first], optimizer)
    return freeze_keys(model, _matching_any(patterns, keys), optimizer)


def thaw(
    model: nn.Module,
    *patterns: str,
    optimizer: torch.optim.Optimizer | None = None,
    group: Group | None = None,
) -> Thawed:
    """Lets the keys that match any of the patterns train again: parameters take gradients, and
    normalisations whose running statistics match use the batch's statistics again and update their
    own, with the momentum that they had.

    An `optimizer` that has the parameters already goes on with the state that it kept. Those that
    it lacks go into its only group, or into `group`: the number of one, or the hyper-parameters of
    a new one. Raises RuleError for a pattern that matches no key, ValueError without a pattern,
    InputError where an optimizer or DistributedDataParallel would go wrong.

    >>> import ckpt_tool, torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8))
    >>> frozen = ckpt_tool.freeze(model, "**")
    >>> ckpt_tool.thaw(model, "1.**")
    Thawed(2 parameters, 1 module)
    >>> model[1].training, model[0].weight.requires_grad
    (True, False)
    """
    if not patterns or not all(isinstance(each, str) for each in patterns):
        raise ValueError("thaw(model, 'layer4.**', 'neck.*'): patterns are texts; '**' is all")
    module = unwrapped(model)
    found = selected(module, _matching_any(patterns, list(module.state_dict())))
    _, thawed = change(model, Selected(), found, optimizer, group)
    if thawed.left and not thawed.parameters and not thawed.modules:
        one = found.parameters[thawed.left[0]]
        fact = f"`{thawed.left[0]}` is {type_text(one)} of {one.dtype}, with no gradient"
        raise InputError(type(module).__name__, fact)
    return thawed


def freeze_keys(
    model: nn.Module, keys: Iterable[str], optimizer: torch.optim.Optimizer | None = None
) -> Frozen:
    """Freezes exactly these keys of a module's state dict. Raises InputError for one that stands
    for no parameter and no buffer.

    Nothing is frozen then.
    """
    return change(model, selected(unwrapped(model), keys), Selected(), optimizer, None)[0]


def change(
    model: nn.Module,
    frozen: Selected,
    thawed: Selected,
    optimizer: torch.optim.Optimizer | None,
    group: Group | None,
    batches: Iterable[Iterable[str]] | None = None,
) -> tuple[Frozen, Thawed]:
    """Freezes the one and thaws the other, in the optimizer, too; what it lacks is added in these
    batches of keys.

    All is checked before the first change. Gradients of what is frozen go: an optimizer would go on
    stepping by them.
    """
    module = unwrapped(model)
    starting, left = _with_gradients(thawed.parameters)
    check_wrapped(model, frozen.parameters, starting)
    if optimizer is not None:
        check_optimizer(optimizer, module, starting, group)
    for path, owner in frozen.owners.items():
        check_holdable(path, owner)
    for parameter in frozen.parameters.values():
        parameter.requires_grad_(False).grad = None
    already = sum(parameter.requires_grad for parameter in starting.values())
    for parameter in starting.values():
        parameter.requires_grad_(True)
    lost = hold_again(module)
    for path, owner in frozen.owners.items():
        hold_in_eval(owner)
        note(module, path, owner)
    for path, owner in thawed.owners.items():
        release(owner, _parent_of(module, path))
    forget(module, thawed.owners)
    mended = None
    if optimizer is not None:
        batches = [starting] if batches is None else batches
        kept = [[key for key in batch if key in starting] for batch in batches]
        mended = mend(optimizer, frozen.parameters | starting, kept, group)
    return (
        Frozen(tuple(frozen.parameters), tuple(frozen.owners), mended, lost),
        Thawed(tuple(starting), tuple(thawed.owners), left, mended, already, lost),
    )


def _parent_of(module: nn.Module, path: str) -> nn.Module | None:
    """The nearest module around it whose mode is its own."""
    while path:
        path = path.rpartition(".")[0]
        parent = module.get_submodule(path)
        if not is_held(parent):
            return parent
    return None


def _with_gradients(
    parameters: Mapping[str, nn.Parameter],
) -> tuple[dict[str, nn.Parameter], tuple[str, ...]]:
    """Those that can have a gradient, and the keys of the others."""
    able = {key: one for key, one in parameters.items() if _can_have_gradient(one)}
    return able, tuple(key for key in parameters if key not in able)


def _can_have_gradient(parameter: nn.Parameter) -> bool:
    """Whether its numbers are floats; those of quantised classes, which call themselves floats, are
    codes of a byte and less.
    """
    part = local_part(parameter)
    if not (part.dtype.is_floating_point or part.dtype.is_complex):
        return False
    if not is_wrapper(part) or not hasattr(part, "__tensor_flatten__"):
        return True
    names, _ = part.__tensor_flatten__()
    return all(getattr(part, name).element_size() > 1 for name in names)


def _check_arguments(patterns: Sequence[object], first: object, keys: int) -> None:
    """Raises ValueError where what is to be frozen isn't said in one of the two ways."""
    count = None if first is None else whole_number(first)
    if not all(isinstance(each, str) for each in patterns) or (count is None) is not (
        first is None
    ):
        raise ValueError(
            "freeze(model, 'backbone.**', 'neck.*'): patterns are texts, one after the other; "
            "`first` is an integer"
        )
    if bool(patterns) is (first is not None):
        raise ValueError("freeze(model, 'backbone.**') or freeze(model, first=100), one of the two")
    if count is not None and not 0 <= count <= keys:
        raise ValueError(f"first={first}, but the model has {keys} keys")


def whole_number(value: object) -> int | None:
    """An integer of any library; None for what is none, or is True or False."""
    try:
        return None if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def _matching_any(patterns: Sequence[str], keys: list[str]) -> dict[str, None]:
    return dict.fromkeys(key for pattern in patterns for key in matching(pattern, keys))
