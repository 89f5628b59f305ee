"""Whole numbers that depend affinely on others, `3*b+j+1`, so that each can be worked out
backwards.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

_TERM = r"([+-]?)(?:(?:([0-9]{1,9})\*)?([A-Za-z_][A-Za-z0-9_]*)(?:\*([0-9]{1,9}))?|([0-9]{1,9}))"

Bounds = Mapping[str, range]
MAX_ENUMERATED = 4096


@dataclass(frozen=True, slots=True)
class LinearNumber:
    """`constant` plus each name times its factor; factors are not 0 and the names are sorted."""

    terms: tuple[tuple[str, int], ...]
    constant: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.terms)

    def value(self, numbers: Mapping[str, int]) -> int:
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
    factors: dict[str, int] = {}
    constant, position, compact = 0, 0, text.replace(" ", "")
    while position < len(compact):
        found = re.compile(_TERM).match(compact, position)
        if not found or (position and not found[1]):
            return None
        sign, before, name, after, number = found.groups()
        factor = (-1 if sign == "-" else 1) * int(before or 1) * int(after or 1)
        if name:
            factors[name] = factors.get(name, 0) + factor
        else:
            constant += factor * int(number)
        position = found.end()
    terms = tuple(sorted((name, factor) for name, factor in factors.items() if factor))
    return LinearNumber(terms, constant) if position and terms else None


def solve(equations: list[tuple[LinearNumber, int]], bounds: Bounds) -> dict[str, int] | None:
    """The numbers, none negative, for which each affine sum has its value; None where there are
    none.

    Where a name has bounds, its number lies in them. `unsolvable` tells beforehand whether the
    answer is always unique.
    """
    known: dict[str, int] = {}
    pending = equations
    while pending:
        left = []
        for affine, value in pending:
            rest = affine.bind(known)
            if len(rest.terms) > 1:
                left.append((affine, value))
                continue
            if not rest.terms:
                if rest.constant != value:
                    return None
                continue
            ((name, factor),) = rest.terms
            number, remainder = divmod(value - rest.constant, factor)
            if remainder or number < 0 or number not in bounds.get(name, _ANY):
                return None
            known[name] = number
        if len(left) == len(pending):
            found = _enumerate(*left[0], known, bounds)
            if found is None:
                return None
            known |= found
        pending = left
    return known


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
        number, remainder = divmod(value - rest.bind(guess).constant, factor)
        if not remainder and number >= 0 and number in bounds.get(name, _ANY):
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
    free = [(name, factor) for name, factor in affine.terms if name not in bounds]
    bounded = [(bounds[name], factor) for name, factor in affine.terms if name in bounds]
    size = 1
    for numbers, _ in bounded:
        size *= len(numbers)
    if len(free) > 1 or size > MAX_ENUMERATED:
        return False
    modulus = abs(free[0][1]) if free else None
    sums = [
        sum(n * f for n, (_, f) in zip(choice, bounded, strict=True))
        for choice in product(*(b for b, _ in bounded))
    ]
    return len({s % modulus if modulus else s for s in sums}) == len(sums)
