"""The state of a live optimizer after a plan: its tensors moved, for an optimizer that knows the
model that was loaded into.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import TYPE_CHECKING, Any, TypeAlias

from ckpt_tool.errors import InputError
from ckpt_tool.formats import Checkpoint
from ckpt_tool.mapping.plan import Plan
from ckpt_tool.optimizers import (
    MovedGroup,
    MovedState,
    SavedOptimizer,
    TargetOptimizer,
    move_state,
    read_optimizer,
    with_names,
)
from ckpt_tool.optimizers.naming import pairing_note
from ckpt_tool.optimizers.saved import GROUPS, NAMES, PARAMS, STATE, Form, Path
from ckpt_tool.optimizers.targets import of_model
from ckpt_tool.training.live import unwrapped
from ckpt_tool.training.optimizers.filling import LABEL, fill, form_of, holds_parameters
from ckpt_tool.training.optimizers.owner import (
    check_order,
    is_optimizer,
    kind_of,
    owned_entries,
    target_of,
)
from ckpt_tool.training.optimizers.reading import opened_state
from ckpt_tool.wording import type_text

if TYPE_CHECKING:
    import torch
    from torch import nn

Given: TypeAlias = (
    "Mapping[str, object] | torch.optim.Optimizer | str | os.PathLike[str] | Checkpoint"
)
"""A state dict, an optimizer that has one, or a checkpoint in which one is."""


class OptimizerState(dict[str, Any]):
    """A state dict for `optimizer.load_state_dict`, and in `moved` what became of every parameter.

    `print` gives the counts and the notes; saved, it is a plain OrderedDict.
    """

    def __init__(
        self, entries: Mapping[str, object], moved: MovedState, notes: Sequence[str]
    ) -> None:
        super().__init__(entries)
        self.moved, self.notes = moved, tuple(notes)

    def __str__(self) -> str:
        return "\n".join([str(self.moved), *(f"note: {note}" for note in self.notes)])

    def __repr__(self) -> str:
        return f"OptimizerState({self.moved})"

    def __reduce__(self) -> tuple[object, ...]:
        # Of a class that `torch.load(weights_only=True)` knows; `dict` itself it doesn't.
        return OrderedDict, (), None, None, iter(self.items())


def optimizer_state(
    plan: Plan,
    given: Given,
    model: nn.Module | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    fresh: Sequence[str] = (),
    names: Sequence[str] | Sequence[Sequence[str]] | None = None,
    form: Form | None = None,
    changed: Collection[str] = (),
    parameters: Sequence[tuple[str, ...]] = (),
) -> OptimizerState:
    """The state of the source's optimizer, for `optimizer`, whose parameters are the model's.

    `names` are the source's parameters in the order of its model, or group by group in that of its
    optimizer, where which is which is not certain without them. `form` is that of the result:
    numbers for `optimizer.load_state_dict`, which is so without it for what is read from a file,
    names or flat for `set_optimizer_state_dict`; else it is the source's.

    `changed` are keys of the model whose values are not those of the plan, `parameters` all keys of
    each of its parameters, in its order. A checkpoint's slots are read one step at a time.

    Raises RuleError with every parameter whose state has no exact way, InputError where it is not
    certain which parameter is which, or where the two are different optimizers.
    """
    with _opened(given) as (label, state_dict):
        saved = read_optimizer(state_dict, form_of, label)
        saved = saved if names is None else with_names(saved, names)
        if isinstance(given, str | os.PathLike | Checkpoint):
            form = form or "ids"
        target = of_model(parameters)
        if optimizer is None and model is not None:
            check_order(unwrapped(model), parameters)
        if optimizer is not None:
            target = target_of(optimizer, model, plan)
        kind = kind_of(saved, given, optimizer)
        moved = move_state(plan, saved, target, fresh, kind, form, changed)
        entries = _entries(saved, moved, target, state_dict)
        homes = {} if optimizer is None or target is None else _homes(optimizer, target, moved)
        fill(
            entries, moved.steps, state_dict, is_optimizer(given), lambda path: homes.get(path[:2])
        )
        paired = pairing_note(saved, plan.source, kind)
        own = owned_entries(optimizer)
        notes = (*((paired,) if paired else ()), *_notes(saved, moved, target, own))
        return OptimizerState(entries, moved, notes)


def _entries(
    saved: SavedOptimizer,
    moved: MovedState,
    target: TargetOptimizer | None,
    given: Mapping[str, object],
) -> dict[str, object]:
    """The new state dict without any slots: its groups, and what else was beside them. Raises
    InputError for tensors there.
    """
    first = (lambda key: key.partition(".")[0]) if saved.form == "flat" else str
    others = {key: value for key, value in given.items() if first(key) not in (STATE, GROUPS)}
    for key, value in others.items():
        if holds_parameters(value):
            fact = f"has tensors beside the state, in `{key}`, which would stay what they are"
            raise InputError(saved.label, fact, "are they copies of the parameters? leave them out")
    if moved.form == "flat":
        return others | _flat_groups(saved, moved)
    return others | {STATE: {}, GROUPS: _groups(saved, moved, target)}


def _homes(
    optimizer: torch.optim.Optimizer, target: TargetOptimizer, moved: MovedState
) -> Mapping[Path, torch.Tensor]:
    """The optimizer's parameters by the place of their states, where that goes by numbers; states
    by names stay as they were saved, since `set_optimizer_state_dict` cuts them itself.
    """
    if moved.form != "ids":
        return {}
    tensors = [parameter for group in optimizer.param_groups for parameter in group[PARAMS]]
    by_name = {one.name: tensor for one, tensor in zip(target.parameters, tensors, strict=True)}
    return {
        (STATE, param): by_name[name]
        for group in moved.groups
        for param, name in zip(group.params, group.names, strict=True)
    }


@contextmanager
def _opened(given: Given) -> Iterator[tuple[str, Mapping[str, object]]]:
    """What messages call it, and the state dict that it is or has."""
    if isinstance(given, str | os.PathLike | Checkpoint):
        with opened_state(given) as found:
            yield found
    elif isinstance(given, Mapping):
        yield LABEL, given
    elif hasattr(given, "state_dict"):
        yield LABEL, given.state_dict()
    else:
        fact, hint = f"is {type_text(given)}", "a state dict, an optimizer, or a path"
        raise InputError(LABEL, fact, f"give {hint}")


def _groups(
    saved: SavedOptimizer, moved: MovedState, target: TargetOptimizer | None
) -> list[dict[str, object]]:
    nothing: Mapping[str, object] = {}
    own = (target.groups if target else None) or [nothing] * len(moved.groups)
    return [
        {**entries, **_entries_of(saved, moved, group), PARAMS: list(group.params)}
        for entries, group in zip(own, moved.groups, strict=True)
    ]


def _entries_of(saved: SavedOptimizer, moved: MovedState, group: MovedGroup) -> dict[str, object]:
    """A copy of what the source's group has besides its parameters, with their names where it has
    names.
    """
    if group.source is None:
        return {}
    entries = deepcopy(dict(saved.groups[group.source]))
    if moved.form == "ids" and group.source in saved.named_groups:
        entries[NAMES] = list(group.names)
    return entries


def _flat_groups(saved: SavedOptimizer, moved: MovedState) -> dict[str, object]:
    return {
        f"{GROUPS}.{name}.{entry}": value
        for group in moved.groups
        for name in group.names
        for entry, value in _entries_of(saved, moved, group).items()
    }


def _notes(
    saved: SavedOptimizer,
    moved: MovedState,
    target: TargetOptimizer | None,
    owned: Mapping[str, str],
) -> Iterator[str]:
    """What a reader should know of the groups: which entries are the source's, and differ from the
    optimizer's own, and which parameters no group has. `owned` are the entries that the optimizer
    sets itself when it loads, with the class that does it.
    """
    grouped = {name for group in moved.groups for name in group.names}
    left = [
        one.name for one in (target.parameters if target else ()) if grouped.isdisjoint(one.keys)
    ]
    if left:
        are = "1 parameter is" if len(left) == 1 else f"{len(left)} parameters are"
        some = ", ".join(f"`{name}`" for name in left[:3]) + (" …" if len(left) > 3 else "")
        yield f"{are} in no group, as in the source's optimizer: {some}"
    groups = (target.groups if target else None) or ()
    for place, (own, group) in enumerate(zip(groups, moved.groups, strict=False)):
        given = {} if group.source is None else saved.groups[group.source]
        odd = [name for name in own if name in given and not _equal(own[name], given[name])]
        for name in odd:
            values = [str(value)[:40] for value in (given[name], own[name])]
            yield (
                f"group {place}: `{name}` is {values[0]} in the source, and stays {values[1]}: "
                f"{owned[name]} sets it when it loads"
                if name in owned
                else f"group {place}: `{name}` is {values[0]}, as in the source (here {values[1]})"
            )


def _equal(one: object, other: object) -> bool:
    try:
        return bool(one == other)
    except (RuntimeError, ValueError):
        return False
