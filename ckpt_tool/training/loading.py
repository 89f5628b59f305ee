"""A plan into a live module, tensor by tensor, and the report of what arrived."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from ckpt_tool.mapping.apply import apply_step
from ckpt_tool.mapping.plan import Plan, Step
from ckpt_tool.torch_bridge import to_tensor
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


@dataclass(frozen=True)
class LoadReport:
    """What became of every key: `loaded` and `fresh` are the model's keys, `dropped` the source's.

    `print(report)` gives the counts; `report.plan` has where each tensor came from.
    """

    plan: Plan
    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    dropped: tuple[str, ...]

    def __str__(self) -> str:
        line = f"{len(self.loaded)} loaded, {len(self.fresh)} kept fresh, {len(self.dropped)} dropped"
        return "\n".join([line, *(f"note: {note}" for note in self.plan.notes)])

    def freeze(self, model: nn.Module) -> Frozen:
        """Freezes exactly what was loaded, running statistics too; `model.train()` doesn't thaw them."""
        return freeze_keys(unwrapped(model), self.loaded)

    def parameter_groups(self, model: nn.Module, lr: float, loaded_lr: float) -> list[ParameterGroup]:
        """The trainable parameters, each once: fresh ones with `lr`, loaded ones with `loaded_lr`; empty groups are left out."""
        loaded = set(self.loaded)
        groups: dict[str, list[nn.Parameter]] = {"fresh": [], "loaded": []}
        for names, parameter in _parameters(unwrapped(model)):
            if parameter.requires_grad:
                groups["loaded" if loaded.intersection(names) else "fresh"].append(parameter)
        rates = {"fresh": lr, "loaded": loaded_lr}
        return [{"params": params, "lr": rates[name], "group": name} for name, params in groups.items() if params]


def _parameters(module: nn.Module) -> Iterator[tuple[list[str], nn.Parameter]]:
    """Each parameter once, with all names that it has: tied weights have several."""
    names: dict[int, tuple[list[str], nn.Parameter]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), ([], parameter))[0].append(name)
    yield from names.values()


def load_plan(plan: Plan, source: Checkpoint | LiveState, module: nn.Module) -> LoadReport:
    """Copies what the plan says into the module's own tensors, on their devices; tensors on the meta device are replaced.

    One group of tensors is in memory at a time. A source that turns out to be broken half-way raises FormatError, and values
    that a rule forbids raise RuleError; both leave what was copied before.
    """
    import torch

    state = module.state_dict(keep_vars=True)
    with torch.no_grad():
        for step in plan.steps:
            for key, tensor in zip(step.outputs, _values(step, source, state), strict=True):
                _assign(module, key, state[key], tensor)
    return LoadReport(plan, tuple(plan.producers), plan.kept, plan.dropped)


def _values(step: Step, source: Checkpoint | LiveState, state: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    inputs = []
    for key in step.inputs:
        info = source.catalog[key]
        inputs.append(to_tensor(bytearray().join(source.chunks(key)), info.dtype, info.shape))
    return apply_step(step, inputs, lambda: state[step.outputs[0]].cpu())


def _assign(module: nn.Module, key: str, current: torch.Tensor, value: torch.Tensor) -> None:
    if not current.is_meta:
        current.copy_(value)
        return
    from torch import nn

    path, _, name = key.rpartition(".")
    owner = module.get_submodule(path)
    is_parameter = isinstance(current, nn.Parameter)
    setattr(owner, name, nn.Parameter(value.to(current.dtype), requires_grad=current.requires_grad) if is_parameter else value)
