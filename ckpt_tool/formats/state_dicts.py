"""Which state dicts a file holds, and which of them is meant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ckpt_tool.errors import InputError
from ckpt_tool.formats.limits import NESTING, NODES
from ckpt_tool.formats.pickle_graph import TENSOR_TYPES, children, module_children, module_state, unwrap
from ckpt_tool.formats.pickle_values import Opaque, PickleFault

WELL_KNOWN = (
    "state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "weights", "params", "parameters", "generator",
)  # fmt: skip
"""Where training code puts a model's weights, the most telling name first."""
AVERAGED = (
    "ema", "model_ema", "state_dict_ema", "ema_state_dict", "ema_model", "model_ema_state_dict", "ema_params", "params_ema", "ema_weights",
    "g_ema", "averaged_model", "swa_model", "swa_state_dict", "ema_shadow", "shadow_params",
)  # fmt: skip
"""Averaged weights: taken where a file has no others."""
_RANKS = {name: rank for rank, name in enumerate((*WELL_KNOWN, *AVERAGED))}

BOOKKEEPING = ("optim", "sched", "scaler", "rng", "random_state", "callbacks", "loops", "sampler", "dataloader", "hooks")
"""A name that contains one of these holds the state of training, not of a model."""
_COUNTERS = frozenset(("step", "steps", "global_step", "epoch", "epochs", "iter", "iteration", "iterations", "best", "loss", "n_averaged"))


@dataclass(frozen=True, slots=True)
class Place:
    """An object of the file that can be taken as a state dict, and the names that lead to it."""

    path: tuple[str, ...]
    value: object

    @property
    def text(self) -> str:
        return ".".join(self.path)


def is_bookkeeping(name: str, value: object) -> bool:
    """Whether this is the state of an optimizer, a scheduler, a random generator: tensors, but no weights."""
    if isinstance(value, dict) and "param_groups" in value and "state" in value:
        return True
    return _names_bookkeeping(name)


def _names_bookkeeping(text: str) -> bool:
    lowered = text.lower()
    return any(word in lowered for word in BOOKKEEPING)


def find_state_dicts(root: object, holding: set[int]) -> list[Place]:
    """Modules, and mappings and lists of tensors, outermost first; nothing inside of one of them unless it has a telling name."""
    return list(_scan((), unwrap(root), TensorCounts(holding), {}))


def _scan(path: tuple[str, ...], value: object, counts: TensorCounts, seen: dict[int, None]) -> Iterator[Place]:
    if id(value) in seen or len(path) > NESTING:
        return
    seen[id(value)] = None
    if module_children(value) is not None:
        yield Place(path, value)
        return
    inside, tensors = [], []
    for name, child in children(value):
        if type(child) in TENSOR_TYPES:
            tensors.append(name)
        elif id(child) in counts.holding and not is_bookkeeping(name, child):
            inside.append((name, unwrap(child)))
    # Most have no such name: one search in all of them is ten times faster than one in each.
    is_any_odd = _names_bookkeeping("\n".join(tensors))
    direct = sum(not (name in _COUNTERS or (is_any_odd and _names_bookkeeping(name))) for name in tensors)
    telling = [child for name, child in inside if name in _RANKS]
    is_telling = bool(path) and path[-1] in _RANKS and len(telling) < len(inside)
    if is_telling or direct > max((counts.of(child) for child in telling), default=0):
        yield Place(path, value)
        return
    for name, child in inside:
        yield from _scan((*path, name), child, counts, seen)


@dataclass(slots=True)
class TensorCounts:
    """Counts the different tensors in values, at any depth; `looked_at` bounds what a file of shared objects may cost."""

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


def choose(places: list[Place], root: object) -> Place:
    """The weights of the model: by name, else the only ones there are, else everything in the file."""
    if len(places) == 1:
        return places[0]
    ranked = [(rank, place) for place in places if (rank := _rank(place.path)) is not None]
    if ranked:
        return min(ranked, key=lambda pair: pair[0])[1]
    return Place((), unwrap(root))


def _rank(path: tuple[str, ...]) -> tuple[bool, int, int] | None:
    """How telling a path is, smaller is better; averaged weights come after all others, outer names before inner ones."""
    ranks = [_RANKS[name] for name in path if name in _RANKS]
    if not ranks:
        return None
    return any(name in AVERAGED for name in path), min(ranks), len(path)


def look_up(root: object, wanted: str, holding: set[int], places: list[Place], file: str) -> Place:
    """What `file#wanted` means. Raises InputError that lists the names that exist."""
    found = _descend((), unwrap(root), wanted, holding)
    if found is not None:
        return found
    names = [place.text for place in places if place.path] or [name for name, child in children(unwrap(root)) if id(child) in holding]
    known = f"it has {', '.join(f'`{name}`' for name in names[:20])}" if names else "it has no other state dict than the whole of it"
    raise InputError(f"{file}#{wanted}", f"no state dict in the file is named `{wanted}`", known)


def _descend(path: tuple[str, ...], value: object, rest: str, holding: set[int]) -> Place | None:
    """The object at a dotted path; names may have dots themselves."""
    if len(path) > NESTING:
        return None
    for name, child in module_children(value) or children(value):
        if id(child) not in holding:
            continue
        if name == rest:
            return Place((*path, name), unwrap(child))
        if rest.startswith(f"{name}.") and (found := _descend((*path, name), unwrap(child), rest[len(name) + 1 :], holding)):
            return found
    return None


def versions_of(value: object) -> dict[str, dict[str, object]]:
    """torch's `state_dict._metadata`: for each module its `version` and what else it noted, numbers and texts alone."""
    attributes = getattr(value, "attributes", None) or (value.state if type(value) is Opaque and not module_state(value) else None)
    metadata = attributes.get("_metadata") if isinstance(attributes, dict) else None
    if not isinstance(metadata, dict):
        return {}
    return {module: _plain(entry) for module, entry in metadata.items() if type(module) is str and isinstance(entry, dict)}


def _plain(entry: dict[object, object]) -> dict[str, object]:
    return {name: value for name, value in entry.items() if type(name) is str and isinstance(value, int | float | str | None)}
