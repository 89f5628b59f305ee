"""The state dict of an optimizer out of a checkpoint of any format, as `torch.load` would give it;
nothing is executed, and what would have to be is refused.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ckpt_tool.errors import FormatError, InputError
from ckpt_tool.formats import Checkpoint, open_checkpoint
from ckpt_tool.formats.pickle.values import TensorRef
from ckpt_tool.optimizers.saved import GROUPS, STATE

if TYPE_CHECKING:
    import torch

PLAIN = (int, float, str, bool, bytes, type(None))
MAX_DEPTH = 20
"""Dicts and lists inside of each other; optimizers have three or four."""
OPTIMIZER = "optimizer"
"""The kind that parts of a file have which are an optimizer's state."""


def read_state_dict(
    given: str | os.PathLike[str] | Checkpoint,
) -> tuple[str, Mapping[str, object]]:
    """What messages call it, and the state dict with its tensors: of `run.pth#optimizer`, or of the
    only optimizer that `run.pth` holds.

    Raises InputError where there is none, or more than one.
    """
    if isinstance(given, Checkpoint):
        return given.path, _with_tensors(given)
    path = os.fspath(given)
    with open_checkpoint(path) as opened:
        if _is_optimizer(opened):
            return path, _with_tensors(opened)
        name, file = _only_optimizer(opened), path.removesuffix(f"#{opened.contents.taken}")
    for inside in (f"{file}#{name}", f"{file}#{name}.0"):
        with open_checkpoint(inside) as opened:
            if _is_optimizer(opened):
                return inside, _with_tensors(opened)
    raise InputError(
        path, f"`{name}` is not one optimizer's state", f"name one, as `{path}#{name}.1`"
    )


def _is_optimizer(opened: Checkpoint) -> bool:
    """Whether the state dict that is taken is an optimizer's."""
    values = opened.contents.values
    if isinstance(values, Mapping) and STATE in values and GROUPS in values:
        return True
    keys = list(opened.catalog)
    return bool(keys) and all(key.startswith((f"{STATE}.", f"{GROUPS}.")) for key in keys)


def _only_optimizer(opened: Checkpoint) -> str:
    found = [part.path for part in opened.contents.left_behind if part.kind == OPTIMIZER]
    if len(found) == 1:
        return found[0]
    if not found:
        raise InputError(opened.path, "holds no optimizer's state", "give the file that has it")
    names = ", ".join(f"`{opened.path}#{name}`" for name in found)
    raise InputError(
        opened.path, f"holds the states of {len(found)} optimizers", f"name one: {names}"
    )


def _with_tensors(opened: Checkpoint) -> Mapping[str, object]:
    values = opened.contents.values
    if isinstance(values, Mapping) and STATE in values:
        return {str(key): _filled(opened, str(key), value) for key, value in values.items()}
    opened.check(opened.catalog)
    return {key: opened.read(key) for key in opened.catalog}


def _filled(opened: Checkpoint, path: str, value: object, depth: int = 0) -> object:
    """A value with its tensors read; `path` leads to it. Raises InputError for an object whose
    class would have to be imported, FormatError for what refers to itself.
    """
    if depth > MAX_DEPTH:
        fact = f"its optimizer's state is nested {depth} deep, or refers to itself"
        raise FormatError(opened.path, fact)
    if isinstance(value, TensorRef):
        return _read(opened, path)
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, Mapping):
        return {
            key: _filled(opened, f"{path}.{key}", inner, depth + 1) for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        items = [
            _filled(opened, f"{path}.{place}", inner, depth + 1)
            for place, inner in enumerate(value)
        ]
        return tuple(items) if isinstance(value, tuple) else items
    fact = "is an object of a class that is not imported"
    raise InputError(opened.path, fact, "load it with torch, and give the state dict", f"`{path}`")


def _read(opened: Checkpoint, path: str) -> torch.Tensor:
    if path not in opened.catalog:
        raise InputError(opened.path, "is a tensor that can't be read", None, f"`{path}`")
    opened.check([path])
    return opened.read(path)
