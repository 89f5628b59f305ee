"""The tensors that a place in a network concerns: by which rule each came, and whether it is what
the rule makes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ckpt_tool.mapping.apply import apply_step
from ckpt_tool.tracing.comparing import Row
from ckpt_tool.tracing.exact import distance_of

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ckpt_tool.mapping.plan import Plan, Step


@dataclass(frozen=True, slots=True)
class Concerned:
    """A tensor of the second network: the source's keys that it is made of, the ops, and the rule;
    none for one that no rule maps.
    """

    key: str
    sources: tuple[str, ...]
    ops: tuple[str, ...]
    rule: str


def concerned_by(plan: Plan, compared: Collection[str], row: Row) -> list[Concerned]:
    """The tensors in a module that are in no module inside of it whose outputs are `compared`:
    those can be blamed by themselves.
    """
    prefix = f"{row.other}." if row.other else ""
    inner = [f"{path}." for path in compared if path != row.other and path.startswith(prefix)]
    found = []
    for key in plan.outputs:
        if key.startswith(prefix) and not any(key.startswith(each) for each in inner):
            found.append(_concerned(plan, key))
    return found


def _concerned(plan: Plan, key: str) -> Concerned:
    if key not in plan.producers:
        return Concerned(key, (), (), "")
    step = plan.producers[key][0]
    rule = step.origin.rule
    where = (
        f"{rule.where.file}:{rule.where.line} `{rule.text}`"
        if rule is not None
        else f"by {step.origin.by}"
    )
    return Concerned(key, step.inputs, tuple(op.name for op in step.ops), where)


def _same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def wrong_weights(
    plan: Plan, one: nn.Module, other: nn.Module, concerned: Sequence[Concerned]
) -> Iterator[str]:
    """Which of these tensors are not what the plan makes of the first network's."""
    source, target = one.state_dict(), other.state_dict()
    for step in _steps_of(plan, concerned):
        if any(_valueless(step, source, target)):
            continue
        own = target[step.outputs[0]]
        made = apply_step(step, [source[key].cpu() for key in step.inputs], partial(_same, own))
        for key, value in zip(step.outputs, made, strict=True):
            apart = distance_of([value.to(target[key].dtype)], [target[key]])
            if apart is None or apart.relative > 0:
                by = f"relative difference {apart.relative:.2g}" if apart else "another shape"
                yield f"`{key}` is not what the plan makes of `{step.inputs[0]}`: {by}"


def unread_weights(
    plan: Plan, one: nn.Module, other: nn.Module, concerned: Sequence[Concerned]
) -> list[str]:
    """What is to be said of these tensors where they, or what they are made of, have no values
    outside of forward: they are offloaded.
    """
    source, target = one.state_dict(), other.state_dict()
    steps = _steps_of(plan, concerned)
    names = list(dict.fromkeys(key for step in steps for key in _valueless(step, source, target)))
    if not names:
        return []
    more = f" and {len(names) - 1} more have" if names[1:] else " has"
    return [f"not compared: {names[0]}{more} no values outside of forward (offloaded, on meta)"]


def _valueless(
    step: Step, source: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor]
) -> Iterator[str]:
    """The tensors of a step that are on the meta device."""
    yield from (f"`{key}` of the first network" for key in step.inputs if source[key].is_meta)
    yield from (f"`{key}` of the second network" for key in step.outputs if target[key].is_meta)


def _steps_of(plan: Plan, concerned: Sequence[Concerned]) -> list[Step]:
    """The steps that make these tensors, each once."""
    steps = [plan.producers[each.key][0] for each in concerned if each.sources]
    return list({id(step): step for step in steps}.values())
