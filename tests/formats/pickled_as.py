"""Files in which a tensor is pickled as any call with any state, as an attacker or an old torch would write it."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from ckpt_tool.errors import InputError
from ckpt_tool.formats import open_checkpoint
from ckpt_tool.torch_bridge import to_bytes

UTILS, FROM_TYPE = torch._utils, torch._tensor._rebuild_from_type_v2


class As:
    """An object that pickles as the call that it is given: (function, arguments[, state])."""

    def __init__(self, *reduced: object) -> None:
        self.reduced = reduced

    def __reduce__(self) -> Any:
        return self.reduced


def v2(tensor: torch.Tensor, *more: object, state: object = None, gradient: object = False) -> As:
    """A tensor as `_rebuild_tensor_v2` makes it, with lazy bits in `more`, and a state."""
    arguments = (tensor._typed_storage(), 0, tuple(tensor.shape), tensor.stride(), gradient, OrderedDict(), *more)
    return As(UTILS._rebuild_tensor_v2, arguments, *(() if state is None else (state,)))


def parameter(tensor: object, gradient: object = False, state: object = None) -> As:
    """A Parameter as `_rebuild_parameter` makes it."""
    return As(UTILS._rebuild_parameter, (tensor, gradient, OrderedDict()), *(() if state is None else (state,)))


def with_state(tensor: object, state: object) -> As:
    return As(UTILS._rebuild_parameter_with_state, (tensor, False, OrderedDict(), state))


def from_type(tensor: torch.Tensor, state: object, kind: type = torch.Tensor) -> As:
    arguments = (tensor._typed_storage(), 0, tuple(tensor.shape), tensor.stride(), False, OrderedDict())
    return As(FROM_TYPE, (UTILS._rebuild_tensor_v2, kind, arguments, state))


def theirs(path: Path) -> bytes | None:
    """What torch reads as `w`, as contiguous bytes; None where it refuses, or has no values."""
    try:
        tensor = torch.load(path, weights_only=True)["w"].detach()
        return None if tensor.is_meta else bytes(to_bytes(tensor))
    except Exception:
        return None


def ours(path: Path) -> bytes | None:
    """The same of ours."""
    try:
        with open_checkpoint(path) as checkpoint:
            return checkpoint.raw("w") if "w" in checkpoint.catalog else None
    except InputError:
        return None
