"""What in the program holds tensors, in words: "a closure of `forward`", "an optimizer (AdamW)"."""

from __future__ import annotations

import gc
import sys
from collections import deque
from dataclasses import dataclass
from functools import partial
from types import (
    BuiltinFunctionType,
    CellType,
    FrameType,
    FunctionType,
    GeneratorType,
    MappingProxyType,
    MethodType,
)
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_CONTAINERS = (dict, list, tuple, set, frozenset, deque, MappingProxyType, CellType)
MAX_STEPS = 7
"""Steps from a tensor to what is named; each takes a walk over all objects."""
UNKNOWN = "something that Python doesn't tell (a view of it, say)"


@dataclass(slots=True)
class _Front:
    """Objects, and for each, by its identity, the places of those tensors that it leads to."""

    objects: list[object]
    leads: dict[int, set[int]]


def holders_of(tensors: list[torch.Tensor]) -> dict[str, list[int]]:
    """What holds these tensors, in words, with the places in `tensors` of those that it holds; but
    for variables of functions that run. `tensors` itself doesn't count.
    """
    local = _local_variables()
    left = {at for at, tensor in enumerate(tensors) if id(tensor) not in local}
    named: dict[str, set[int]] = {}
    nearest: dict[str, set[int]] = {}
    seen = {id(tensors)}
    objects: list[object] = [*tensors]
    front = _Front(objects, {id(tensor): {at} for at, tensor in enumerate(tensors)})
    for _ in range(MAX_STEPS):
        front = _outwards(front, named, seen)
        if not nearest:
            for each in front.objects:
                nearest.setdefault(f"a {type(each).__name__}", set()).update(front.leads[id(each)])
    left = left.difference(*named.values())
    for said, places in nearest.items():  # a collection that is a variable has no other name
        if unnamed := places & left:
            named[said] = unnamed
            left -= unnamed
    named[UNKNOWN] = left
    return {said: sorted(places) for said, places in named.items() if places}


def _outwards(front: _Front, named: dict[str, set[int]], seen: set[int]) -> _Front:
    """The collections that hold the objects of a front; other holders come into `named`."""
    found = _Front([], {})
    if not front.objects:
        return found
    seen |= {id(front.objects), id(found.objects)}
    for holder in gc.get_referrers(*front.objects):
        if id(holder) in seen or isinstance(holder, FrameType):
            continue
        for held in gc.get_referents(holder):
            if (places := front.leads.get(id(held))) is None:
                continue
            if said := _said_of(holder, held):
                named.setdefault(said, set()).update(places)
            else:
                if id(holder) not in found.leads:
                    found.objects.append(holder)
                found.leads.setdefault(id(holder), set()).update(places)
    seen |= found.leads.keys()
    return found


def _said_of(holder: object, held: object) -> str:
    """What a holder is called; nothing of a collection, whose own holder has a name."""
    if isinstance(holder, dict) and dict.__contains__(holder, "__builtins__"):  # a module's names
        names = (str(name) for name, value in dict.items(holder) if value is held)
        return f"the variable `{next(names, '')}`"
    if isinstance(holder, _CONTAINERS):
        return ""
    if isinstance(holder, FunctionType):
        what = "a closure" if held is holder.__closure__ else "a default argument"
        return f"{what} of `{holder.__qualname__}`"
    if isinstance(holder, MethodType | BuiltinFunctionType):
        return f"the bound method `{holder.__name__}`"
    return _said_of_object(holder)


def _said_of_object(holder: object) -> str:
    from torch import nn
    from torch.optim import Optimizer

    kind = type(holder)
    if issubclass(kind, type):
        return f"the class `{holder.__qualname__}`"  # type: ignore[attr-defined]
    if issubclass(kind, Optimizer):
        return f"an optimizer ({kind.__name__})"
    if issubclass(kind, nn.Module):
        return f"a module ({kind.__name__})"
    return {partial: "a functools.partial", GeneratorType: "a generator"}.get(
        kind, f"an object ({kind.__qualname__})"
    )


def _local_variables() -> set[int]:
    """The identities of what the variables of running functions hold."""
    found: set[int] = set()
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_locals is not frame.f_globals:
            found.update(map(id, frame.f_locals.values()))
        frame = frame.f_back
    return found
