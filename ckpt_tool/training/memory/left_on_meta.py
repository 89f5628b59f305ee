"""What is still on the meta device after a load: tensors of the model without values, and those
that were replaced, but that something else goes on holding.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ckpt_tool.training.memory.offloaded import offloaded
from ckpt_tool.training.memory.referrers import holders_of
from ckpt_tool.training.registered import own_state, registered

if TYPE_CHECKING:
    import torch
    from torch import nn

_OF_MODULES = ("_parameters", "_buffers", "_modules")
"""Attributes of modules whose tensors are registered."""
_COLLECTIONS = (dict, list, tuple)
MAX_DEPTH = 4
"""Collections in collections in which tensors of no registration are looked for."""
MAX_NAMED = 3


class Watched:
    """A model's tensors of the meta device, by weak references: those that live on when a load has
    replaced them are held by something that it doesn't follow.
    """

    def __init__(self) -> None:
        self._tensors: list[tuple[str, weakref.ref[torch.Tensor]]] = []

    def add(self, state: Mapping[str, object]) -> None:
        """Takes in the tensors of a state dict that are on the meta device."""
        import torch

        self._tensors += [
            (key, weakref.ref(tensor))
            for key, tensor in state.items()
            if isinstance(tensor, torch.Tensor) and tensor.is_meta
        ]

    def notes(self, module: nn.Module) -> list[str]:
        """What is to be said of those that the model hasn't any more; to be called when nothing of
        ours has them.
        """
        if not self._alive(module):
            return []
        gc.collect()  # what only cycles hold goes
        alive = self._alive(module)
        keys = [key for key, _ in alive]
        tensors = [tensor for _, tensor in alive]
        del alive
        return [
            f"{_some([keys[at] for at in places])} of the meta device, without values, "
            f"{'is' if len(places) == 1 else 'are'} still held by {holder}: make that after the "
            "load, or build the model on the CPU"
            for holder, places in holders_of(tensors).items()
        ]

    def _alive(self, module: nn.Module) -> list[tuple[str, torch.Tensor]]:
        alive = [(key, tensor) for key, ref in self._tensors if (tensor := ref()) is not None]
        own = {id(tensor) for _, tensor in registered(module)} if alive else set()
        return [(key, tensor) for key, tensor in alive if id(tensor) not in own]


def without_values(module: nn.Module, fresh: Sequence[str]) -> list[str]:
    """What is to be said of tensors that have no memory yet: fresh ones, and those that no state
    dict has, registered or plain attributes.
    """
    state = own_state(module)
    elsewhere = {id(tensor) for tensor in offloaded(module)}
    known = {id(tensor) for tensor in state.values()} | elsewhere
    others = [
        name for name, tensor in registered(module) if tensor.is_meta and id(tensor) not in known
    ]
    known |= {id(tensor) for _, tensor in registered(module)}
    plain = [name for name, tensor in _attributes(module) if id(tensor) not in known]
    empty = [
        key
        for key in fresh
        if getattr(state[key], "is_meta", False) and id(state[key]) not in elsewhere
    ]
    return [
        *_empty("fresh tensor", empty),
        *_empty("tensor outside of the state dict", others),
        *_empty("tensor that is neither parameter nor buffer", plain),
    ]


def _attributes(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors of the meta device that are plain attributes of modules, or in collections there."""
    import torch

    kinds = (torch.Tensor, *_COLLECTIONS)
    for path, owner in module.named_modules():
        for name, value in vars(owner).items():
            if isinstance(value, kinds) and name not in _OF_MODULES:
                yield from _on_meta(f"{path}.{name}" if path else name, value, 0)


def _on_meta(name: str, value: object, depth: int) -> Iterator[tuple[str, torch.Tensor]]:
    import torch

    pairs: list[tuple[object, object]] = []
    if isinstance(value, dict):
        pairs = list(dict.items(value))
    elif isinstance(value, _COLLECTIONS):
        pairs = list(enumerate(value))
    elif isinstance(value, torch.Tensor) and value.is_meta:
        yield name, value
    for key, inner in pairs if depth < MAX_DEPTH else ():
        yield from _on_meta(f"{name}[{key!r}]", inner, depth + 1)


def _empty(kind: str, keys: Sequence[str]) -> list[str]:
    if not keys:
        return []
    are = f"{kind} is" if len(keys) == 1 else f"{kind.replace('tensor', 'tensors', 1)} are"
    are = are.replace("that is neither", "that are neither") if len(keys) > 1 else are
    return [f"{len(keys)} {are} on the meta device, without any values: {_some(keys)}"]


def _some(keys: Sequence[str]) -> str:
    more = " …" if len(keys) > MAX_NAMED else ""
    return ", ".join(f"`{key}`" for key in keys[:MAX_NAMED]) + more
