"""The parameter groups after the plan: the source's, with the target's parameters in them, or those
of the optimizer that is to have the state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ckpt_tool.errors import InputError
from ckpt_tool.frozen import frozen
from ckpt_tool.optimizers.kinds import LABELS
from ckpt_tool.optimizers.saved import SavedParameter
from ckpt_tool.optimizers.sides import Sides

GIVE_OPTIMIZER = "give the optimizer that is to have it"
PLAIN = (int, float, str, bool, tuple, list, type(None))


@frozen
class MovedGroup:
    """A group of the new state: the source's group whose entries it has, None for the target's own
    or for none; its parameters by number or name, and their keys.
    """

    source: int | None
    params: tuple[int | str, ...]
    names: tuple[str, ...]


def group_parameters(sides: Sides) -> tuple[MovedGroup, ...]:
    """The groups, with numbers that count through all of them.

    Raises InputError where it isn't certain which group a parameter is in, or which
    hyper-parameters a group has.
    """
    if sides.form == "flat":
        return tuple(_groups_of_one(sides))
    places = (
        _places_in_source(sides)
        if sides.target.groups is None
        else [each.group or 0 for each in sides.target.parameters]
    )
    count = len(_groups_kept(sides))
    members: list[list[int]] = [[] for _ in range(count)]
    for number, place in enumerate(places):
        members[place].append(number)
    sources = [_source_of_group(sides, place, members[place]) for place in range(count)]
    return tuple(_numbered(sides, members, sources))


def _numbered(
    sides: Sides, members: Sequence[Sequence[int]], sources: Sequence[int | None]
) -> Iterator[MovedGroup]:
    number = 0
    for source, group in zip(sources, members, strict=True):
        names = tuple(sides.target.parameters[each].name for each in group)
        numbers = tuple(range(number, number + len(names)))
        yield MovedGroup(source, names if sides.form == "names" else numbers, names)
        number += len(names)


def _groups_of_one(sides: Sides) -> Iterator[MovedGroup]:
    for number, parameter in enumerate(sides.target.parameters):
        sources = _sources(sides, number)
        group = _one_group(sides, parameter.name, sources) if sources else _common_group(sides)
        yield MovedGroup(group, (parameter.name,), (parameter.name,))


def _common_group(sides: Sides) -> int | None:
    """A group of the flat form, where all have the same entries."""
    groups = sides.saved.groups
    return 0 if groups and all(_are_alike(groups[0], each) for each in groups) else None


def _sources(sides: Sides, number: int) -> list[SavedParameter]:
    """The optimizer's parameters that one of the target's is made of."""
    return [each for each in sides.sources_of(sides.makers[number]) if each is not None]


def _groups_kept(sides: Sides) -> Sequence[Mapping[str, object]]:
    """The groups that there will be; of the flat form's, where each parameter is one, one in
    all.
    """
    if sides.target.groups is not None:
        return sides.target.groups
    return sides.saved.groups[:1] if sides.saved.form == "flat" else sides.saved.groups


def _places_in_source(sides: Sides) -> list[int]:
    """For each parameter the group of its sources."""
    if sides.saved.form == "flat":
        if _common_group(sides) is None:
            fact = "its parameters have other hyper-parameters, and nothing says in which group"
            raise InputError(sides.saved.label, fact, GIVE_OPTIMIZER)
        return [0] * len(sides.target.parameters)
    places = []
    for number, parameter in enumerate(sides.target.parameters):
        if sources := _sources(sides, number):
            places.append(_one_group(sides, parameter.name, sources))
        elif len(sides.saved.groups) == 1:
            places.append(0)
        else:
            fact = (
                f"has {len(sides.saved.groups)} groups, and nothing says in which of them "
                f"`{parameter.name}` is, which is fresh"
            )
            raise InputError(sides.saved.label, fact, GIVE_OPTIMIZER)
    return places


def _one_group(sides: Sides, name: str, sources: Sequence[SavedParameter]) -> int:
    """The group of parameters that become one, or become a group of one."""
    first, *others = sources
    group = sides.saved.groups[first.group]
    is_flat = sides.saved.form == "flat"
    for other in others:
        if other.group != first.group and not (
            is_flat and _are_alike(group, sides.saved.groups[other.group])
        ):
            fact = f"`{name}` is made of parameters of two groups ({first.group}, {other.group})"
            raise InputError(sides.saved.label, fact + _difference(sides, first, other))
    return first.group


def _source_of_group(sides: Sides, place: int, members: Sequence[int]) -> int | None:
    """The source's group whose entries a group has."""
    if sides.target.groups is None:
        return place
    found = {source.group: source for number in members for source in _sources(sides, number)}
    if not found:
        return (
            place if not sides.own and len(sides.target.groups) == len(sides.saved.groups) else None
        )
    first, *others = [found[number] for number in sorted(found)]
    for other in others:
        if not _are_alike(sides.saved.groups[first.group], sides.saved.groups[other.group]):
            fact = f"its groups {first.group} and {other.group} would be one"
            raise InputError(
                sides.saved.label,
                fact + _difference(sides, first, other),
                "make the optimizer of as many groups as the source's",
            )
    return first.group


def _difference(sides: Sides, one: SavedParameter, other: SavedParameter) -> str:
    first, second = sides.saved.groups[one.group], sides.saved.groups[other.group]
    odd = next((name for name in first if not _equal(first[name], second.get(name))), None)
    if odd is None:
        return ""
    values = [str(group.get(odd))[:40] for group in (first, second)]
    return f", whose `{odd}` is {values[0]} and {values[1]}"


def _are_alike(one: Mapping[str, object], other: Mapping[str, object]) -> bool:
    """Whether two groups have the same hyper-parameters; a scheduler's notes aside."""
    names = (one.keys() | other.keys()) - LABELS
    return all(_equal(one.get(name), other.get(name)) for name in names)


def _equal(one: object, other: object) -> bool:
    """Whether two entries are equal; tensors and other objects only if they are one."""
    if one is other:
        return True
    if not (isinstance(one, PLAIN) and isinstance(other, PLAIN)):
        return False
    try:
        return bool(one == other)
    except RecursionError:  # a file's list that holds itself
        return False
