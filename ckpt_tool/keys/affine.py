"""Whole numbers that depend affinely on others, `3*b+j+1`, so that each can be worked out
backwards.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from math import prod
from operator import mul

from ckpt_tool.frozen import frozen

_TERM = re.compile(
    r"([+-]?)(?:(?:([0-9]{1,9})\*)?([A-Za-z_][A-Za-z0-9_]*)(?:\*([0-9]{1,9}))?|([0-9]{1,9}))"
)

Bounds = Mapping[str, range]
MAX_ENUMERATED = 4096


@frozen
class LinearNumber:
    """`constant` plus each name times its factor; factors are not 0 and the names are sorted."""

    terms: tuple[tuple[str, int], ...]
    constant: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The names, sorted."""
        return tuple(name for name, _ in self.terms)

    def value(self, numbers: Mapping[str, int]) -> int:
        """The sum for these numbers. Raises KeyError where one is missing."""
        return self.constant + sum(factor * numbers[name] for name, factor in self.terms)

    def bind(self, numbers: Mapping[str, int]) -> "LinearNumber":
        """The same with some names replaced by their numbers."""
        known = sum(factor * numbers[name] for name, factor in self.terms if name in numbers)
        return LinearNumber(
            tuple(term for term in self.terms if term[0] not in numbers), self.constant + known
        )

    def __str__(self) -> str:
        parts = [
            f"{'+' if f > 0 else '-'}{'' if abs(f) == 1 else f'{abs(f)}*'}{n}"
            for n, f in self.terms
        ]
        if self.constant or not parts:
            parts.append(f"{self.constant:+d}")
        return "".join(parts).removeprefix("+")


def parse_affine(text: str) -> LinearNumber | None:
    """`3*b+j+1` as a value, or None for text that is no such sum."""
    factors: Counter[str] = Counter()
    for name, factor in _parse_terms(text.replace(" ", "")):
        factors[name] += factor
    constant = factors.pop("", 0)
    terms = tuple(sorted((name, factor) for name, factor in factors.items() if factor))
    return LinearNumber(terms, constant) if terms else None


def _parse_terms(text: str) -> list[tuple[str, int]]:
    """Each name of a sum with its factor, each number with an empty name; nothing for no sum."""
    terms, position = [], 0
    while position < len(text):
        found = _TERM.match(text, position)
        if not found or (position and not found[1]):
            return []
        sign, before, name, after, number = found.groups()
        factor = int(before or 1) * int(after or 1) * int(number or 1)
        terms.append((name or "", -factor if sign == "-" else factor))
        position = found.end()
    return terms


def solve(equations: list[tuple[LinearNumber, int]], bounds: Bounds) -> dict[str, int] | None:
    """The numbers, none negative, for which each affine sum has its value; None where there are
    none.

    Where a name has bounds, its number lies in them. `unsolvable` finds out beforehand whether
    the answer is always unique.
    """
    known: dict[str, int] = {}
    pending = equations
    while pending:
        left = []
        for affine, value in pending:
            rest = affine.bind(known)
            if len(rest.terms) > 1:
                left.append((affine, value))
            elif rest.terms:
                ((name, factor),) = rest.terms
                number = _number_for(name, factor, value - rest.constant, bounds)
                if number is None:
                    return None
                known[name] = number
            elif rest.constant != value:
                return None
        if len(left) == len(pending):
            found = _enumerate(*left[0], known, bounds)
            if found is None:
                return None
            known |= found
        pending = left
    return known


def _number_for(name: str, factor: int, total: int, bounds: Bounds) -> int | None:
    """The number which times its factor is the total; None where it is not allowed."""
    number, remainder = divmod(total, factor)
    if remainder or number < 0 or number not in bounds.get(name, _ANY):
        return None
    return number


class _Anything:
    def __contains__(self, number: int) -> bool:
        return True


_ANY = _Anything()


def _enumerate(
    affine: LinearNumber, value: int, known: Mapping[str, int], bounds: Bounds
) -> dict[str, int] | None:
    """Solves one sum of several unknown names by trying those with bounds; at most one of them has
    none.
    """
    rest = affine.bind(known)
    free = [term for term in rest.terms if term[0] not in bounds] or [rest.terms[0]]
    tried = [name for name in rest.names if name != free[0][0]]
    (name, factor) = free[0]
    for numbers in product(*(bounds[other] for other in tried)):
        guess = dict(zip(tried, numbers, strict=True))
        number = _number_for(name, factor, value - rest.bind(guess).constant, bounds)
        if number is not None:
            return {**guess, name: number}
    return None


def unsolvable(affines: list[LinearNumber], bounds: Bounds) -> LinearNumber | None:
    """The first sum that can't be solved backwards without doubt, or None when all can."""
    known: dict[str, int] = {}
    pending = affines
    while pending:
        left = [affine for affine in pending if len(affine.bind(known).terms) > 1]
        known |= {name: 0 for affine in pending if affine not in left for name in affine.names}
        if len(left) == len(pending):
            if not _has_one_answer(left[0].bind(known), bounds):
                return left[0]
            known |= dict.fromkeys(left[0].names, 0)
            left = left[1:]
        pending = left
    return None


def _has_one_answer(affine: LinearNumber, bounds: Bounds) -> bool:
    """Whether no two choices of the numbers give one sum: the bounded parts differ modulo the
    factor of the free one.
    """
    free = [factor for name, factor in affine.terms if name not in bounds]
    bounded = [(bounds[name], factor) for name, factor in affine.terms if name in bounds]
    if len(free) > 1 or prod(len(numbers) for numbers, _ in bounded) > MAX_ENUMERATED:
        return False
    sums = _sums(bounded)
    different = {total % abs(free[0]) for total in sums} if free else set(sums)
    return len(different) == len(sums)


def _sums(bounded: Sequence[tuple[range, int]]) -> list[int]:
    """The sum for each choice of numbers, one from each range, times their factors."""
    factors = [factor for _, factor in bounded]
    return [
        sum(map(mul, choice, factors)) for choice in product(*(numbers for numbers, _ in bounded))
    ]
