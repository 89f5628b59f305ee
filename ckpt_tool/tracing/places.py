"""Which of the values that two modules take or give belong together: by their names, as far as both
have names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ckpt_tool.tracing.leaves import Path, Position, leaves_in

if TYPE_CHECKING:
    import torch

Placed = tuple[Path, tuple[int, ...]]
"""A value's place in what holds it, and its shape."""


def belonging(ones: Sequence[Placed], others: Sequence[Placed]) -> list[tuple[int, int]]:
    """The indices of values that belong together, in the order of the first.

    Those of one name belong together; of several under one name those at the same places where
    both sides have the same, else in order, by their shapes. What is left pairs in order by its
    shapes if it has no name on one of the sides, or if the two sides have no name in common and
    as many values: one that has a name belongs to no other name.

    >>> a, out = (("a",), (2, 4)), (("out",), (2, 4))
    >>> belonging([a, out], [out]), belonging([out], [a]), belonging([a, out], [((), (2, 4))])
    ([(1, 0)], [(0, 0)], [(0, 0)])
    """
    its, theirs = ([_name(path) for path, _ in some] for some in (ones, others))
    common = {*its} & {*theirs}
    pairs = []
    for name in dict.fromkeys(each for each in its if each in common):
        left, right = ([i for i, each in enumerate(some) if each == name] for some in (its, theirs))
        pairs += _of_one_name(ones, others, left, right)
    taken = {i for i, _ in pairs}, {j for _, j in pairs}
    lefts = [i for i in range(len(ones)) if i not in taken[0]]
    rights = [j for j in range(len(others)) if j not in taken[1]]
    is_renamed = not common - {()} and len(lefts) == len(rights)
    return sorted(pairs + _in_order(ones, others, lefts, rights, its, theirs, is_renamed))


def paired_leaves(
    one: object, other: object
) -> Iterator[tuple[Path, Path, torch.Tensor, torch.Tensor]]:
    """The tensors in two values that belong together, with their places."""
    ones, others = leaves_in(one), leaves_in(other)
    places = ([(path, tuple(each.shape)) for path, each in some] for some in (ones, others))
    for i, j in belonging(*places):
        yield ones[i][0], others[j][0], ones[i][1], others[j][1]


def name_of(path: Path) -> str:
    """A place as it is written.

    >>> name_of(("hidden_states", "0"))
    'hidden_states.0'
    """
    return ".".join(path)


def have_one_name(one: Path, other: Path) -> bool:
    """Whether two places have the same names, whatever their numbers are."""
    return _name(one) == _name(other)


def _name(path: Path) -> Path:
    return tuple(part for part in path if not isinstance(part, Position))


def _of_one_name(
    ones: Sequence[Placed], others: Sequence[Placed], lefts: list[int], rights: list[int]
) -> list[tuple[int, int]]:
    by_path = {others[j][0]: j for j in rights}
    if {ones[i][0] for i in lefts} == by_path.keys():
        return [(i, by_path[ones[i][0]]) for i in lefts]
    return _by_shape(ones, others, lefts, rights)


def _by_shape(
    ones: Sequence[Placed], others: Sequence[Placed], lefts: list[int], rights: list[int]
) -> list[tuple[int, int]]:
    pairs, free = [], list(rights)
    for i in lefts:
        j = next((j for j in free if others[j][1] == ones[i][1]), None)
        if j is not None:
            free.remove(j)
            pairs.append((i, j))
    return pairs


def _in_order(
    ones: Sequence[Placed],
    others: Sequence[Placed],
    lefts: list[int],
    rights: list[int],
    its: Sequence[Path],
    theirs: Sequence[Path],
    is_renamed: bool,
) -> list[tuple[int, int]]:
    """What no name pairs."""
    if is_renamed:
        return _by_shape(ones, others, lefts, rights)
    pairs = _by_shape(ones, others, [i for i in lefts if not its[i]], rights)
    named = [i for i in lefts if its[i]]
    plain = [j for j in rights if not theirs[j] and j not in {at for _, at in pairs}]
    return pairs + _by_shape(ones, others, named, plain)
