"""The state of a live optimizer after a plan: its tensors moved, for an optimizer that knows the
model that was loaded into.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from ckpt_tool.errors import InputError, Problem, RuleError
from ckpt_tool.mapping.plan import Plan
from ckpt_tool.ops import OpError, TensorForm, run_chain
from ckpt_tool.optimizers import (
    Kind,
    MovedGroup,
    MovedState,
    SavedOptimizer,
    SlotStep,
    TargetOptimizer,
    TargetParameter,
    UnknownKind,
    kind_of_class,
    move_state,
    read_optimizer,
    recognise,
    with_names,
)
from ckpt_tool.optimizers.saved import GROUPS, NAMES, PARAMS, STATE, Path
from ckpt_tool.tensors import shape_text
from ckpt_tool.torch_bridge import is_distributed, tensor_info
from ckpt_tool.training.live import unwrapped

if TYPE_CHECKING:
    import torch
    from torch import nn

LABEL = "the optimizer's state"


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
    given: Mapping[str, object] | torch.optim.Optimizer,
    model: nn.Module | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    fresh: Sequence[str] = (),
    names: Sequence[str] | None = None,
) -> OptimizerState:
    """The state of the source's optimizer, for `optimizer`, whose parameters are the model's.

    `names` are the source's keys in the order of its optimizer's parameters, where that is not
    certain without them.

    Raises RuleError with every parameter whose state has no exact way, InputError where it is not
    certain which parameter is which, or where the two are different optimizers.
    """
    state_dict: object = given
    is_live = False
    kind: Kind | UnknownKind | None = None
    if hasattr(given, "param_groups") and hasattr(given, "state_dict"):
        kind = kind_of_class(*step_of(given))
        state_dict, is_live = given.state_dict(), True
    saved = read_optimizer(state_dict, _form_of, LABEL)
    saved = saved if names is None else with_names(saved, names)
    assert isinstance(state_dict, Mapping)
    target = None if optimizer is None else _target(optimizer, model, plan)
    kind = _one_kind(saved, kind, optimizer)
    moved = move_state(plan, saved, target, fresh, kind)
    entries: dict[str, object] = {
        key: value for key, value in state_dict.items() if key not in (STATE, GROUPS)
    }
    if saved.form == "flat":
        entries = _flat_entries(saved, moved, state_dict)
    else:
        entries |= {STATE: {}, GROUPS: _groups(saved, moved, target, state_dict)}
    _fill(entries, moved.steps, state_dict, is_live)
    return OptimizerState(entries, moved, tuple(_notes(saved, moved, target)))


def step_of(optimizer: object) -> tuple[str, str]:
    """The package and the class whose `step` an optimizer has, inside of what accelerate, Lightning
    and the like put around it.
    """
    while (inner := getattr(optimizer, "optimizer", None)) is not None and hasattr(inner, "step"):
        optimizer = inner
    step = inspect.unwrap(type(optimizer).step)  # type: ignore[attr-defined]
    return step.__module__.partition(".")[0], step.__qualname__.split(".")[-2]


def _form_of(value: object) -> TensorForm | None:
    import torch

    if not isinstance(value, torch.Tensor):
        return None
    info = tensor_info("", value)
    return TensorForm(info.dtype, info.shape)


def _one_kind(
    saved: SavedOptimizer,
    given: Kind | UnknownKind | None,
    optimizer: torch.optim.Optimizer | None,
) -> Kind | UnknownKind | None:
    """The optimizer by its class, where there is one. Raises InputError for two that differ."""
    if optimizer is None:
        return given
    kind = kind_of_class(*step_of(optimizer))
    recognised = given or recognise(saved.groups, saved.slots)
    known = isinstance(kind, Kind) and isinstance(recognised, Kind)
    if known and _name(recognised) != _name(kind):
        name = type(optimizer).__name__
        raise InputError(
            LABEL, f"is one of {_name(recognised)}, the optimizer is {name}", "give one of its kind"
        )
    return kind


def _name(kind: Kind | UnknownKind) -> str:
    return kind.name if isinstance(kind, Kind) else ""


def _target(
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


def _keys_of_parameters(module: nn.Module, plan: Plan) -> dict[int, list[str]]:
    """All keys of each parameter, those of the plan first."""
    keys: dict[int, list[str]] = {}
    state = module.state_dict(keep_vars=True)
    named = module.named_parameters(remove_duplicate=False)
    for key, tensor in (*state.items(), *named):
        found = keys.setdefault(id(tensor), [])
        if key not in found:
            found.append(key)
    known = plan.target if plan.target is not None else plan.producers
    return {each: sorted(found, key=lambda key: key not in known) for each, found in keys.items()}


def _groups(
    saved: SavedOptimizer,
    moved: MovedState,
    target: TargetOptimizer | None,
    state_dict: Mapping[str, object],
) -> list[dict[str, object]]:
    given = state_dict[GROUPS]
    assert isinstance(given, list | tuple)
    return [
        {
            **(target.groups[place] if target and target.groups else {}),
            **_entries_of(given, group),
            PARAMS: list(group.params),
        }
        for place, group in enumerate(moved.groups)
    ]


def _entries_of(given: Sequence[Mapping[str, object]], group: MovedGroup) -> dict[str, object]:
    """A copy of what the source's group has besides its parameters."""
    if group.source is None:
        return {}
    entries = {key: value for key, value in given[group.source].items() if key != PARAMS}
    if NAMES in entries:
        entries[NAMES] = list(group.names)
    return deepcopy(entries)


def _flat_entries(
    saved: SavedOptimizer, moved: MovedState, given: Mapping[str, object]
) -> dict[str, object]:
    others = {
        key: value for key, value in given.items() if key.partition(".")[0] not in (STATE, GROUPS)
    }
    for group in moved.groups:
        if group.source is not None:
            for entry, value in saved.groups[group.source].items():
                others[f"{GROUPS}.{group.names[0]}.{entry}"] = deepcopy(value)
    return others


def _fill(
    entries: dict[str, object],
    steps: Sequence[SlotStep],
    given: Mapping[str, object],
    is_live: bool,
) -> None:
    """Puts what the steps give into the new state dict; no two entries have one memory, nor any
    that of an optimizer that is live.
    """
    seen = {path for step in steps for path in step.inputs} if is_live else set()
    for step in steps:
        values = _run(step, given) if step.ops else [_own(step, given, seen)]
        for path, value in zip(step.outputs, values, strict=True):
            if path is not None:
                _put(entries, path, value)


def _own(step: SlotStep, given: Mapping[str, object], seen: set[Path]) -> object:
    """A value that is passed on, as it is the first time; a copy then."""
    path = step.inputs[0]
    value = _get(given, path)
    if path in seen:
        return deepcopy(value)
    seen.add(path)
    return value


def _run(step: SlotStep, given: Mapping[str, object]) -> list[torch.Tensor]:
    import torch

    tensors = [_tensor(given, path) for path in step.inputs]
    device = tensors[0].device
    with torch.no_grad(), torch.device("cpu"):
        try:
            results = run_chain(step.ops, [tensor.detach().cpu() for tensor in tensors])
        except OpError as error:
            raise RuleError([_different(step, tensors, error)]) from None
        return [
            result.to(device).clone(memory_format=torch.contiguous_format) for result in results
        ]


def _tensor(given: Mapping[str, object], path: Path) -> torch.Tensor:
    import torch

    value = _get(given, path)
    assert isinstance(value, torch.Tensor)
    if is_distributed(value):
        fact = (
            f"`{'.'.join(map(str, path))}` is a part of a distributed tensor, which ops would cut"
        )
        raise InputError(LABEL, fact, "gather it first: StateDictOptions(full_state_dict=True)")
    return value


def _different(step: SlotStep, tensors: Sequence[torch.Tensor], error: OpError) -> Problem:
    """What is said of values that must be equal and aren't."""
    output = next(".".join(map(str, path[1:])) for path in step.outputs if path is not None)
    values = [f"{t.item():g}" for t in tensors if t.numel() == 1]
    shown = f": {', '.join(dict.fromkeys(values))}" if values else ""
    message = (
        f"`{output}` would be made of several that differ{shown}"
        if values
        else f"`{output}`: {error}"
    )
    return Problem("optimizer-state", message, None, ("fresh=[…] begins without a state there",))


def _get(given: Mapping[str, object], path: Path) -> object:
    value: object = given
    for part in path:
        assert isinstance(value, Mapping)
        value = value[part]
    return value


def _put(entries: dict[str, object], path: Path, value: object) -> None:
    *outer, last = path
    inside: dict[object, object] = entries  # type: ignore[assignment]
    for part in outer:
        inside = inside.setdefault(part, {})  # type: ignore[assignment]
    inside[last] = value


def _notes(
    saved: SavedOptimizer, moved: MovedState, target: TargetOptimizer | None
) -> Iterator[str]:
    """What a reader should know of the groups: which entries are the source's, and differ from the
    optimizer's own.
    """
    groups = (target.groups if target else None) or ()
    for place, (own, group) in enumerate(zip(groups, moved.groups, strict=False)):
        given = {} if group.source is None else saved.groups[group.source]
        odd = [name for name in own if name in given and not _equal(own[name], given[name])]
        for name in odd:
            yield f"group {place}: `{name}` is {given[name]}, as in the source (here {own[name]})"


def _equal(one: object, other: object) -> bool:
    try:
        return bool(one == other)
    except (RuntimeError, ValueError):
        return False
