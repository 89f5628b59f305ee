"""Which network of a training checkpoint an optimizer is that of."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ckpt_tool.errors import InputError
from ckpt_tool.formats.torch_files.state_dicts import is_averaged_copy
from ckpt_tool.mapping.copies import plan_as_named, prefixes_of
from ckpt_tool.optimizers import recognise
from ckpt_tool.optimizers.naming import HINT, PARAMETERS_ALONE, keys_of_parameters, may_be_trained
from ckpt_tool.optimizers.shapes import shape_of
from ckpt_tool.tensors import Catalog

if TYPE_CHECKING:
    from ckpt_tool.formats.checkpoint import Contents
    from ckpt_tool.mapping.plan import Plan
    from ckpt_tool.optimizers import SavedOptimizer

AVERAGED_MODEL = "n_averaged"
"""What torch's AveragedModel has beside the averages."""
_WORD = re.compile("[A-Z]?[a-z]+|[A-Z]+|[0-9]+")
_PLAIN = frozenset(
    (
        *("optimizer", "optimizers", "optim", "optims", "opt", "opts", "adam", "adamw", "sgd"),
        *("state", "states", "dict", "dicts", "model", "models", "module", "net", "nets"),
        *("network", "networks", "weights", "params", "parameters"),
    )
)
"""Words that say what something is, and not which one."""
Network = tuple[str, Catalog]


def other_networks(contents: Contents, mapped: Sequence[str]) -> Iterator[Network]:
    """The state dicts of a file that are not mapped, each with its tensors. Averages of weights
    are none: no optimizer trains them.
    """
    for place in contents.state_dicts:
        if not place.path or place.path == contents.taken or place.path in mapped:
            continue
        start = f"{place.path}."
        inside = Catalog(
            replace(info, key=info.key[len(start) :])
            for info in contents.elsewhere
            if info.key.startswith(start)
        )
        is_average = is_averaged_copy(tuple(place.path.split("."))) or AVERAGED_MODEL in inside
        if inside and not is_average:
            yield place.path, inside


def other_owner(
    saved: SavedOptimizer,
    path: str,
    plan: Plan,
    mapped: Sequence[str],
    others: Sequence[Network],
) -> str | None:
    """The network, other than those at the paths `mapped`, whose optimizer it is; None where it
    is that of one of them. `path` is where the optimizer is; nothing where names tell nothing.

    Raises InputError where it may be that of either.
    """
    fitting = {name: catalog for name, catalog in others if may_be_of(saved, catalog)}
    if not fitting:
        return None
    is_own = may_be_of(saved, plan.source)
    candidates = [*(mapped if is_own else ()), *fitting]
    owner = _by_name(path, candidates) if path else None
    if owner is None and is_own:
        name = next(iter(fitting))
        can_be_mapped = bool(path) and bool(
            prefixes_of(fitting[name], plan_as_named(plan, fitting[name]))
        )
        raise InputError(
            saved.label,
            f"may be the optimizer of the weights, and that of `{name}`",
            f"--also '#{name}' maps it, too" if can_be_mapped else None,
        )
    return None if owner in mapped else owner or next(iter(fitting))


def may_be_of(saved: SavedOptimizer, catalog: Catalog) -> bool:
    """Whether the optimizer's parameters may be among these tensors, in whatever order where that
    is not certain.
    """
    kind = recognise(saved.groups, saved.slots)
    try:
        return bool(keys_of_parameters(saved, catalog, kind))
    except InputError as error:
        if error.hint not in (HINT, PARAMETERS_ALONE):
            return False
    shapes = Counter(shape_of(parameter, kind) for parameter in saved.parameters)
    del shapes[None]
    return shapes <= Counter(info.shape for info in catalog.values() if may_be_trained(info))


def _by_name(path: str, candidates: Sequence[str]) -> str | None:
    """The one network that is called as the optimizer is: `critic_1` and `critic_1_optimizer`,
    `discriminator` and `opt_d`.
    """
    own = _which(path)
    same = [name for name in candidates if _which(name) == own]
    alike = same or [name for name in candidates if _are_alike(_which(name), own)]
    return alike[0] if len(alike) == 1 else None


def _which(path: str) -> tuple[str, ...]:
    """The words of a path that tell it from others; the first of a list is the plain one."""
    names = [name for name in path.split(".") if name != "0"]
    words = [word.lower() for name in names for word in _WORD.findall(name)]
    return tuple(word for word in words if word not in _PLAIN)


def _are_alike(one: Sequence[str], other: Sequence[str]) -> bool:
    """Whether words are the same, or one short for the other."""
    return len(one) == len(other) and all(
        word.startswith(short) or short.startswith(word)
        for word, short in zip(one, other, strict=True)
    )
