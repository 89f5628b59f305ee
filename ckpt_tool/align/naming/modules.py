"""A catalog as modules: a module's own tensors, which move together, under their names in common
words.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ckpt_tool.align.naming.vocabulary import (
    BIAS,
    WEIGHT,
    common_path,
    dialect,
    is_cross_first,
    places_of_norms,
    split_role,
    stem_and_number,
    words_of,
)
from ckpt_tool.tensors import Catalog, Shape

Names = tuple[str, ...]
Numbers = tuple[int, ...]
Ordinal = tuple[int, int]
NumberedName = tuple[str, int, frozenset[int]]
ModuleShape = tuple[tuple[str, Shape], ...]


@dataclass(frozen=True, slots=True)
class ModuleTensors:
    """The tensors of one module by role. `indices` are the places of its numbered names among their
    siblings.
    """

    place: int
    names: Names
    keys: Mapping[str, str]
    shapes: ModuleShape
    words: frozenset[str]
    near: frozenset[str]
    indices: tuple[int, ...]
    is_indexed: tuple[bool, ...]
    numbered: tuple[NumberedName, ...]
    """For each rank the stem (of a bare number, the name before it), the number itself, and the
    numbers of all siblings.
    """
    numbers: Numbers
    """Those in its names, as they count; a sequence that the other side counts from its other end
    is turned round.
    """
    ordinal: Ordinal = (0, 1)
    """Its place among the modules that differ from it in numbers and sizes only, and how many these
    are.
    """
    outer_ordinal: Ordinal = (0, 1)
    """The same for the module around it."""

    @property
    def parent(self) -> Names:
        return self.names[:-1]

    @property
    def outer_numbers(self) -> Numbers:
        return self.numbers[:-1] if stem_and_number(self.names[-1]) else self.numbers


def modules_of(catalog: Catalog, keys: Iterable[str] | None = None) -> list[ModuleTensors]:
    """The modules of a catalog in its order, or of some of its keys."""
    groups = _grouped(catalog, list(catalog if keys is None else keys))
    siblings = _siblings(groups)
    kinds, indices = _alike(groups), _Indices(siblings)
    found = []
    for place, (names, roles) in enumerate(groups.items()):
        shapes = tuple(sorted((role, catalog[key].shape) for role, key in roles.items()))
        own = [_own_words(next(iter(roles.values())), names, siblings)]
        near = frozenset(word for name in names[-2:] for word in words_of(name)).union(*own)
        words = frozenset(word for name in names for word in words_of(name)).union(*own)
        alike = kinds.get(
            (names[:-1], (stem_and_number(names[-1]) or ("",))[0], frozenset(roles)), {}
        )
        found.append(
            ModuleTensors(
                place,
                names,
                roles,
                shapes,
                words,
                near,
                *indices.of(names, alike),
                numbers_of(names),
            )
        )
    return with_ordinals(found)


def with_ordinals(modules: Sequence[ModuleTensors]) -> list[ModuleTensors]:
    """The modules with their places among those that differ from them in numbers and sizes only, by
    the numbers that they count with.
    """
    own = _ordinals(
        [
            (
                (kind_of(module.names), tuple((role, len(shape)) for role, shape in module.shapes)),
                module.numbers,
            )
            for module in modules
        ]
    )
    outer = _ordinals([(kind_of(module.parent), module.outer_numbers) for module in modules])
    return [
        replace(module, ordinal=ordinal, outer_ordinal=around)
        for module, ordinal, around in zip(modules, own, outer, strict=True)
    ]


def _ordinals(places: Sequence[tuple[object, Numbers]]) -> list[Ordinal]:
    """For each kind and numbers the place of these among all of the kind, and how many there are."""
    groups: dict[object, set[Numbers]] = defaultdict(set)
    for kind, numbers in places:
        groups[kind].add(numbers)
    order = {
        kind: {numbers: place for place, numbers in enumerate(sorted(group))}
        for kind, group in groups.items()
    }
    return [(order[kind][numbers], len(order[kind])) for kind, numbers in places]


def numbers_of(names: Names) -> Numbers:
    return tuple(found[1] for name in names if (found := stem_and_number(name)))


def block_of(names: Names) -> Names:
    """A path as far as its last number."""
    return names[
        : max((depth + 1 for depth, name in enumerate(names) if stem_and_number(name)), default=0)
    ]


def kind_of(names: Names) -> Names:
    """Names without their numbers."""
    return tuple(found[0] if (found := stem_and_number(name)) else name for name in names)


def pattern_of(names: Names) -> Names:
    """Names with their numbers left open: a dot, which no name has, stands for each."""
    return tuple(f"{found[0]}." if (found := stem_and_number(name)) else name for name in names)


def _own_words(
    key: str, names: Names, siblings: Mapping[tuple[Names, str], Mapping[int, int]]
) -> frozenset[str]:
    """Names as they are written, those without a number of a sequence, and the last name with its
    place: `norm#0`.
    """
    whole = {f"={name}" for name in re.split(r"[./]", key)[:-1] if not name.isdigit()}
    if (
        (found := stem_and_number(names[-1]))
        and found[0]
        and len(known := siblings[names[:-1], found[0]]) > 1
    ):
        whole.add(f"{found[0]}#{known[found[1]]}")
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
    path = common_path(key)
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
        parent: _EXCHANGED if is_cross_first(list(inside[parent])) else places_of_norms(names)
        for parent, names in children.items()
    }
    return [
        (key, (*names[:-1], places[names[:-1]].get(names[-1], names[-1])), role)
        for key, names, role in found
    ]


_EXCHANGED = {"norm1": "norm2", "norm2": "norm1"}


def _module(key: str) -> str:
    return key.replace("/", ".").rpartition(".")[0]


def _siblings(groups: Iterable[Names]) -> dict[tuple[Names, str], dict[int, int]]:
    """For each parent and stem, the place of every number among those that stand there."""
    numbers: dict[tuple[Names, str], set[int]] = defaultdict(set)
    for names in groups:
        for depth, name in enumerate(names):
            if found := stem_and_number(name):
                numbers[names[:depth], found[0]].add(found[1])
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
            found[names[:-1], numbered[0], frozenset(roles)].append(numbered[1])
    return {
        kind: {number: index for index, number in enumerate(sorted(numbers))}
        for kind, numbers in found.items()
    }


class _Indices:
    """The places of numbered names among their siblings. Sets of siblings are made once."""

    def __init__(self, siblings: Mapping[tuple[Names, str], Mapping[int, int]]) -> None:
        self._siblings = siblings
        self._sets: dict[int, frozenset[int]] = {}

    def of(
        self, names: Names, alike: Mapping[int, int]
    ) -> tuple[tuple[int, ...], tuple[bool, ...], tuple[NumberedName, ...]]:
        """The places of the numbered names that have siblings; for each name whether it is one of
        them; and what they are.
        """
        indices: list[int] = []
        is_indexed: list[bool] = []
        numbered: list[NumberedName] = []
        for depth, name in enumerate(names):
            found = stem_and_number(name)
            known = (
                alike
                if depth == len(names) - 1
                else self._siblings[names[:depth], found[0]]
                if found
                else {}
            )
            is_one = found is not None and len(known) > 1
            is_indexed.append(is_one)
            if found and is_one:
                indices.append(known[found[1]])
                if id(known) not in self._sets:
                    self._sets[id(known)] = frozenset(known)
                numbered.append(
                    (found[0] or _container(names[:depth]), found[1], self._sets[id(known)])
                )
        return tuple(indices), tuple(is_indexed), tuple(numbered)


def _container(names: Names) -> str:
    return f"{names[-1]}." if names and stem_and_number(names[-1]) is None else ""


def plain(shape: Shape) -> Shape:
    """A shape without its ones, in order of size: what reshaping and transposing keep."""
    return tuple(sorted(size for size in shape if size != 1))


def similarity(source: ModuleShape, target: ModuleShape) -> float:
    """How well two modules' tensors go together: 1 where they are the same, 0 where they can't be
    one module.
    """
    a, b = dict(source), dict(target)
    shared = a.keys() & b.keys()
    if not shared:
        return 0.4 if len(a) == len(b) == 1 and set(a.values()) == set(b.values()) else 0.0
    exact = sum(a[role] == b[role] for role in shared)
    if any(plain(a[role]) != plain(b[role]) for role in shared):
        return 0.0
    only = {role for role in a.keys() ^ b.keys() if role != "count"}
    if (
        BIAS in only
        and WEIGHT in shared
        and 1 in (ranks := {len(a[WEIGHT]), len(b[WEIGHT])})
        and len(ranks) > 1
    ):
        # A norm has a bias or not; a token that is a parameter of its own is no norm.
        return 0.0
    if "mean" in only:
        return 0.0
    lack = 0.15 * len(only - {BIAS}) + 0.1 * (BIAS in only)
    return max(0.05, (1.0 if exact == len(shared) else 0.7) - lack)
