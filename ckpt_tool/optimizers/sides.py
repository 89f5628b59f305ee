"""What a state moves between: the optimizer as it was saved with the keys of its parameters, the
plan, and the parameters that are to have the state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ckpt_tool.errors import InputError
from ckpt_tool.frozen import frozen
from ckpt_tool.mapping.plan import Plan, Step
from ckpt_tool.optimizers.kinds import Kind, UnknownKind, recognise
from ckpt_tool.optimizers.naming import keys_of_parameters
from ckpt_tool.optimizers.saved import Form, SavedOptimizer, SavedParameter
from ckpt_tool.optimizers.targets import TargetOptimizer, TargetParameter, target_of_plan


@frozen
class Maker:
    """What gives a parameter of the target its values: a step, and the place among its outputs."""

    step: Step
    place: int


@frozen
class Sides:
    """The optimizer's parameters by all keys that they have in the source, and the target's with
    what makes each; None for one that keeps its own values.

    `kind` is the optimizer, or why it is not known; `form` is that of the new state dict.
    """

    plan: Plan
    saved: SavedOptimizer
    own: Mapping[str, SavedParameter]
    target: TargetOptimizer
    makers: tuple[Maker | None, ...]
    kind: Kind | UnknownKind
    form: Form

    def sources_of(self, maker: Maker | None) -> list[SavedParameter | None]:
        """The optimizer's parameters that a step takes, each place; none for a parameter that keeps
        its values.
        """
        return [self.own.get(key) for key in maker.step.inputs] if maker else []

    def hyper_parameters(self, parameter: SavedParameter) -> Mapping[str, object]:
        """Those of the parameter's group."""
        return self.saved.groups[parameter.group]


def sides_of(
    plan: Plan,
    saved: SavedOptimizer,
    target: TargetOptimizer | None,
    kind: Kind | UnknownKind | None,
    form: Form | None = None,
) -> Sides:
    """The two sides. Raises InputError where it is not certain which parameter is which."""
    kind = kind or recognise(saved.groups, saved.slots)
    form = form or saved.form
    keys = _keys(plan, saved, target, kind)
    target = target or target_of_plan(plan, saved.label, form, keys)
    own = _by_every_key(plan, dict(zip(keys, saved.parameters, strict=bool(keys))))
    makers = [_maker(plan, parameter, own) for parameter in target.parameters]
    if target.groups is None:
        pairs = zip(target.parameters, makers, strict=True)
        trained = [(each, maker) for each, maker in pairs if _is_trained(maker, own)]
        target = TargetOptimizer(tuple(each for each, _ in trained))
        makers = [maker for _, maker in trained]
    return Sides(
        plan,
        saved,
        own,
        target,
        tuple(makers),
        kind,
        form,
    )


def _keys(
    plan: Plan,
    saved: SavedOptimizer,
    target: TargetOptimizer | None,
    kind: Kind | UnknownKind,
) -> Sequence[str]:
    """The parameters' keys; none where it doesn't matter, since nothing has a state."""
    try:
        return keys_of_parameters(saved, plan.source, kind)
    except InputError:
        if target is None or saved.slots:
            raise
        return ()


def _by_every_key(plan: Plan, own: Mapping[str, SavedParameter]) -> Mapping[str, SavedParameter]:
    """The parameters, also by the keys of the source that are tied to theirs."""
    first = {plan.source[key].tied_to or key: parameter for key, parameter in own.items()}
    return {
        key: first[info.tied_to or key]
        for key, info in plan.source.items()
        if (info.tied_to or key) in first
    }


def _is_trained(maker: Maker | None, own: Mapping[str, SavedParameter]) -> bool:
    """Whether an optimizer like the source's has a parameter: not one that comes from what the
    source's has not, as frozen ones.
    """
    if maker is None or not maker.step.inputs:
        return True
    return any(name in own for name in maker.step.inputs)


def _maker(
    plan: Plan, parameter: TargetParameter, own: Mapping[str, SavedParameter]
) -> Maker | None:
    """The step that makes it; of several, which tied keys may have, the first that takes a
    parameter of the optimizer.
    """
    found = [
        Maker(step, step.outputs.index(key))
        for key in parameter.keys
        if key in plan.producers
        for step in (plan.producers[key][0],)
    ]
    of_own = (each for each in found if any(name in own for name in each.step.inputs))
    return next(of_own, found[0] if found else None)
