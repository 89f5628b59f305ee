"""Which key of a model each parameter of an optimizer is: by the names that were saved, or by the
order of the model's parameters where shapes leave one possibility.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from math import factorial, prod

from ckpt_tool.errors import InputError
from ckpt_tool.formats.key_order import is_writer_order
from ckpt_tool.frozen import frozen
from ckpt_tool.optimizers.kinds import Kind, UnknownKind
from ckpt_tool.optimizers.saved import SavedOptimizer
from ckpt_tool.optimizers.shapes import shape_of
from ckpt_tool.tensors import Catalog, Shape, TensorInfo, counted, shape_text

MAX_WAYS = 1_000_000
"""Ways to have paired the first keys, summed over all keys; for almost every optimizer there is one
each.
"""
MAX_CHANCE = 20
"""Orders of names, one of which is that of the alphabet: with so many it is no chance any more."""
_NUMBERS = re.compile("[0-9]+")
_PARTS = re.compile("[0-9]+|[^0-9]+")
STATISTICS = frozenset(("running_mean", "running_var", "num_batches_tracked"))
"""Buffers of torch's normalisations, which no optimizer has."""
_WRAPPER = re.compile(
    r"(?:^|(?<=\.))(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)


def may_be_trained(info: TensorInfo) -> bool:
    """Whether a tensor of a state dict may be a parameter of its own: of a type that has
    gradients, no other key's tensor, and no running statistics.
    """
    has_gradient = info.dtype.is_floating or info.dtype.is_complex
    return has_gradient and info.tied_to is None and info.key.rpartition(".")[2] not in STATISTICS


def keys_of_parameters(
    saved: SavedOptimizer, catalog: Catalog, kind: Kind | UnknownKind
) -> tuple[str, ...]:
    """The model's key of each parameter, in the optimizer's order.

    Raises InputError where names are unknown, where shapes contradict them, and where more than
    one pairing is possible.
    """
    names = [parameter.name for parameter in saved.parameters]
    if all(name is not None for name in names):
        keys = _by_names([str(name) for name in names], catalog, saved.label)
        if isinstance(kind, Kind):
            _check_shapes(saved, keys, catalog, kind)
        if saved.named_groups:
            _check_names_are_own(saved, keys, catalog, kind)
        return keys
    return _by_order(saved, catalog, kind)


def _by_names(names: Sequence[str], catalog: Catalog, label: str) -> tuple[str, ...]:
    """Names that are keys, as they are or without what wrappers put into them."""
    plain = {bare(key): key for key in reversed(list(catalog))}
    prefix = _common_prefix([bare(name) for name in names], plain)
    found = [name if name in catalog else plain.get(prefix + bare(name)) for name in names]
    unknown = [name for name, key in zip(names, found, strict=True) if key is None]
    keys = [key for key in found if key is not None]
    if unknown:
        fact = f"has `{unknown[0]}`, which is not a key of the model"
        more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
        raise InputError(label, fact + more, "give the optimizer of the model that is mapped")
    if len(set(keys)) < len(keys):
        twice = next(key for key, count in Counter(keys).items() if count > 1)
        raise InputError(label, f"two of its parameters are `{twice}` of the model")
    return tuple(keys)


def _common_prefix(names: Sequence[str], keys: Mapping[str, str]) -> str:
    """What all names lack to be keys, as `model.`; nothing where some are, or where that is not
    certain.
    """
    if not names or any(name in keys for name in names):
        return ""
    ends = [key.removesuffix(names[0]) for key in keys if key.endswith(f".{names[0]}")]
    fitting = [prefix for prefix in ends if all(prefix + name in keys for name in names)]
    return fitting[0] if len(fitting) == 1 else ""


def bare(name: str) -> str:
    """A name without the parts that DDP, torch.compile, FSDP and activation checkpoints put into
    it.
    """
    return _WRAPPER.sub("", name)


def _check_shapes(saved: SavedOptimizer, keys: Sequence[str], catalog: Catalog, kind: Kind) -> None:
    """Raises InputError for a parameter whose slots have another shape than its key."""
    for parameter, key in zip(saved.parameters, keys, strict=True):
        shape = shape_of(parameter, kind)
        if shape is not None and shape != catalog[key].shape:
            fact = (
                f"its state of `{key}` is {shape_text(shape)}, the parameter "
                f"{shape_text(catalog[key].shape)}"
            )
            raise InputError(saved.label, fact, "is it the optimizer of this model?")


def _check_names_are_own(
    saved: SavedOptimizer, keys: Sequence[str], catalog: Catalog, kind: Kind | UnknownKind
) -> None:
    """Raises InputError for names that may be another optimizer's.

    torch pairs a state that it loads by position and keeps its names (`load_state_dict`, torch
    2.13): loaded into a model whose parameters stand in another order, they are wrong ever after.
    """
    places = {key: place for place, key in enumerate(catalog)}
    groups = _places_by_group(saved)
    if not in_module_order(catalog) or all(
        places[keys[one]] < places[keys[other]]
        for group in groups
        for one, other in pairwise(group)
    ):
        return
    candidates = [info for info in catalog.values() if may_be_trained(info)]
    shapes = [shape_of(parameter, kind) for parameter in saved.parameters]
    if possible_pairings(groups, shapes, candidates, saved.label):
        fact = (
            "names its parameters in another order than the model has them, whose order fits as "
            "well; torch keeps the names of a state that was loaded by position"
        )
        raise InputError(saved.label, fact, "say which is right: `names`, a list for each group")


def _by_order(saved: SavedOptimizer, catalog: Catalog, kind: Kind | UnknownKind) -> tuple[str, ...]:
    if unknown := [key for key in saved.order if key not in catalog]:
        raise InputError(saved.label, f"`{unknown[0]}` of `names` is not a key of the source")
    given = [catalog[key] for key in saved.order] or catalog.values()
    candidates = [info for info in given if may_be_trained(info)]
    shapes = [shape_of(parameter, kind) for parameter in saved.parameters]
    if len(shapes) > len(candidates):
        fact = f"has {counted(len(shapes), 'parameter')}, the model {len(candidates)} at most"
        raise InputError(saved.label, fact, "give the optimizer of the model that is mapped")
    if not saved.order and not in_module_order(catalog):
        return _by_shapes_alone(saved.label, shapes, candidates)
    pairings = possible_pairings(_places_by_group(saved), shapes, candidates, saved.label)
    if len(pairings) != 1:
        raise _not_certain(saved.label, pairings, PARAMETERS_ALONE if saved.order else HINT)
    return tuple(pairings[0][place] for place in range(len(shapes)))


def pairing_note(saved: SavedOptimizer, catalog: Catalog, kind: Kind | UnknownKind) -> str | None:
    """What a reader should know of numbers that became keys by the order of the model's parameters,
    where equal shapes leave another order possible; None where there is nothing.
    """
    if saved.order or all(parameter.name is not None for parameter in saved.parameters):
        return None
    known = Counter(info.shape for info in catalog.values() if may_be_trained(info))
    shapes = (shape_of(parameter, kind) for parameter in saved.parameters)
    alike = sum(shape is not None and known[shape] > 1 for shape in shapes)
    if not alike:
        return None
    order = (
        "the optimizer's state names no parameters, and they were taken in the order of the model's"
    )
    return f"{order}; {alike} have equal shapes, for which another order would not be noticed"


def _places_by_group(saved: SavedOptimizer) -> list[list[int]]:
    groups: dict[int, list[int]] = {}
    for place, parameter in enumerate(saved.parameters):
        groups.setdefault(parameter.group, []).append(place)
    return list(groups.values())


def in_module_order(catalog: Catalog) -> bool:
    """Whether keys stand as modules have them, and aren't sorted by whoever wrote them: as text, or
    as safetensors' writer does it; with siblings that would hardly stand so by chance, or with
    parameters of equal shapes that another order would exchange.
    """
    if catalog.is_declared or not catalog.is_ordered:
        return catalog.is_declared
    if not is_writer_order(list(catalog.values())):
        return True
    if any(one < other and _counted(one) > _counted(other) for one, other in pairwise(catalog)):
        return False  # `layers.10` before `layers.2`
    return _count_orders(catalog) < MAX_CHANCE and not _have_equals(catalog)


def _counted(key: str) -> list[tuple[int, str]]:
    """A key as something that sorts by its numbers, however long they are."""
    parts: list[str] = _PARTS.findall(key)
    return [
        (len(part.lstrip("0")), part.lstrip("0")) if part[0] in "0123456789" else (-1, part)
        for part in parts
    ]


def _count_orders(keys: Iterable[str]) -> int:
    """In how many orders the names in keys might stand; numbers have one."""
    siblings: dict[str, set[str]] = {}
    for key in keys:
        parent = ""
        for name in key.split("."):
            siblings.setdefault(parent, set()).add(_NUMBERS.sub("0", name))
            parent = f"{parent}.{name}"
    most: dict[str, int] = {}
    for parent, names in siblings.items():
        kind = _NUMBERS.sub("0", parent)
        most[kind] = max(most.get(kind, 1), min(len(names), MAX_CHANCE))
    return prod(factorial(count) for count in most.values())


def _have_equals(catalog: Catalog) -> bool:
    """Whether two parameters have one shape, and names that differ in more than numbers."""
    names: dict[Shape, str] = {}
    return any(
        names.setdefault(info.shape, name) != name
        for info in catalog.values()
        if may_be_trained(info)
        for name in (_NUMBERS.sub("0", info.key),)
    )


def _by_shapes_alone(
    label: str, shapes: Sequence[Shape | None], candidates: Sequence[TensorInfo]
) -> tuple[str, ...]:
    """Keys in no order: each parameter must have a shape that one key has."""
    keys = Counter(info.shape for info in candidates)
    own = Counter(shapes)
    if any(shape is None or keys[shape] != 1 or own[shape] != 1 for shape in shapes):
        fact = "which parameter has which number can't be known: the model's keys are sorted"
        raise InputError(label, fact, HINT)
    by_shape = {info.shape: info.key for info in candidates}
    return tuple(by_shape[shape] for shape in shapes if shape is not None)


PARAMETERS_ALONE = "leave out of `names` what is not a parameter (a buffer), and list all that are"
HINT = (
    "give `names`, the source's keys in the order of its model or group by group, or an optimizer "
    "that was made of `model.named_parameters()`"
)


def _not_certain(label: str, pairings: Sequence[Mapping[int, str]], hint: str) -> InputError:
    if not pairings:
        fact = "its shapes are not those of the model's parameters in their order"
        return InputError(label, fact, "give the optimizer of the model that is mapped")
    one, other = pairings[:2]
    place = next(place for place in sorted(one) if one[place] != other[place])
    fact = (
        f"which parameter has which number is not certain: {place} may be `{one[place]}` or "
        f"`{other[place]}`"
    )
    return InputError(label, fact, hint)


@frozen
class _Paired:
    """A parameter's place and its key, after all those that were paired before."""

    place: int
    key: str
    before: _Paired | None


def possible_pairings(
    groups: Sequence[Sequence[int]],
    shapes: Sequence[Shape | None],
    candidates: Sequence[TensorInfo],
    label: str,
) -> list[Mapping[int, str]]:
    """Two at most of the pairings in which each group has its parameters in the order of the keys
    and every shape agrees; None is the shape of any. Not every key needs a parameter.
    """
    ways: dict[tuple[int, ...], list[_Paired | None]] = {(0,) * len(groups): [None]}
    wanted, work = len(shapes), 0
    for index, info in enumerate(candidates):
        left = len(candidates) - index - 1
        following: dict[tuple[int, ...], list[_Paired | None]] = {}
        for state, pairings in ways.items():
            if wanted - sum(state) <= left:
                _extend(following, state, pairings)
            for number in _takers(groups, state, shapes, info.shape):
                place = groups[number][state[number]]
                after = (*state[:number], state[number] + 1, *state[number + 1 :])
                _extend(following, after, [_Paired(place, info.key, each) for each in pairings])
        ways = following
        work += len(ways)
        if work > MAX_WAYS:
            raise InputError(label, "its parameters may be paired in too many ways", HINT)
    return [_as_mapping(each) for each in ways.get(tuple(map(len, groups)), [])]


def _takers(
    groups: Sequence[Sequence[int]],
    state: tuple[int, ...],
    shapes: Sequence[Shape | None],
    shape: Shape,
) -> Iterable[int]:
    """The groups whose next parameter may be a key of this shape."""
    for number, places in enumerate(groups):
        if state[number] < len(places) and shapes[places[state[number]]] in (None, shape):
            yield number


def _extend(
    ways: dict[tuple[int, ...], list[_Paired | None]],
    state: tuple[int, ...],
    pairings: Collection[_Paired | None],
) -> None:
    found = ways.setdefault(state, [])
    found += list(pairings)[: 2 - len(found)]


def _as_mapping(last: _Paired | None) -> Mapping[int, str]:
    result: dict[int, str] = {}
    while last is not None:
        result[last.place] = last.key
        last = last.before
    return result
