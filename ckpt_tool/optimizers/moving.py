"""Where each slot of the target's parameters comes from, and through which ops; or every reason why
a state can't follow the plan.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ckpt_tool.errors import InputError, RuleError
from ckpt_tool.frozen import frozen
from ckpt_tool.mapping.plan import Plan, Step, input_forms
from ckpt_tool.ops import Cast, Copy, Op
from ckpt_tool.ops.fits import Fresh
from ckpt_tool.optimizers.following import NotFollowed, SlotMove, follow_step
from ckpt_tool.optimizers.groups import MovedGroup, group_parameters
from ckpt_tool.optimizers.kinds import Kind, UnknownKind
from ckpt_tool.optimizers.laws import NoLaw, made_of
from ckpt_tool.optimizers.refusals import Refusal, matching_any, problems_of
from ckpt_tool.optimizers.saved import STATE, Form, Path, SavedOptimizer
from ckpt_tool.optimizers.sides import Maker, Sides, sides_of
from ckpt_tool.optimizers.targets import TargetOptimizer, TargetParameter
from ckpt_tool.tensors import counted


@frozen
class SlotStep:
    """Entries of the source's state dict that become entries of the new one. Without ops the value
    at the first path is passed on as it is; an output that is None is not wanted.
    """

    inputs: tuple[Path, ...]
    outputs: tuple[Path | None, ...]
    ops: tuple[Op, ...]


@dataclass(frozen=True, repr=False)
class MovedState:
    """What becomes of an optimizer's state: `steps` in the order of the new state dict, its `form`
    and `groups`, and the target's parameters that get a state and that begin without one; `lost`
    are keys of the source whose state goes.
    """

    saved: SavedOptimizer
    steps: tuple[SlotStep, ...]
    form: Form
    groups: tuple[MovedGroup, ...]
    moved: tuple[str, ...]
    fresh: tuple[str, ...]
    lost: tuple[str, ...]

    def __str__(self) -> str:
        moved, lost = counted(len(self.moved), "state"), counted(len(self.lost), "state")
        return (
            f"{moved} of the optimizer moved, "
            f"{counted(len(self.fresh), 'parameter')} without one, {lost} dropped"
        )

    def __repr__(self) -> str:
        return (
            f"MovedState({len(self.moved)} moved, {len(self.fresh)} fresh, {len(self.lost)} lost)"
        )


def move_state(
    plan: Plan,
    saved: SavedOptimizer,
    target: TargetOptimizer | None = None,
    fresh: Sequence[str] = (),
    kind: Kind | UnknownKind | None = None,
    form: Form | None = None,
    changed: Collection[str] = (),
) -> MovedState:
    """The optimizer's state after the plan. `fresh` are patterns of the target's parameters that
    begin without a state.

    `target` is the optimizer that is to have it; without one, its parameters are those of the plan,
    in the target's order, in the groups of their sources. `kind` is the optimizer, where its groups
    don't show it; `form` is that of the new state dict, the source's without one. `changed` are
    keys of the target whose values somebody changed after the plan. Raises RuleError with every
    parameter whose state has no exact way, InputError where it is not certain which parameter is
    which.
    """
    sides = sides_of(plan, saved, target, kind, form)
    groups = group_parameters(sides)
    parameters = sides.target.parameters
    begins = matching_any(fresh, [each.name for each in parameters])
    wanted = {
        number: maker
        for number, maker in enumerate(sides.makers)
        if maker is not None and parameters[number].name not in begins and _takes(maker, sides)
    }
    refusals = [
        *_untied(sides, wanted),
        *_shared_by_several(sides, wanted),
        *_changed(sides, wanted, frozenset(changed)),
    ]
    _check_one_state(sides, wanted)
    found, more = _follow_all(sides, wanted)
    if refusals or more:
        raise RuleError(problems_of([*refusals, *more], [each.name for each in parameters]))
    steps = tuple(_slot_steps(sides, found, wanted, _ids(sides, groups)))
    moved = {
        number
        for number, maker in wanted.items()
        if any(maker.place in move.outputs for move in found.get(id(maker.step), ()))
    }
    return MovedState(
        saved,
        steps,
        sides.form,
        groups,
        tuple(each.name for number, each in enumerate(parameters) if number in moved),
        tuple(each.name for number, each in enumerate(parameters) if number not in moved),
        _lost(sides, steps),
    )


ONE_FOR_ALL = frozenset(("old_dirs", "prev_flat_grad"))
"""Slots of torch.optim.LBFGS, which keeps one state for all parameters, flat and in their order, at
the first of them.
"""


def _check_one_state(sides: Sides, wanted: Mapping[int, Maker]) -> None:
    """Raises InputError where one state is that of all parameters, and these don't stay as they
    are.
    """
    if ONE_FOR_ALL.isdisjoint(sides.saved.slots):
        return
    stay = [
        tuple(sides.sources_of(maker)) if all(isinstance(op, Cast) for op in maker.step.ops) else ()
        for maker in wanted.values()
    ]
    if stay != [(parameter,) for parameter in sides.saved.parameters]:
        raise InputError(
            sides.saved.label,
            "has one state for all parameters, and they don't stay the same in the same order",
            "begin without it",
        )


def _takes(maker: Maker, sides: Sides) -> bool:
    """Whether a parameter takes something from parameters of the optimizer."""
    has_own = any(each is not None for each in sides.sources_of(maker))
    return has_own and not any(isinstance(op, Fresh) for op in maker.step.ops)


def _follow_all(
    sides: Sides, wanted: Mapping[int, Maker]
) -> tuple[dict[int, list[SlotMove]], list[Refusal]]:
    """The moves of each step, by its identity, and what can't be followed."""
    found: dict[int, list[SlotMove]] = {}
    whys: dict[int, str] = {}
    for maker in wanted.values():
        step = maker.step
        if id(step) in found or id(step) in whys:
            continue
        try:
            found[id(step)] = follow_step(step, sides)
        except (NoLaw, NotFollowed) as error:
            whys[id(step)] = str(error)
    refusals = [
        Refusal(sides.target.parameters[number].name, whys[id(maker.step)], maker.step)
        for number, maker in wanted.items()
        if id(maker.step) in whys
    ]
    return found, refusals


def _untied(sides: Sides, wanted: Mapping[int, Maker]) -> Iterator[Refusal]:
    """Parameters that are copies of each other, or that are one and get several values."""
    owners: dict[object, int] = {}
    for number, maker in wanted.items():
        parameter = sides.target.parameters[number]
        values = [_value(sides, key) for key in parameter.keys if is_made_of_own(sides, key)]
        if any(value != values[0] for value in values):
            why = "it is one parameter, and its keys come from several, each with a state"
            yield Refusal(parameter.name, why, maker.step)
        first = owners.setdefault(values[0], number)
        if first != number:
            other = sides.target.parameters[first].name
            why = f"it is a copy of `{other}`, not tied to it, and the state is of both together"
            yield Refusal(parameter.name, why, maker.step)
            yield Refusal(
                other,
                f"`{parameter.name}` is a copy of it, and the state is of both together",
                maker.step,
            )


def is_made_of_own(sides: Sides, key: str) -> bool:
    """Whether a key's values come from parameters of the optimizer. A tied key of the source that
    was saved as a tensor of its own is none, and must be equal anyway.
    """
    made = sides.plan.producers.get(key)
    return made is not None and any(name in sides.own for name in made[0].inputs)


def _value(sides: Sides, key: str) -> object:
    """Equal for two keys that get the same elements of the same parameters."""
    step = sides.plan.producers[key][0]
    made = made_of(step.ops, input_forms(step, sides.plan.source))[step.outputs.index(key)]
    sources = tuple(id(sides.own.get(name)) for name in step.inputs)
    return sources, tuple(op for op in step.ops if not isinstance(op, Copy)), made.identity


def _shared_by_several(sides: Sides, wanted: Mapping[int, Maker]) -> Iterator[Refusal]:
    """Parameters of several steps that take one parameter of the source."""
    takers: dict[int, dict[int, int]] = defaultdict(dict)
    for number, maker in wanted.items():
        for parameter in sides.sources_of(maker):
            if parameter is not None and parameter.slots:
                takers[id(parameter)].setdefault(id(maker.step), number)
    for numbers in takers.values():
        if len(numbers) > 1:
            names = [sides.target.parameters[number].name for number in numbers.values()]
            why = f"`{names[0]}` and `{names[1]}` come from one parameter, whose state is of both"
            for number in numbers.values():
                yield Refusal(sides.target.parameters[number].name, why, wanted[number].step)


def _changed(
    sides: Sides, wanted: Mapping[int, Maker], changed: frozenset[str]
) -> Iterator[Refusal]:
    """Parameters that are not what the plan made of them."""
    for number, maker in wanted.items():
        parameter = sides.target.parameters[number]
        if not changed.isdisjoint(parameter.keys):
            why = "the model's own load hooks changed its values, in a way that is not known"
            yield Refusal(parameter.name, why, maker.step)


def _ids(sides: Sides, groups: Sequence[MovedGroup]) -> dict[str, int | str]:
    """The number or name of each of the target's parameters in the new state."""
    return {
        name: param
        for group in groups
        for name, param in zip(group.names, group.params, strict=True)
    }


def _slot_steps(
    sides: Sides,
    found: Mapping[int, Sequence[SlotMove]],
    wanted: Mapping[int, Maker],
    ids: Mapping[str, int | str],
) -> Iterator[SlotStep]:
    """In the order of the new parameters; each step where its first output stands."""
    order = {name: place for place, name in enumerate(ids)}
    by_step: dict[int, list[tuple[TargetParameter, int, Step]]] = defaultdict(list)
    for number, maker in wanted.items():
        by_step[id(maker.step)].append((sides.target.parameters[number], maker.place, maker.step))
    for key, members in sorted(
        by_step.items(), key=lambda item: min(order[each[0].name] for each in item[1])
    ):
        places = {place: parameter for parameter, place, _ in members}
        for move in found[key]:
            yield from _slot_step(sides, move, places, ids)


def _slot_step(
    sides: Sides,
    move: SlotMove,
    places: Mapping[int, TargetParameter],
    ids: Mapping[str, int | str],
) -> Iterator[SlotStep]:
    outputs = [
        _path(sides, ids[places[place].name], move.suffix) if place in places else None
        for place in move.outputs
    ]
    if move.ops:
        if any(outputs):
            yield SlotStep(move.inputs, tuple(outputs), move.ops)
        return
    for path in outputs:  # a value for several: each has its own
        if path is not None:
            yield SlotStep(move.inputs[:1], (path,), ())


def _path(sides: Sides, param: int | str, suffix: Path) -> Path:
    if sides.form == "flat":
        return (".".join(map(str, (STATE, param, *suffix))),)
    return (STATE, param, *suffix)


def _lost(sides: Sides, steps: Sequence[SlotStep]) -> tuple[str, ...]:
    """Keys of the source's parameters whose state nothing takes."""
    taken = {path for step in steps for path in step.inputs}
    left: dict[int, str] = {}
    for key, parameter in sides.own.items():
        if parameter.slots and not any(slot.path in taken for slot in parameter.slots.values()):
            left.setdefault(id(parameter), key)
    return tuple(left.values())
