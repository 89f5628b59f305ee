"""Names that differ in numbers or words as one product of choices, which no other key is in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from math import prod

from ckpt_tool.frozen import frozen
from ckpt_tool.keys.folding.structure import kinds_of
from ckpt_tool.keys.folding.tokens import is_number, tokens_of
from ckpt_tool.keys.folding.tree import CHILDREN, Branch
from ckpt_tool.keys.quoting import can_be_word

MAX_WORDS = 6
MAX_CHARACTERS = 72
"""A choice of words stays readable up to so many words and characters."""
MAX_WORK = 30_000_000
"""Boxes of one form times the square of their tokens: beyond it they are not compared."""
MAX_TRIES = 3_000_000
"""Boxes times other keys of their form, where a product has gaps: beyond it gaps stay; and how
often a wider box is compared with a key that it must not have.
"""

_NUMBER = ".#"
"""Stands for any number in the form of a name; no token of a name has a dot and more."""

_Values = tuple[frozenset[str], ...]
_Form = tuple[str, ...]
_Point = tuple[str, ...]


@dataclass(slots=True, eq=False)
class Box:
    """The product of one set of values for each token; `keys` are those that exist of it."""

    coordinates: _Values
    label: Hashable
    keys: list[str]


@frozen
class _Name:
    """A branch by its name: its form, and the numbers that stand in it."""

    branch: Branch
    form: _Form
    point: _Point


def _name_of(branch: Branch) -> _Name:
    tokens = tokens_of(branch.name)
    if branch.end:
        tokens = (*tokens, f".{branch.end}")  # no token of a key has a dot and more
    form = tuple([_NUMBER if is_number(token) else token for token in tokens])
    return _Name(branch, form, _point(tokens))


def merge(branches: Sequence[Branch], existing: Iterable[str]) -> list[Box]:
    """Joins branches of one label and form: first over all numbers together, also where not all of
    the product exists; then over one number or word after the other, until none can be joined.

    `existing` are all keys that there are: no product has another one in it.
    """
    names = [_name_of(branch) for branch in branches]
    alike = [(_kinds_of(kin[0].form), list(_of_one_form(kin))) for kin in _of_one_kind(names)]
    known = _points_of(_with_gaps(group for _, groups in alike for group in groups), existing)
    merged: list[Box] = []
    for kinds, groups in alike:
        boxes = [box for form, group in groups for box in _over_numbers(group, form, known)]
        merged += _merge_alike(boxes, kinds)
    return merged


def _with_gaps(groups: Iterable[tuple[_Form, list[_Name]]]) -> set[_Form]:
    """The forms of which not all of the product exists."""
    return {form for form, group in groups if len(group) > 1 and not _is_product(group)}


@lru_cache(maxsize=1 << 12)
def _singleton(token: str) -> frozenset[str]:
    return frozenset((token,))


def _point(tokens: Sequence[str]) -> _Point:
    return tuple([token for token in tokens if is_number(token)])


@lru_cache(maxsize=1 << 12)
def _kinds_of(form: _Form) -> tuple[str, ...]:
    """Of each token, whether it is a number, a dot or a word."""
    return tuple(["#" if t == _NUMBER else "." if t == "." else "a" for t in form])


def _of_one_kind(names: Sequence[_Name]) -> Iterator[list[_Name]]:
    """Branches of one label and as many tokens, by what is below them: a stem and a block are two,
    whatever their numbers are.
    """
    groups: dict[tuple[Hashable, tuple[str, ...]], list[_Name]] = defaultdict(list)
    for name in names:
        groups[name.branch.label, _kinds_of(name.form)].append(name)
    for group in groups.values():
        of_kind: dict[int, list[_Name]] = defaultdict(list)
        for kind, name in zip(kinds_of(each.branch.form for each in group), group, strict=True):
            of_kind[kind].append(name)
        yield from of_kind.values()


def _of_one_form(names: Sequence[_Name]) -> Iterator[tuple[_Form, list[_Name]]]:
    """Branches whose names differ in numbers alone."""
    groups: dict[_Form, list[_Name]] = defaultdict(list)
    for name in names:
        groups[name.form].append(name)
    yield from groups.items()


def _ranges(points: Iterable[_Point]) -> tuple[frozenset[str], ...]:
    return tuple([frozenset(values) for values in zip(*points, strict=True)])


def _is_product(names: Sequence[_Name]) -> bool:
    return prod(map(len, _ranges(name.point for name in names))) == len(names)


def _points_of(forms: set[_Form], existing: Iterable[str]) -> dict[_Form, dict[_Point, int]]:
    """The numbers of all names that are of these forms, whole or as the beginning of a key; and of
    how many keys each is.
    """
    found: dict[_Form, dict[_Point, int]] = {form: {} for form in forms}
    places: dict[_Form, list[tuple[int, dict[_Point, int]]]] = {}
    """Of each form of a key, those of the forms that it is or begins with, and how much of it."""
    for key in existing if forms else ():
        tokens = tokens_of(key)
        form = tuple([_NUMBER if is_number(token) else token for token in tokens])
        if (places_of_form := places.get(form)) is None:
            ends = ((length, found.get((*form[:length], *end))) for length, end in _ends(form))
            places_of_form = [(length, points) for length, points in ends if points is not None]
            places[form] = places_of_form
        for length, points in places_of_form:
            point = _point(tokens[:length])
            points[point] = points.get(point, 0) + 1
    return found


def _ends(form: _Form) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Where a pattern that stands for a key of this form may end, and in what."""
    yield len(form), ()
    dots = [i + 1 for i, token in enumerate(form) if token == "."]
    for length in dots:
        yield length, (".**",)
    if dots:
        yield dots[-1], (f".{CHILDREN}",)


def _over_numbers(
    names: Sequence[_Name], form: _Form, known: Mapping[_Form, dict[_Point, int]]
) -> list[Box]:
    """Branches of one form as few boxes, each over as many in turn as its product has no other key
    in it.
    """
    points = [name.point for name in names]
    parts = [list(range(len(names)))]
    if form in known:
        own: dict[_Point, int] = {}
        for name in names:
            own[name.point] = own.get(name.point, 0) + len(name.branch.keys)
        foreign = [point for point, count in known[form].items() if own.get(point, 0) != count]
        if len(names) * len(foreign) > MAX_TRIES:
            parts = [[i] for i in range(len(names))]
        else:
            parts = list(_in_turn(points, foreign))
    return [_box([names[i] for i in part], form) for part in parts]


def _in_turn(points: Sequence[_Point], foreign: Sequence[_Point]) -> Iterator[list[int]]:
    """Which points go together: all, or as many that follow each other as have no other one among
    them, neither a foreign one nor one of a part before.
    """
    whole = _ranges(points)
    avoided = [point for point in foreign if _is_in(point, whole)]
    if not avoided:
        yield list(range(len(points)))
        return
    left, tries = dict(enumerate(points)), MAX_TRIES
    while left and tries > 0:
        ranges, tries = _grown(list(left.values()), avoided, tries - len(left))
        part = [i for i, point in left.items() if _is_in(point, ranges)]
        avoided += [left.pop(i) for i in part]
        yield part
    yield from ([i] for i in left)


def _grown(points: Sequence[_Point], avoided: Sequence[_Point], tries: int) -> tuple[_Values, int]:
    """The ranges of the first point, and of as many after it as have none that is avoided among
    them; and the tries that are left.
    """
    ranges = _ranges(points[:1])
    for point in islice(points, 1, None):
        wider = tuple([values | {value} for values, value in zip(ranges, point, strict=True)])
        if wider == ranges:
            continue
        tries -= len(avoided)
        if any(_is_in(each, wider) for each in avoided):
            break
        ranges = wider
    return ranges, tries


def _is_in(point: _Point, ranges: Sequence[frozenset[str]]) -> bool:
    return all(value in values for value, values in zip(point, ranges, strict=True))


def _box(names: Sequence[_Name], form: _Form) -> Box:
    ranges = iter(_ranges(name.point for name in names))
    coordinates = tuple([next(ranges) if t == _NUMBER else _singleton(t) for t in form])
    keys = [key for name in names for key in name.branch.keys]
    return Box(coordinates, names[0].branch.label, keys)


def _merge_alike(boxes: list[Box], kinds: tuple[str, ...]) -> list[Box]:
    if len(boxes) < 2 or len(boxes) * len(kinds) ** 2 > MAX_WORK:
        return boxes
    axes = [i for i in reversed(range(len(kinds))) if kinds[i] == "#"] + [
        i for i in reversed(range(len(kinds))) if kinds[i] == "a"
    ]
    before = len(boxes) + 1
    while len(boxes) < before:
        before = len(boxes)
        for axis in axes:
            boxes = _join_along(boxes, axis, kinds)
    return boxes


def _join_along(boxes: list[Box], axis: int, kinds: tuple[str, ...]) -> list[Box]:
    alike: dict[_Values, list[Box]] = defaultdict(list)
    for box in boxes:
        alike[(*box.coordinates[:axis], *box.coordinates[axis + 1 :])].append(box)
    joined: list[Box] = []
    for group in alike.values():
        words = [word for box in group for word in box.coordinates[axis]]
        if len(group) > 1 and _can_be_joined(axis, kinds, words):
            before, after = group[0].coordinates[:axis], group[0].coordinates[axis + 1 :]
            keys = [key for box in group for key in box.keys]
            joined.append(Box((*before, frozenset(words), *after), group[0].label, keys))
        else:
            joined.extend(group)
    return joined


def _can_be_joined(axis: int, kinds: tuple[str, ...], words: Sequence[str]) -> bool:
    """Numbers can. Words can where they name tensors of one module, or parts of numbered blocks:
    what stands by itself in a network keeps its line.
    """
    if kinds[axis] == "#":
        return True
    is_name = axis == len(kinds) - 1 and "." in kinds
    return (is_name or "#" in kinds[:axis]) and _makes_a_choice(words)


def _makes_a_choice(words: Sequence[str]) -> bool:
    return (
        len(words) <= MAX_WORDS
        and sum(map(len, words)) <= MAX_CHARACTERS
        and all(word[0] != "." and can_be_word(word) for word in words)
    )
