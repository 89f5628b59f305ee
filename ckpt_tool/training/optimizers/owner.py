"""The optimizer that is to have the state: which class it is, and its parameters under the model's
keys.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ckpt_tool.errors import InputError
from ckpt_tool.mapping.plan import Plan
from ckpt_tool.optimizers import (
    Kind,
    SavedOptimizer,
    TargetOptimizer,
    TargetParameter,
    UnknownKind,
    kind_of_class,
    recognise,
)
from ckpt_tool.optimizers.saved import NAMES, PARAMS
from ckpt_tool.tensors import shape_text
from ckpt_tool.training.live import keys_by_parameter, keys_of_parameters, unwrapped
from ckpt_tool.training.registered import has_own_parameters
from ckpt_tool.wording import plural

if TYPE_CHECKING:
    import torch
    from torch import nn


def target_of(
    optimizer: torch.optim.Optimizer, model: nn.Module | None, plan: Plan
) -> TargetOptimizer:
    """The optimizer's parameters under the model's keys, in its order."""
    name = type(optimizer).__name__
    if model is None:
        raise InputError(
            name, "goes by numbers", "give the model as well: optimizer_state(…, model, optimizer)"
        )
    module = unwrapped(model)
    keys = _keys_of_parameters(module, plan)
    parameters = []
    for place, group in enumerate(optimizer.param_groups):
        for parameter in group[PARAMS]:
            if id(parameter) not in keys:
                shape = shape_text(tuple(parameter.shape))
                fact = f"has a parameter ({shape}) that {type(module).__name__} has not"
                raise InputError(name, fact, "make the optimizer after loading, of this model")
            parameters.append(TargetParameter(tuple(keys[id(parameter)]), place))
    groups = tuple(
        {key: value for key, value in group.items() if key not in (PARAMS, NAMES)}
        for group in optimizer.param_groups
    )
    return TargetOptimizer(tuple(parameters), groups)


def check_order(module: nn.Module, parameters: Sequence[tuple[str, ...]]) -> None:
    """Raises InputError for a model whose own `parameters()` gives others by now than when it was
    loaded, or in another order: which numbers an optimizer of it has is then not known.
    """
    if not has_own_parameters(module) or not parameters:
        return
    now = keys_of_parameters(module)
    if now != tuple(parameters):
        fact = (
            f"gives {plural(len(now), 'parameter')} by its own `parameters()`, and gave "
            f"{len(parameters)} when it was loaded"
            if len(now) != len(parameters)
            else "gives its parameters in another order than when it was loaded"
        )
        hint = "give the optimizer as well: optimizer_state(…, model, optimizer)"
        raise InputError(type(module).__name__, fact, hint)


def is_optimizer(value: object) -> bool:
    """Whether it is an optimizer, or something around one that can give its state."""
    return hasattr(value, "param_groups") and hasattr(value, "state_dict")


def owned_entries(optimizer: torch.optim.Optimizer | None) -> dict[str, str]:
    """What of its groups an optimizer sets itself, whatever it loads, with the class that does."""
    from torch.optim import AdamW

    is_adamw = isinstance(getattr(optimizer, "optimizer", optimizer), AdamW)
    return {"decoupled_weight_decay": "AdamW"} if is_adamw else {}


def class_of_step(optimizer: object) -> tuple[str, str]:
    """The package and the class whose `step` an optimizer has, inside of what accelerate, Lightning
    and the like put around it.
    """
    while (inner := getattr(optimizer, "optimizer", None)) is not None and hasattr(inner, "step"):
        optimizer = inner
    step = inspect.unwrap(type(optimizer).step)  # type: ignore[attr-defined]
    owner = step.__qualname__.rpartition(".")[0].rpartition(".")[2]
    name = owner if owner.isidentifier() else type(optimizer).__name__
    return step.__module__.partition(".")[0], name


def kind_of(
    saved: SavedOptimizer, given: object, optimizer: torch.optim.Optimizer | None
) -> Kind | UnknownKind:
    """The optimizer by its class, where it or the source's (`given`) is one; else by its groups and
    slots. Raises InputError for two that differ.
    """
    recognised = recognise(saved.groups, saved.slots)
    if is_optimizer(given):
        recognised = kind_of_class(*class_of_step(given), recognised)
    if optimizer is None:
        return recognised
    kind = kind_of_class(*class_of_step(optimizer), recognised)
    known = isinstance(kind, Kind) and isinstance(recognised, Kind)
    if known and _name(recognised) != _name(kind):
        name = type(optimizer).__name__
        raise InputError(
            saved.label,
            f"is one of {_name(recognised)}, the optimizer is {name}",
            "give one of its kind",
        )
    return kind


def _name(kind: Kind | UnknownKind) -> str:
    return kind.name if isinstance(kind, Kind) else ""


def _keys_of_parameters(module: nn.Module, plan: Plan) -> dict[int, list[str]]:
    """All keys of each parameter by its identity, those of the plan first."""
    known = plan.target if plan.target is not None else plan.producers
    return {
        identity: sorted(keys, key=lambda key: key not in known)
        for identity, keys in keys_by_parameter(module).items()
    }
