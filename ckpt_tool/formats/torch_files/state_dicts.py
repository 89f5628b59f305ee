"""Which state dicts a file holds, and which of them is meant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ckpt_tool.formats.limits import NESTING, NODES
from ckpt_tool.formats.pickle.graph import (
    TENSOR_TYPES,
    children,
    module_children,
    module_state,
    unwrap,
)
from ckpt_tool.formats.pickle.values import Opaque, PickleFault

WELL_KNOWN = (
    "state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "weights",
    "params", "parameters",
)  # fmt: skip
"""Where training code puts a model's weights, the most telling name first."""
AVERAGED = (
    "ema", "model_ema", "state_dict_ema", "ema_state_dict", "ema_model", "model_ema_state_dict",
    "ema_params", "params_ema", "ema_weights",
    "g_ema", "averaged_model", "swa_model", "swa_state_dict", "ema_shadow", "shadow_params",
)  # fmt: skip
"""Averaged weights: taken where a file has no others."""
_LAYERS = ("params", "parameters", "weights")
_COPIES = frozenset(("ema", "swa", "avg", "average", "averaged", "shadow", "momentum", "target"))
_WORD = re.compile("[a-z]+")
RANKS = {name: rank for rank, name in enumerate((*WELL_KNOWN, *AVERAGED))}

BOOKKEEPING = (
    "optim",
    "sched",
    "scaler",
    "rng",
    "random_state",
    "callbacks",
    "loops",
    "sampler",
    "dataloader",
    "hooks",
)
"""A name that contains one of these holds the state of training, not of a model."""
_COUNTERS = frozenset(
    (
        "step",
        "steps",
        "global_step",
        "epoch",
        "epochs",
        "iter",
        "iteration",
        "iterations",
        "best",
        "loss",
        "n_averaged",
    )
)


@dataclass(frozen=True, slots=True)
class Container:
    """An object of the file that can be taken as a state dict, and the names that lead to it."""

    path: tuple[str, ...]
    value: object

    @property
    def text(self) -> str:
        """The names as a dotted path."""
        return ".".join(self.path)


def is_optimizer(value: object) -> bool:
    """Whether this is an optimizer's state, by its form."""
    return isinstance(value, dict) and "param_groups" in value and "state" in value


def names_bookkeeping(text: str) -> bool:
    """Whether a name is that of the state of an optimizer, a scheduler, a random generator:
    tensors, but no weights.
    """
    lowered = text.lower()
    return any(word in lowered for word in BOOKKEEPING)


def is_averaged(path: tuple[str, ...]) -> bool:
    """Whether names lead to averaged weights, or another copy of the weights that training keeps:
    momentum, target.
    """
    return any(
        name in AVERAGED or not _COPIES.isdisjoint(_WORD.findall(name.lower())) for name in path
    )


def find_state_dicts(root: object, holding: set[int]) -> list[Container]:
    """Modules, and mappings and lists of tensors, outermost first; nothing inside of one of them
    unless it has a telling name.
    """
    return list(_scan((), unwrap(root), TensorCounts(holding), {}))


def find_inside(place: Container, counts: TensorCounts) -> list[Container]:
    """The same for a part of a file."""
    return list(_scan(place.path, place.value, counts, {}))


def _scan(
    path: tuple[str, ...], value: object, counts: TensorCounts, seen: dict[int, None]
) -> Iterator[Container]:
    if id(value) in seen or len(path) > NESTING:
        return
    seen[id(value)] = None
    if module_children(value) is not None:
        yield Container(path, value)
        return
    is_known = bool(path) and path[-1] in RANKS
    inside, tensors = [], []
    for name, child in children(value):
        if type(child) in TENSOR_TYPES:
            tensors.append(name)
        elif (
            id(child) in counts.holding
            and not is_optimizer(child)
            and (is_known or not names_bookkeeping(name))
        ):
            inside.append((name, unwrap(child)))
    # Most have no such name: one search in all of them is ten times faster than one in each.
    is_any_odd = names_bookkeeping("\n".join(tensors))
    direct = sum(
        not (name in _COUNTERS or (is_any_odd and names_bookkeeping(name))) for name in tensors
    )
    telling = [child for name, child in inside if name in RANKS]
    is_telling = is_known and len(telling) < len(inside) and not _are_several(path, value, inside)
    if is_telling or direct > max((counts.of(child) for child in telling), default=0):
        yield Container(path, value)
        return
    for name, child in inside:
        yield from _scan((*path, name), child, counts, seen)


def _are_several(path: tuple[str, ...], value: object, inside: list[tuple[str, object]]) -> bool:
    """Whether this is a list of state dicts, as of a model in two parts; parameters in a list are
    those of layers.
    """
    if path[-1] in _LAYERS or not isinstance(value, list | tuple):
        return False
    return all(isinstance(child, dict) or module_state(child) for _, child in inside)


@dataclass(slots=True)
class TensorCounts:
    """Counts the different tensors in values, at any depth; `looked_at` bounds what a file of
    shared objects may cost.
    """

    holding: set[int]
    looked_at: int = 0

    def of(self, value: object) -> int:
        """Raises PickleFault."""
        pending, seen = [value], set()
        count = 0
        while pending:
            one = pending.pop()
            if id(one) in seen:
                continue
            seen.add(id(one))
            if type(one) in TENSOR_TYPES:
                count += 1
            elif id(one) in self.holding:
                inside = [child for _, child in (module_children(one) or children(one))]
                pending += inside
                self.looked_at += len(inside)
                if self.looked_at > NODES:
                    raise PickleFault("refers to the same objects over and over")
        return count


def versions_of(value: object) -> dict[str, dict[str, object]]:
    """torch's `state_dict._metadata`: for each module its `version` and what else it noted, numbers
    and texts alone.
    """
    attributes = getattr(value, "attributes", None) or (
        value.state if type(value) is Opaque and not module_state(value) else None
    )
    metadata = attributes.get("_metadata") if isinstance(attributes, dict) else None
    if not isinstance(metadata, dict):
        return {}
    return {
        module: _plain(entry)
        for module, entry in metadata.items()
        if type(module) is str and isinstance(entry, dict)
    }


def _plain(entry: dict[object, object]) -> dict[str, object]:
    return {
        name: value
        for name, value in entry.items()
        if type(name) is str and isinstance(value, int | float | str | None)
    }
