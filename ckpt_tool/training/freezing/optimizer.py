"""An optimizer that exists already, when parameters are frozen and thawed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckpt_tool.errors import InputError
from ckpt_tool.training.registered import registered_parameters
from ckpt_tool.wording import plural

if TYPE_CHECKING:
    import torch
    from torch import nn

_INITIAL = "initial_lr"
"""What schedulers note in each group when they are made."""
_REPLACED = "sharded, converted, loaded from the meta device or by `assign`"
Group = int | Mapping[str, object]
"""Where parameters go that an optimizer lacks: the number of one of its groups, or the
hyper-parameters of a new one.
"""


@dataclass(frozen=True, slots=True)
class Mended:
    """What an optimizer has of frozen parameters, and what was done to it.

    `skipped` are the keys of frozen parameters in its groups: without a gradient it passes them
    over, and keeps their state, which `states` of them have. `added` are the keys that were put
    into its groups, `is_followed` says that a scheduler of learning rates had set its groups when a
    new one was added.
    """

    skipped: tuple[str, ...] = ()
    states: int = 0
    added: tuple[str, ...] = ()
    group: int | None = None
    is_followed: bool = False

    def __str__(self) -> str:
        texts = []
        if self.skipped:
            some = plural(len(self.skipped), "frozen parameter")
            them = (
                "stays in its groups and is"
                if len(self.skipped) == 1
                else "stay in its groups and are"
            )
            texts.append(f"{some} {them} passed over, {self.states} of them with a state")
        if self.added:
            texts.append(f"{plural(len(self.added), 'parameter')} added to its group {self.group}")
        if self.is_followed:
            texts.append(
                "a scheduler of learning rates made before knows its former groups alone: make the "
                "scheduler again, with `last_epoch`, or give the number of a group"
            )
        return f"optimizer: {'; '.join(texts) or 'as it was'}"


def check_optimizer(
    optimizer: torch.optim.Optimizer,
    module: nn.Module,
    thawed: Mapping[str, nn.Parameter],
    group: Group | None,
) -> None:
    """Raises InputError for an optimizer that isn't this model's, that moves what has no gradient,
    or that has no certain group for the thawed parameters that it lacks.
    """
    from torch.optim import LBFGS

    if isinstance(getattr(optimizer, "optimizer", optimizer), LBFGS):
        fact = "is LBFGS, which moves parameters without a gradient by its history, too"
        raise InputError("optimizer", fact, "build it again from the parameters that train")
    held = _held_by(optimizer)
    if not any(id(parameter) in held for _, parameter in registered_parameters(module)):
        fact = "has no parameter of this model"
        hint = f"build it of this model's parameters, after the model is {_REPLACED}"
        raise InputError("optimizer", fact, hint)
    _check_no_old_ones(optimizer, module)
    count = len(optimizer.param_groups)
    if isinstance(group, int) and not 0 <= group < count:
        raise InputError("group", f"is {group}, and the optimizer has {plural(count, 'group')}")
    lacking = [key for key, parameter in thawed.items() if id(parameter) not in held]
    if lacking and group is None and count != 1:
        some = f"`{lacking[0]}`" + (f" and {len(lacking) - 1} more" if lacking[1:] else "")
        fact = f"has {plural(count, 'group')}, and {some} in none of them"
        hint = "give `group=`, or make it of all parameters before any is frozen"
        raise InputError("optimizer", fact, hint)


def _check_no_old_ones(optimizer: torch.optim.Optimizer, module: nn.Module) -> None:
    """Raises InputError for parameters without values that the model doesn't have: they were its
    own before a load made real ones in their place.
    """
    own = {id(parameter) for _, parameter in registered_parameters(module)}
    given = [one for group in optimizer.param_groups for one in group["params"]]
    old = sum(one.is_meta and id(one) not in own for one in given)
    if old:
        fact = (
            f"has {plural(old, 'parameter')} of the meta device that this model has not, so its "
            "steps would not reach those that were loaded"
        )
        raise InputError("optimizer", fact, "build it again, after the model is loaded")


def mend(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, nn.Parameter],
    batches: Iterable[Iterable[str]],
    group: Group | None,
) -> Mended:
    """Puts what is thawed and lacking into a group of the optimizer, batch by batch; says which of
    all `parameters` are frozen and stay.
    """
    added: list[str] = []
    index: int | None = None
    count = len(optimizer.param_groups)
    for batch in batches:
        held = _held_by(optimizer)
        lacking = {id(parameters[key]): key for key in batch if id(parameters[key]) not in held}
        if lacking:
            some = {key: parameters[key] for key in lacking.values()}
            index = _add(optimizer, some, 0 if group is None else group)
            added += some
    held = _held_by(optimizer)
    skipped = [key for key, one in parameters.items() if not one.requires_grad and id(one) in held]
    states = sum(bool(optimizer.state.get(parameters[key])) for key in skipped)
    is_new = len(optimizer.param_groups) > count
    is_followed = is_new and any(_INITIAL in each for each in optimizer.param_groups[:count])
    return Mended(tuple(skipped), states, tuple(added), index, is_followed)


def _held_by(optimizer: torch.optim.Optimizer) -> set[int]:
    return {id(one) for group in optimizer.param_groups for one in group["params"]}


def _add(
    optimizer: torch.optim.Optimizer, lacking: Mapping[str, nn.Parameter], group: Group
) -> int:
    """Adds parameters to a group, or as one; its number."""
    if not isinstance(group, int):
        is_named = any("param_names" in each for each in optimizer.param_groups)
        params = list(lacking.items()) if is_named else list(lacking.values())
        is_followed = any(_INITIAL in each for each in optimizer.param_groups)
        optimizer.add_param_group({**group, "params": params})
        group = len(optimizer.param_groups) - 1
        if is_followed:  # what a scheduler that goes on asks each group for
            new = optimizer.param_groups[group]
            new.setdefault(_INITIAL, deepcopy(new["lr"]))
    else:
        chosen = optimizer.param_groups[group]
        chosen["params"].extend(lacking.values())
        if "param_names" in chosen:
            chosen["param_names"].extend(lacking)
    _begin_states(optimizer, lacking, optimizer.param_groups[group])
    return group


def _begin_states(
    optimizer: torch.optim.Optimizer,
    added: Mapping[str, nn.Parameter],
    group: Mapping[str, object],
) -> None:
    """The states that Adagrad makes when it is built, and asks for in its steps; all others make
    theirs with the first step.
    """
    from torch.optim import Adagrad

    inner = getattr(optimizer, "optimizer", optimizer)
    if isinstance(inner, Adagrad):
        for parameter in added.values():
            if not inner.state[parameter]:
                initial = group["initial_accumulator_value"]
                twin = Adagrad([parameter], initial_accumulator_value=initial, fused=group["fused"])  # type: ignore[arg-type]
                inner.state[parameter].update(twin.state[parameter])
