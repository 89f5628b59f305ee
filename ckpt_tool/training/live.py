"""A live state dict where a checkpoint could stand, and models that a factory builds."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ckpt_tool.errors import InputError
from ckpt_tool.tensors import Catalog
from ckpt_tool.torch_bridge import tensor_infos, to_bytes

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ckpt_tool.formats import Extent, SourceFile


class LiveState:
    """A state dict in memory, with what the engine asks of an open checkpoint. Raises ValueError for sparse tensors."""

    has_values = True
    files: tuple[SourceFile, ...] = ()

    def __init__(self, path: str, state_dict: Mapping[str, object]) -> None:
        self.path = path
        self._tensors: dict[str, torch.Tensor] = {key: value for key, value in state_dict.items() if _is_tensor(value)}  # type: ignore[misc]
        self.catalog = Catalog(tensor_infos(self._tensors))
        self.metadata: Mapping[str, str] = {}
        self.versions: Mapping[str, Mapping[str, object]] = getattr(state_dict, "_metadata", {})

    def extent(self, key: str) -> Extent | None:
        return None

    def chunks(self, key: str) -> Iterator[bytes]:
        yield bytes(to_bytes(self._tensors[key]))

    def same_storage(self, key: str, other: str) -> bool:
        ours, theirs = self._tensors[key], self._tensors[other]
        return ours.data_ptr() == theirs.data_ptr() and ours.shape == theirs.shape and ours.stride() == theirs.stride()


def _is_tensor(value: object) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def build_model(factory: str) -> nn.Module:
    """The model that `package.module:function` returns: the user's own code, run because the user named it."""
    from torch import nn

    module_name, _, name = factory.partition(":")
    try:
        build = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise InputError(factory, f"can't be imported: {error}") from None
    model = build()
    if not isinstance(model, nn.Module):
        raise InputError(factory, f"returned a {type(model).__name__}, not an nn.Module")
    return model


def unwrapped(model: nn.Module) -> nn.Module:
    """The user's own module inside DataParallel, DistributedDataParallel and torch.compile, however often wrapped."""
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel

    while True:
        if isinstance(model, nn.DataParallel | DistributedDataParallel):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod  # type: ignore[assignment]
        else:
            return model
