"""The parameters that an optimizer has after the plan, in the order of their numbers, and the group
of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ckpt_tool.errors import InputError
from ckpt_tool.frozen import frozen
from ckpt_tool.mapping.plan import Plan
from ckpt_tool.optimizers.naming import in_module_order, may_be_trained
from ckpt_tool.optimizers.saved import Form


@frozen
class TargetParameter:
    """A parameter of the target: all keys that it has (tied weights have several), and the place of
    its group; None where its source says.
    """

    keys: tuple[str, ...]
    group: int | None = None

    @property
    def name(self) -> str:
        """The first of its keys."""
        return self.keys[0]


@frozen
class TargetOptimizer:
    """The target's parameters, in the order of the optimizer that is to have the state.

    `groups` are its own groups' entries, where there is such an optimizer; else the source's groups
    are kept, and `parameters` are all of the model, of which the source's optimizer may have a
    part.
    """

    parameters: tuple[TargetParameter, ...]
    groups: tuple[Mapping[str, object], ...] | None = None


def of_model(parameters: Sequence[tuple[str, ...]]) -> TargetOptimizer | None:
    """A model's parameters, by all keys of each, in no optimizer yet; None where there are none."""
    found = tuple(TargetParameter(keys) for keys in parameters)
    return TargetOptimizer(found) if found else None


def target_of_plan(plan: Plan, label: str, form: Form, keys: Sequence[str]) -> TargetOptimizer:
    """The parameters in the order of the target's keys, or without one in that of the source's
    optimizer: those that come from the optimizer's own
    (`keys`), and fresh ones that may be trained.

    Raises InputError for a target whose keys are not in a model's order, where the state goes by
    numbers.
    """
    if plan.target is not None and not in_module_order(plan.target) and form == "ids":
        raise InputError(
            label,
            "the order of the target's parameters is not known: its keys are sorted",
            "give a target that keeps the model's order (.pth, or package.module:function)",
        )
    if plan.target is None and form == "ids":
        _check_order(plan, label, keys)
    trained = {plan.source[key].tied_to or key for key in keys} | set(keys)
    found: dict[object, list[str]] = {}
    for key in plan.outputs:
        if (identity := _identity(plan, key, trained)) is not None:
            found.setdefault(identity, []).append(key)
    parameters = [TargetParameter(tuple(each)) for each in found.values()]
    if plan.target is None:
        parameters.sort(key=lambda each: _first_source(plan, each.name, keys))
    return TargetOptimizer(tuple(parameters))


def _check_order(plan: Plan, label: str, keys: Sequence[str]) -> None:
    """Raises InputError where one parameter becomes several: which numbers these have, only the new
    model tells (`q.weight, q.bias, k.weight, …` or another order).
    """
    own = set(keys)
    for step in plan.steps:
        if len(step.outputs) > 1 and own.intersection(step.inputs):
            raise InputError(
                label,
                f"`{step.inputs[0]}` becomes {len(step.outputs)} parameters, and without a target "
                "their numbers in the new model's optimizer are not known",
                "give the new model as target: package.module:function, or a .pth of it",
            )


def _first_source(plan: Plan, key: str, keys: Sequence[str]) -> int:
    """Where the first of the parameters that a key is made of stands; behind all for one that is
    made of none.
    """
    places = {plan.source[each].tied_to or each: place for place, each in enumerate(keys)}
    inputs = plan.producers[key][0].inputs
    found = [places.get(plan.source[name].tied_to or name, len(keys)) for name in inputs]
    return min(found, default=len(keys))


def _identity(plan: Plan, key: str, trained: set[str]) -> object:
    """What two keys of one parameter have in common; None for what no optimizer has."""
    if plan.target is not None:
        first = plan.target[key].tied_to or key
        if key not in plan.producers:
            info = plan.target.get(first) or plan.target[key]
            return first if may_be_trained(info) else None
    step, info = plan.producers[key]
    sources = [plan.source[name].tied_to or name for name in step.inputs]
    if not step.inputs:
        return key if may_be_trained(info) else None
    if not any(source in trained for source in sources):
        return None
    return plan.identities[key] if plan.target is None else first
