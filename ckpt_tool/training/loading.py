"""A plan into a live module, tensor by tensor, and the report of what arrived."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from ckpt_tool.errors import InputError, Problem, RuleError
from ckpt_tool.mapping.apply import apply_step
from ckpt_tool.mapping.plan import Plan, Step
from ckpt_tool.mapping.ties import tied_with, ties, value_of
from ckpt_tool.tensors import Catalog
from ckpt_tool.torch_bridge import to_bytes, to_tensor, whole
from ckpt_tool.training.filling import Tensors
from ckpt_tool.training.freezing import Frozen, freeze_keys
from ckpt_tool.training.live import unwrapped

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ckpt_tool.formats import Checkpoint
    from ckpt_tool.training.live import LiveState


class ParameterGroup(TypedDict):
    """What `torch.optim` takes; `group` is `fresh` or `loaded`."""

    params: list[nn.Parameter]
    lr: float
    group: str


@dataclass(frozen=True, repr=False)
class LoadReport:
    """What became of every key: `loaded` and `fresh` are the model's keys, `dropped` the source's.

    `print(report)` gives the counts and the notes; `report.plan` has where each tensor came from.
    """

    plan: Plan
    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    dropped: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"LoadReport({self._counts()})"

    def __str__(self) -> str:
        return "\n".join([self._counts(), *(f"note: {note}" for note in (*self.plan.notes, *self.notes))])

    def _counts(self) -> str:
        return f"{len(self.loaded)} loaded, {len(self.fresh)} kept fresh, {len(self.dropped)} dropped"

    def freeze(self, model: nn.Module) -> Frozen:
        """Freezes exactly what was loaded, running statistics too; `model.train()` doesn't thaw them.

        Raises InputError for another model than the one that was loaded into.
        """
        return freeze_keys(self._own(model), self.loaded)

    def parameter_groups(self, model: nn.Module, lr: float, loaded_lr: float) -> list[ParameterGroup]:
        """The trainable parameters, each once: fresh ones with `lr`, loaded ones with `loaded_lr`; empty groups are left out.

        Raises InputError for another model than the one that was loaded into.
        """
        module = self._own(model)
        state = module.state_dict(keep_vars=True)
        loaded = {id(state[key]) for key in self.loaded}
        groups: dict[str, list[nn.Parameter]] = {"fresh": [], "loaded": []}
        for parameter in module.parameters():  # each once, however many names it has
            if parameter.requires_grad:
                groups["loaded" if id(parameter) in loaded else "fresh"].append(parameter)
        rates = {"fresh": lr, "loaded": loaded_lr}
        return [{"params": params, "lr": rates[name], "group": name} for name, params in groups.items() if params]

    def _own(self, model: nn.Module) -> nn.Module:
        module = unwrapped(model)
        known = module.state_dict(keep_vars=True)
        missing = next((key for key in self.loaded if key not in known), None)
        if missing is not None:
            raise InputError(type(module).__name__, f"has no key `{missing}`", "give the model that was loaded into")
        return module


def load_plan(plan: Plan, source: Checkpoint | LiveState, module: nn.Module, notes: Sequence[str] = ()) -> LoadReport:
    """Copies what the plan says into the module's own tensors, on their devices; tensors on the meta device are replaced.

    One group of tensors is in memory at a time. Raises InputError for tensors that can't be filled, RuleError where tied tensors would
    get different values, both before anything is copied. A source that turns out to be broken half-way raises FormatError, and values
    that a rule forbids raise RuleError; both leave what was copied before.
    """
    import torch

    tensors = Tensors(module)
    tensors.check(plan.producers)
    with torch.no_grad():
        _check_ties(plan, source, tensors)
        for step in plan.steps:
            for key, tensor in zip(step.outputs, _values(step, source, tensors), strict=True):
                tensors.fill(key, tensor)
    tied = _tied_to_loaded(plan)
    fresh = tuple(key for key in plan.kept if key not in tied)
    notes = [*notes, *(f"`{key}` is tied to `{other}`, and was loaded with it" for key, other in tied.items())]
    return LoadReport(plan, (*plan.producers, *tied), fresh, plan.dropped, (*notes, *_without_values(module, fresh)))


def _values(step: Step, source: Checkpoint | LiveState, tensors: Tensors) -> list[torch.Tensor]:
    inputs = []
    for key in step.inputs:
        info = source.catalog[key]
        inputs.append(to_tensor(bytearray().join(source.chunks(key)), info.dtype, info.shape))
    return apply_step(step, inputs, lambda: whole(tensors[step.outputs[0]]).cpu())


def _check_ties(plan: Plan, source: Checkpoint | LiveState, tensors: Tensors) -> None:
    """Raises RuleError where several keys of the model are one tensor, and would get different values."""
    problems = []
    for group in ties(plan.target or Catalog([])).values():
        first, *others = [key for key in group if key in plan.producers] or [""]
        for key in others:
            if value_of(plan, key) == value_of(plan, first):
                continue
            one, other = (_value(plan, each, source, tensors) for each in (first, key))
            if to_bytes(one) != to_bytes(other):
                message = f"`{first}` and `{key}` are one tensor of the model, and would get different values"
                problems.append(Problem("collision", message, None, ("drop the source of one of them, and keep its key",)))
    if problems:
        raise RuleError(problems)


def _value(plan: Plan, key: str, source: Checkpoint | LiveState, tensors: Tensors) -> torch.Tensor:
    step = plan.producers[key][0]
    return _values(step, source, tensors)[step.outputs.index(key)].to(tensors[key].dtype)


def _tied_to_loaded(plan: Plan) -> dict[str, str]:
    """Keys that the plan keeps, but that are one tensor of the model with one that was loaded."""
    target = plan.target or Catalog([])
    return {key: first for first, keys in tied_with(target, plan.producers, plan.kept).items() for key in keys}


def _without_values(module: nn.Module, fresh: Sequence[str]) -> list[str]:
    """What is to be said of fresh tensors that have no memory yet."""
    state = module.state_dict(keep_vars=True)
    empty = [key for key in fresh if getattr(state[key], "is_meta", False)]
    if not empty:
        return []
    some = ", ".join(f"`{key}`" for key in empty[:3]) + (" …" if len(empty) > 3 else "")
    return [f"{len(empty)} fresh {'tensor is' if len(empty) == 1 else 'tensors are'} on the meta device, without any values: {some}"]
