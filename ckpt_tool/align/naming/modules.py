"""A catalog as modules: a module's own tensors, which move together, under their names in common
words.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from ckpt_tool.align.naming.paths import (
    Names,
    Numbers,
    Series,
    numbered_names,
    numbers_of,
    without_numbers,
)
from ckpt_tool.align.naming.shapes import ModuleShape
from ckpt_tool.align.naming.spellings import WEIGHT
from ckpt_tool.align.naming.vocabulary import (
    dialect,
    in_common_words,
    is_cross_first,
    places_of_norms,
    split_role,
    stem_and_number,
    words_of,
)
from ckpt_tool.align.sides import Sides
from ckpt_tool.tensors import Catalog

Ordinal = tuple[int, int]
"""A place among others, from 0, and how many these are."""


class NumberedName(NamedTuple):
    """A name that is numbered among its siblings."""

    stem: str
    """What stands before the number; of a bare number, the name before it."""
    number: int
    siblings: frozenset[int]
    """The numbers of all siblings, its own too."""


@dataclass(frozen=True, slots=True)
class ModuleTensors:
    """The tensors of one module by role. `place` is its number in the catalog's order."""

    place: int
    names: Names
    keys: Mapping[str, str]
    """Its keys by role."""
    shapes: ModuleShape
    words: frozenset[str]
    near: frozenset[str]
    """The words of its last two names."""
    indices: tuple[int, ...]
    """The places of its numbered names among their siblings."""
    is_indexed: tuple[bool, ...]
    """For each name whether it has one of these."""
    numbered: tuple[NumberedName, ...]
    """For each index what stands there."""
    numbers: Numbers
    """Those in its names; reversed where the other side counts from its other end."""
    ordinal: Ordinal = (0, 1)
    """Its place among the modules that differ from it in numbers and sizes only."""
    outer_ordinal: Ordinal = (0, 1)
    """The same for the module around it."""

    @property
    def parent(self) -> Names:
        """The path of the module that it is in."""
        return self.names[:-1]

    @property
    def outer_numbers(self) -> Numbers:
        """Its numbers without its own last one."""
        return self.numbers[:-1] if stem_and_number(self.names[-1]) else self.numbers


Modules = Sides[Sequence[ModuleTensors]]
"""The modules of both sides, each at its place."""
Candidate = tuple[int, int]
"""The places of a source module and of a target module that may belong together."""


def modules_of(catalog: Catalog, keys: Iterable[str] | None = None) -> list[ModuleTensors]:
    """The modules of a catalog in its order, or of some of its keys."""
    groups = _grouped(catalog, list(catalog if keys is None else keys))
    siblings = _siblings(groups)
    alike, indices = _alike(groups), _Indices(siblings)
    found = []
    for place, (names, roles) in enumerate(groups.items()):
        own = _own_words(next(iter(roles.values())), names, siblings)
        found.append(
            ModuleTensors(
                place,
                names,
                roles,
                tuple(sorted((role, catalog[key].shape) for role, key in roles.items())),
                _words(names) | own,
                _words(names[-2:]) | own,
                *indices.of(names, alike.get(_kind(names, roles), {})),
                numbers_of(names),
            )
        )
    return with_ordinals(found)


def with_ordinals(modules: Sequence[ModuleTensors]) -> list[ModuleTensors]:
    """The modules with their places among those that differ from them in numbers and sizes only, by
    the numbers that they count with.
    """
    own = _ordinals(
        [((without_numbers(each.names), roles_of(each)), each.numbers) for each in modules]
    )
    outer = _ordinals([(without_numbers(each.parent), each.outer_numbers) for each in modules])
    return [
        replace(module, ordinal=ordinal, outer_ordinal=around)
        for module, ordinal, around in zip(modules, own, outer, strict=True)
    ]


def roles_of(module: ModuleTensors) -> tuple[tuple[str, int], ...]:
    """A module's roles, each with the number of its tensor's dimensions."""
    return tuple((role, len(shape)) for role, shape in module.shapes)


def _words(names: Names) -> frozenset[str]:
    return frozenset(word for name in names for word in words_of(name))


def _ordinals(places: Sequence[tuple[object, Numbers]]) -> list[Ordinal]:
    """For each kind and numbers the place of these among all of the kind, of how many."""
    groups: dict[object, set[Numbers]] = defaultdict(set)
    for kind, numbers in places:
        groups[kind].add(numbers)
    order = {
        kind: {numbers: place for place, numbers in enumerate(sorted(group))}
        for kind, group in groups.items()
    }
    return [(order[kind][numbers], len(order[kind])) for kind, numbers in places]


def _own_words(
    key: str, names: Names, siblings: Mapping[Series, Mapping[int, int]]
) -> frozenset[str]:
    """Names as they are written, those without a number of a sequence, and the last name with its
    place: `norm#0`.
    """
    whole = {f"={name}" for name in re.split(r"[./]", key)[:-1] if not name.isdigit()}
    stem, number = stem_and_number(names[-1]) or ("", 0)
    beside = siblings[names[:-1], stem] if stem else {}
    if len(beside) > 1:
        whole.add(f"{stem}#{beside[number]}")
    return frozenset(whole)


def _grouped(catalog: Catalog, keys: list[str]) -> dict[Names, dict[str, str]]:
    """Keys by module and role; modules that the common words make one, though they hold the same
    roles, keep their own names.
    """
    replacements = dialect(keys)
    found = _with_norms([(key, *_placed(key, replacements)) for key in keys])
    owners: dict[tuple[Names, str], set[str]] = defaultdict(set)
    for key, names, role in found:
        owners[names, role].add(_module(key))
    mixed = {names for (names, _), modules in owners.items() if len(modules) > 1}
    groups: dict[Names, dict[str, str]] = {}
    for key, names, role in found:
        own = (*names[:-1], _module(key).rpartition(".")[2].lower()) if names in mixed else names
        roles = groups.setdefault(own, {})
        if role in roles:
            roles = groups.setdefault((*key.split("."), "."), {})
        roles[role] = key
    return groups


def _placed(key: str, replacements: Sequence[tuple[str, str]]) -> tuple[Names, str]:
    path = in_common_words(key)
    for text, replacement in replacements:
        path = path.replace(text, replacement)
    names, role = split_role(path)
    return names, role or WEIGHT


def _with_norms(found: Sequence[tuple[str, Names, str]]) -> list[tuple[str, Names, str]]:
    """The same with each block's norms called by their place."""
    children: dict[Names, set[str]] = defaultdict(set)
    inside: dict[Names, dict[str, None]] = defaultdict(dict)
    for _, names, _ in found:
        children[names[:-1]].add(names[-1])
        for depth, name in enumerate(names):
            inside[names[:depth]].setdefault(name)
    places = {
        parent: _EXCHANGED
        if is_cross_first(list(inside[parent]))
        else _of_sublayer(parent, inside[parent]) or places_of_norms(names, inside[parent])
        for parent, names in children.items()
    }
    return [
        (key, (*names[:-1], places[names[:-1]].get(names[-1], names[-1])), role)
        for key, names, role in found
    ]


def _of_sublayer(parent: Names, inside: Collection[str]) -> dict[str, str]:
    """Which norm of a block the one of a numbered sub-layer is, as in T5; nothing elsewhere."""
    if parent[-2:-1] == ("layer",) and parent[-1].isdigit() and len(inside) == 2:
        for name, norm in _SUBLAYERS.items():
            if {name, "norm"} == set(inside):
                return {"norm": norm}
    return {}


_SUBLAYERS = {"attn": "norm1", "cross": "crossattn_norm", "dense_relu_dense": "norm2"}
_EXCHANGED = {"norm1": "crossattn_norm", "norm2": "norm1", "norm3": "norm2"}


def _module(key: str) -> str:
    return key.replace("/", ".").rpartition(".")[0]


def _siblings(groups: Iterable[Names]) -> dict[Series, dict[int, int]]:
    """For each series the place of every number among those that stand there."""
    numbers: dict[Series, set[int]] = defaultdict(set)
    for names in groups:
        for series, number in numbered_names(names):
            numbers[series].add(number)
    return {
        place: {number: index for index, number in enumerate(sorted(found))}
        for place, found in numbers.items()
    }


def _alike(groups: Mapping[Names, Mapping[str, str]]) -> dict[object, Mapping[int, int]]:
    """The same for modules side by side that have tensors of the same roles: convolutions count
    apart from norms.
    """
    found: dict[object, list[int]] = defaultdict(list)
    for names, roles in groups.items():
        if numbered := stem_and_number(names[-1]):
            found[_kind(names, roles)].append(numbered[1])
    return {
        kind: {number: index for index, number in enumerate(sorted(numbers))}
        for kind, numbers in found.items()
    }


def _kind(names: Names, roles: Mapping[str, str]) -> object:
    """What modules side by side share that are counted together."""
    stem, _ = stem_and_number(names[-1]) or ("", 0)
    return names[:-1], stem, frozenset(roles)


class _Indices:
    """The places of numbered names among their siblings. Sets of siblings are made once."""

    def __init__(self, siblings: Mapping[Series, Mapping[int, int]]) -> None:
        self._siblings = siblings
        self._sets: dict[int, frozenset[int]] = {}

    def of(
        self, names: Names, alike: Mapping[int, int]
    ) -> tuple[tuple[int, ...], tuple[bool, ...], tuple[NumberedName, ...]]:
        """The places of the numbered names that have siblings; for each name whether it is one of
        them; and what they are.
        """
        outer = [self._at(names, depth) for depth in range(len(names) - 1)]
        each = [*outer, self._at(names, len(names) - 1, alike)]
        found = [one for one in each if one is not None]
        return (
            tuple(index for index, _ in found),
            tuple(one is not None for one in each),
            tuple(numbered for _, numbered in found),
        )

    def _at(
        self, names: Names, depth: int, alike: Mapping[int, int] | None = None
    ) -> tuple[int, NumberedName] | None:
        """The place of one name among its siblings; None where it has no number, or no siblings."""
        found = stem_and_number(names[depth])
        if found is None:
            return None
        stem, number = found
        places = self._siblings[names[:depth], stem] if alike is None else alike
        if len(places) < 2:
            return None
        if id(places) not in self._sets:
            self._sets[id(places)] = frozenset(places)
        stem = stem or _container(names[:depth])
        return places[number], NumberedName(stem, number, self._sets[id(places)])


def _container(names: Names) -> str:
    """The name that a bare number counts in; none where that is numbered too."""
    return f"{names[-1]}." if names and stem_and_number(names[-1]) is None else ""
