"""Names that differ in numbers or words as one product of choices, which no other key is in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from math import prod

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
"""Boxes times other keys of their form, where a product has gaps: beyond it gaps stay."""

_NUMBER = ".#"
"""Stands for any number in the form of a name; no token of a name has a dot and more."""

_Values = tuple[frozenset[str], ...]
_Form = tuple[str, ...]
_Point = tuple[str, ...]


@dataclass(slots=True)
class Box:
    """The product of one set of values for each token; `keys` are those that exist of it."""

    coordinates: _Values
    label: Hashable
    keys: list[str]


def merge(branches: Sequence[Branch], existing: Iterable[str]) -> list[Box]:
    """Joins branches of one label and form: first over all numbers together, also where not all of
    the product exists; then over one number or word after the other, until none can be joined.

    `existing` are all keys that there are: no product has another one in it.
    """
    groups: dict[tuple[Hashable, _Form], list[Branch]] = defaultdict(list)
    for branch in branches:
        groups[branch.label, _form_of(branch)].append(branch)
    alike = [(form, group) for (_, form), found in groups.items() for group in _of_one_kind(found)]
    gaps = {form for form, group in alike if len(group) > 1 and not _is_product(group, form)}
    known = _points_of(gaps, existing) if gaps else {}
    by_label: dict[tuple[Hashable, _Form], list[Box]] = defaultdict(list)
    for form, group in alike:
        boxes = _over_numbers(group, form, known.get(form, {}))
        kinds = tuple([_kind(token) for token in form])
        by_label[group[0].label, kinds] += boxes
    return [box for (_, kinds), boxes in by_label.items() for box in _merge_alike(boxes, kinds)]


@lru_cache(maxsize=1 << 12)
def _singleton(token: str) -> frozenset[str]:
    return frozenset((token,))


def _tokens(branch: Branch) -> tuple[str, ...]:
    """Of its name, and of its end, which no token of a key is: that has a dot and more."""
    tokens = tokens_of(branch.name)
    return (*tokens, f".{branch.end}") if branch.end else tokens


def _form_of(branch: Branch) -> _Form:
    return tuple([_NUMBER if is_number(token) else token for token in _tokens(branch)])


def _point(tokens: Sequence[str]) -> _Point:
    return tuple([token for token in tokens if is_number(token)])


def _kind(token: str) -> str:
    return "#" if token == _NUMBER else "." if token == "." else "a"


def _of_one_kind(branches: list[Branch]) -> Iterator[list[Branch]]:
    """Branches of one form, by what is below them: a stem and a block are two, whatever their
    numbers are.
    """
    if len(branches) < 2 or not branches[0].end:
        yield branches
        return
    groups: dict[int, list[Branch]] = defaultdict(list)
    for kind, branch in zip(kinds_of(each.form for each in branches), branches, strict=True):
        groups[kind].append(branch)
    yield from groups.values()


def _ranges(points: Iterable[_Point]) -> tuple[frozenset[str], ...]:
    return tuple([frozenset(values) for values in zip(*points, strict=True)])


def _is_product(branches: Sequence[Branch], form: _Form) -> bool:
    ranges = _ranges(_point(_tokens(branch)) for branch in branches)
    return prod(map(len, ranges)) == len(branches)


def _points_of(forms: set[_Form], existing: Iterable[str]) -> dict[_Form, dict[_Point, int]]:
    """The numbers of all names that are of these forms, whole or as the beginning of a key; and of
    how many keys each is.
    """
    found: dict[_Form, dict[_Point, int]] = {form: {} for form in forms}
    for key in existing:
        tokens = tokens_of(key)
        form = tuple([_NUMBER if is_number(token) else token for token in tokens])
        for length, end in _ends(form):
            points = found.get((*form[:length], *end))
            if points is not None:
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
    branches: Sequence[Branch], form: _Form, existing: dict[_Point, int]
) -> list[Box]:
    """Branches of one form as few boxes, each over as many in turn as its product has no other key
    in it.
    """
    points = [_point(_tokens(branch)) for branch in branches]
    own: dict[_Point, int] = {}
    for point, branch in zip(points, branches, strict=True):
        own[point] = own.get(point, 0) + len(branch.keys)
    foreign = [point for point, count in existing.items() if own.get(point, 0) != count]
    if existing and not _is_too_much(len(branches), len(foreign)):
        parts = list(_in_turn(points, foreign))
    elif existing or not _is_product(branches, form):
        parts = [[i] for i in range(len(branches))]
    else:
        parts = [list(range(len(branches)))]
    return [_box([branches[i] for i in part], form, [points[i] for i in part]) for part in parts]


def _is_too_much(branches: int, foreign: int) -> bool:
    return branches * foreign > MAX_TRIES


def _in_turn(points: Sequence[_Point], foreign: Sequence[_Point]) -> Iterator[list[int]]:
    """Which points go together: all, or as many that follow each other as have no foreign one among
    them.
    """
    whole = _ranges(points)
    near = [point for point in foreign if _is_in(point, whole)]
    if not near:
        yield list(range(len(points)))
        return
    part, ranges = [0], _ranges(points[:1])
    for i, point in enumerate(islice(points, 1, None), 1):
        wider = tuple(values | {value} for values, value in zip(ranges, point, strict=True))
        if any(_is_in(each, wider) for each in near):
            yield part
            part, ranges = [i], _ranges([point])
        else:
            part, ranges = [*part, i], wider
    yield part


def _is_in(point: _Point, ranges: Sequence[frozenset[str]]) -> bool:
    return all(value in values for value, values in zip(point, ranges, strict=True))


def _box(branches: Sequence[Branch], form: _Form, points: Sequence[_Point]) -> Box:
    ranges = iter(_ranges(points))
    coordinates = tuple([next(ranges) if t == _NUMBER else _singleton(t) for t in form])
    keys = [key for branch in branches for key in branch.keys]
    return Box(coordinates, branches[0].label, keys)


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
