"""A module that does more on loading than copying, with all in it: which of its tensors are keys of
the model, and what a plan has for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckpt_tool.errors import InputError
from ckpt_tool.mapping.plan import Plan
from ckpt_tool.training.memory.filling import LiveTensors
from ckpt_tool.training.memory.values import step_values

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ckpt_tool.formats import Checkpoint
    from ckpt_tool.training.live import LiveState

OF_NAMES_ALONE = ("torch.distributed.fsdp", "torch.distributed.algorithms._checkpoint")
"""Where torch's own hooks come from that undo what its state-dict hooks did to names, or put
parameters into their places.
"""


@dataclass(frozen=True, slots=True)
class Slot:
    """A tensor of a module, where it stands, and its key of the state dict, or an empty one."""

    tensors: Mapping[str, torch.Tensor | None]
    name: str
    tensor: torch.Tensor
    key: str

    @property
    def now(self) -> torch.Tensor | None:
        """The tensor that stands there by now."""
        return self.tensors.get(self.name)

    @property
    def is_replaced(self) -> bool:
        """Whether another tensor stands there by now."""
        return self.now is not self.tensor


@dataclass(frozen=True, slots=True)
class HookedModule:
    """A module with all in it: the model's key for each name of its own state dict, or None, and
    for those that are loaded.
    """

    root: nn.Module
    path: str
    module: nn.Module
    keys: Mapping[str, str | None]
    loaded: Mapping[str, str]

    def given(
        self, plan: Plan, source: Checkpoint | LiveState, tensors: LiveTensors
    ) -> dict[str, torch.Tensor]:
        """The values that the plan has for the module, by its own names."""
        wanted = set(self.loaded.values())
        values: dict[str, torch.Tensor] = {}
        for step in {
            id(step): step for step, _ in (plan.producers[key] for key in self.loaded.values())
        }.values():
            found = zip(step.outputs, step_values(step, source, tensors), strict=True)
            values.update((key, value) for key, value in found if key in wanted)
        return {name: values[key] for name, key in self.loaded.items()}

    def slots(self, keys: Mapping[int, str]) -> list[Slot]:
        """Every tensor of the module."""
        from torch.jit import ScriptModule

        modules = list(self.module.modules())
        if any(isinstance(each, ScriptModule) for each in modules):
            raise self.refused("can't be loaded: it has TorchScript in it")
        dicts: list[Mapping[str, torch.Tensor | None]] = [
            tensors for each in modules for tensors in (each._parameters, each._buffers)
        ]
        return [
            Slot(tensors, name, tensor, keys.get(id(tensor), ""))
            for tensors in dicts
            for name, tensor in tensors.items()
            if tensor is not None
        ]

    @property
    def is_whole_norm(self) -> bool:
        """Whether it is one of torch's normalisations and the plan fills all of it: then its code
        only copies.

        It gives older state dicts a counter that is missing, or complains of statistics that the
        module has no place for.
        """
        from torch.nn.modules.batchnorm import _NormBase
        from torch.nn.modules.instancenorm import _InstanceNorm

        codes = (_NormBase._load_from_state_dict, _InstanceNorm._load_from_state_dict)
        is_norm = (
            type(self.module)._load_from_state_dict in codes
            and not self.module._load_state_dict_pre_hooks
        )
        return is_norm and len(self.loaded) == len(self.keys)

    def has_own_names(self, plan: Plan) -> bool:
        """Whether the plan fills the module from the same names below one path, unchanged but for
        their dtype.
        """
        steps = [(name, plan.producers[key][0]) for name, key in self.loaded.items()]
        origins = [
            (name, step.inputs[0])
            for name, step in steps
            if all(op.name == "cast" for op in step.ops)
        ]
        paths = {key.removesuffix(name) for name, key in origins if key.endswith(name)}
        return (
            len(paths) == 1
            and len(origins) == len(steps)
            and all(key == min(paths) + name for name, key in origins)
        )

    def refused(self, fact: str) -> InputError:
        """The error that says of this module why the model isn't loaded."""
        who = f"`{self.path}` ({type(self.module).__name__}) " if self.path else ""
        hint = (
            "let its own `load_state_dict` read the file, or one that `ckpt map` has written, "
            "and keep its keys here"
        )
        return InputError(type(self.root).__name__, f"{who}{fact}", hint)


def regions_of(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The outermost modules that may change what they load, by their paths."""
    outer: str | None = None
    for path, each in module.named_modules():
        is_inside = outer is not None and (not outer or path.startswith(f"{outer}."))
        if not is_inside and (
            _may_change_values(each) or (each is module and is_overridden(each, "load_state_dict"))
        ):
            yield path, each
            outer = path


def _has_loading_code(module: nn.Module) -> bool:
    """Whether a module loads its own tensors in another way than torch does."""
    return is_overridden(module, "_load_from_state_dict")


def is_overridden(module: nn.Module, name: str) -> bool:
    """Whether a module has a method of its own in place of one of `nn.Module`."""
    from torch import nn

    return getattr(type(module), name) is not getattr(nn.Module, name) or name in vars(module)


def _may_change_values(module: nn.Module) -> bool:
    hooks = [getattr(hook, "hook", hook) for hook in module._load_state_dict_pre_hooks.values()]
    return _has_loading_code(module) or any(
        not str(hook.__module__).startswith(OF_NAMES_ALONE) for hook in hooks
    )
