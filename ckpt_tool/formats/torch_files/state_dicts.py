"""Which state dicts a file holds, and which of them is meant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from ckpt_tool.formats.limits import NESTING, NODES
from ckpt_tool.formats.pickle.graph import (
    TENSOR_TYPES,
    children,
    module_children,
    module_state,
    unwrap,
)
from ckpt_tool.formats.pickle.values import Opaque, PickleFault
from ckpt_tool.frozen import frozen

WELL_KNOWN = (
    "state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "weights",
    "params", "parameters",
)  # fmt: skip
"""Where training code puts a model's weights, the clearest name first."""
AVERAGED = (
    "ema", "model_ema", "state_dict_ema", "ema_state_dict", "ema_model", "model_ema_state_dict",
    "ema_params", "params_ema", "ema_weights",
    "g_ema", "averaged_model", "swa_model", "swa_state_dict", "ema_shadow", "shadow_params",
    "shadow",
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


@frozen
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


def are_optimizers(value: object) -> bool:
    """Whether a list or a dict holds the states of optimizers, and nothing else."""
    is_container = isinstance(value, dict | list | tuple) and bool(value)
    return is_container and all(is_optimizer(unwrap(child)) for _, child in children(value))


def names_bookkeeping(text: str) -> bool:
    """Whether a name is that of the state of an optimizer, a scheduler, a random generator:
    tensors, but no weights.
    """
    lowered = text.lower()
    return any(word in lowered for word in BOOKKEEPING)


def is_averaged_copy(path: tuple[str, ...]) -> bool:
    """Whether names lead to averaged weights, or another copy of the weights that training keeps:
    momentum, target.
    """
    return any(
        name in AVERAGED or not _COPIES.isdisjoint(_WORD.findall(name.lower())) for name in path
    )


def find_state_dicts(root: object, holding: set[int]) -> list[Container]:
    """Modules, and mappings and lists of tensors, outermost first; nothing inside of one of them
    unless it has a known name.
    """
    return list(_Scan(TensorCounts(holding)).find((), unwrap(root)))


def find_inside(place: Container, counts: TensorCounts) -> list[Container]:
    """The same for a part of a file."""
    return list(_Scan(counts).find(place.path, place.value))


@dataclass(slots=True, eq=False)
class _Scan:
    """One walk through a file; `seen` are the ids of what was met by now."""

    counts: TensorCounts
    seen: set[int] = field(default_factory=set)

    def find(self, path: tuple[str, ...], value: object) -> Iterator[Container]:
        """The state dicts in a value, outermost first; each object is looked at once."""
        if id(value) in self.seen or len(path) > NESTING:
            return
        self.seen.add(id(value))
        if module_children(value) is not None:
            yield Container(path, value)
            return
        members = _members(path, value, self.counts)
        if _is_state_dict(path, value, members, self.counts):
            yield Container(path, value)
            return
        for name, child in members.inside:
            yield from self.find((*path, name), child)


class _Members(NamedTuple):
    """What a container holds: the names of its tensors, and the containers that hold others."""

    tensors: list[str]
    inside: list[tuple[str, object]]


def _members(path: tuple[str, ...], value: object, counts: TensorCounts) -> _Members:
    is_known = _has_known_name(path)
    members = _Members([], [])
    for name, child in children(value):
        if type(child) in TENSOR_TYPES:
            members.tensors.append(name)
        elif id(child) in counts.holding and not _is_training_state(name, child, is_known):
            members.inside.append((name, unwrap(child)))
    return members


def _has_known_name(path: tuple[str, ...]) -> bool:
    return bool(path) and path[-1] in RANKS


def _is_training_state(name: str, child: object, is_in_weights: bool) -> bool:
    """Whether this is no weights; in what is named as weights, names mean modules."""
    return is_optimizer(child) or (not is_in_weights and names_bookkeeping(name))


def _is_state_dict(
    path: tuple[str, ...], value: object, members: _Members, counts: TensorCounts
) -> bool:
    """Whether a container is one state dict itself, by its name or since it has more tensors than
    any part of it with such a name.
    """
    known = [child for name, child in members.inside if name in RANKS]
    is_more = len(known) < len(members.inside)
    if _has_known_name(path) and is_more and not _are_several(path, value, members.inside):
        return True
    return _count_weights(members.tensors) > max(map(counts.of, known), default=0)


def _count_weights(names: list[str]) -> int:
    """How many tensors are neither counters nor the state of training."""
    # Most have no such name: one search in all of them is ten times faster than one in each.
    is_any_odd = names_bookkeeping("\n".join(names))
    return sum(
        not (name in _COUNTERS or (is_any_odd and names_bookkeeping(name))) for name in names
    )


def _are_several(path: tuple[str, ...], value: object, inside: list[tuple[str, object]]) -> bool:
    """Whether this is a list of state dicts, as of a model in two parts; parameters in a list are
    those of layers.
    """
    if path[-1] in _LAYERS or not isinstance(value, list | tuple):
        return False
    return all(isinstance(child, dict) or module_state(child) for _, child in inside)


@dataclass(slots=True, eq=False)
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
