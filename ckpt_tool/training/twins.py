"""An empty twin of a module, into which torch can load by `assign` while the module stays as it is."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckpt_tool.torch_bridge import memory_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import nn

OWN_DICTS = ("_parameters", "_buffers", "_modules", "_load_state_dict_post_hooks")


@dataclass(frozen=True, slots=True)
class Slot:
    """A tensor of a module, what stood for it in the twin and at which version, and what stands there now."""

    tensor: torch.Tensor
    before: torch.Tensor
    version: int
    now: torch.Tensor | None

    @property
    def is_filled(self) -> bool:
        return self.now is not self.before or _version(self.before) != self.version

    @property
    def is_written(self) -> bool:
        """Whether loading has written to the module's own tensor, which the twin only shows."""
        return self.now is self.before and self.is_filled and memory_of(self.before) == memory_of(self.tensor)


class Twin:
    """A module and all in it once more, without hooks after loading.

    Its tensors show those of the module, but for modules with a loading code of their own, which may write to them: these get
    copies, or all do where `with_copies`.
    """

    def __init__(self, module: nn.Module, with_copies: bool = False) -> None:
        self._with_copies = with_copies
        self._twins: dict[nn.Module, nn.Module] = {}
        self._before: dict[int, torch.Tensor] = {}
        self._versions: dict[int, int] = {}
        self.module = self._of(module)

    def _of(self, module: nn.Module) -> nn.Module:
        if module in self._twins:
            return self._twins[module]
        from torch.jit import ScriptModule

        if isinstance(module, ScriptModule):
            raise TypeError("it has TorchScript in it")
        twin: nn.Module = object.__new__(type(module))
        vars(twin).update(vars(module))
        self._twins[module] = twin
        copies = self._with_copies or has_loading_code(module)
        vars(twin)["_parameters"] = {name: self._shown(tensor, copies) for name, tensor in module._parameters.items()}
        vars(twin)["_buffers"] = {name: self._shown(tensor, copies) for name, tensor in module._buffers.items()}
        vars(twin)["_modules"] = {name: None if child is None else self._of(child) for name, child in module._modules.items()}
        vars(twin)["_load_state_dict_post_hooks"] = OrderedDict()
        return twin

    def _shown(self, tensor: torch.Tensor | None, copies: bool) -> torch.Tensor | None:
        from torch import nn

        if tensor is None or id(tensor) in self._before:
            return self._before.get(id(tensor))
        shown = tensor.detach().clone() if copies else tensor.detach()
        if isinstance(tensor, nn.Parameter):
            shown = nn.Parameter(shown, requires_grad=tensor.requires_grad)
        self._before[id(tensor)] = shown
        self._versions[id(tensor)] = _version(shown)
        return shown

    def slots(self) -> Iterator[Slot]:
        """Every tensor of the module."""
        for module, twin in self._twins.items():
            for ours, theirs in ((module._parameters, twin._parameters), (module._buffers, twin._buffers)):
                for name, tensor in ours.items():
                    if tensor is not None:
                        yield Slot(tensor, self._before[id(tensor)], self._versions[id(tensor)], theirs.get(name))

    @property
    def has_other_parts(self) -> bool:
        """Whether loading has put other modules, or tensors of other names, into the twin."""
        return any(
            ours._parameters.keys() != twin._parameters.keys()
            or ours._buffers.keys() != twin._buffers.keys()
            or [None if child is None else self._twins[child] for child in ours._modules.values()] != list(twin._modules.values())
            for ours, twin in self._twins.items()
        )

    def attributes(self) -> Iterator[tuple[nn.Module, str, object]]:
        """What loading has noted on the twin's modules, and on which of the module's it belongs."""
        for module, twin in self._twins.items():
            for name, value in vars(twin).items():
                if name not in OWN_DICTS and (name not in vars(module) or vars(module)[name] is not value):
                    yield module, name, value


def has_loading_code(module: nn.Module) -> bool:
    """Whether a module loads its own tensors in another way than torch does."""
    return is_overridden(module, "_load_from_state_dict")


def is_overridden(module: nn.Module, name: str) -> bool:
    from torch import nn

    return getattr(type(module), name) is not getattr(nn.Module, name) or name in vars(module)


def _version(tensor: torch.Tensor) -> int:
    """How often a tensor was written to; tensors of inference mode don't count."""
    return 0 if tensor.is_inference() else tensor._version
