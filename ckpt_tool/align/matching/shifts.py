"""Which block is which where one side has more of them: what hints for some say of all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from ckpt_tool.align.naming.modules import Candidate, Modules, ModuleTensors
from ckpt_tool.align.naming.paths import Series, numbered_names

Numbers = tuple[int, int]
"""The number of a block of the source, and that of its partner."""


class Shifts:
    """What hints say of the numbers of blocks, in series of which one side has more: the same
    distance for all; two hints may also tell that each second block is meant.
    """

    def __init__(self, modules: Modules, hints: Sequence[Candidate]) -> None:
        counts = modules.map(_counts) if hints else modules.map(lambda _: {})
        self._known: dict[tuple[Series, Series], set[Numbers]] = defaultdict(set)
        for i, j in hints:
            places = list(_places(modules.source[i], modules.target[j]))
            for (source, target), numbers in places:
                if len(counts.source[source]) != len(counts.target[target]):
                    self._known[source, target].add(numbers)

    def contradict(self, source: ModuleTensors, target: ModuleTensors) -> bool:
        """Whether two modules stand in blocks that are no partners, by what hints say."""
        return bool(self._known) and any(
            not _is_as_hinted(numbers, self._known[series])
            for series, numbers in _places(source, target)
            if series in self._known
        )


def _counts(modules: Sequence[ModuleTensors]) -> dict[Series, set[int]]:
    """The numbers of the blocks of each series."""
    found: dict[Series, set[int]] = defaultdict(set)
    for module in modules:
        for series, number in numbered_names(module.parent):
            found[series].add(number)
    return found


def _places(
    source: ModuleTensors, target: ModuleTensors
) -> Iterator[tuple[tuple[Series, Series], Numbers]]:
    """The series around two modules, from the outermost, with the numbers there; nothing where one
    is in more of them.
    """
    here, there = numbered_names(source.parent), numbered_names(target.parent)
    if len(here) == len(there):
        for (series, number), (other, partner) in zip(here, there, strict=True):
            yield (series, other), (number, partner)


def _is_as_hinted(numbers: Numbers, known: set[Numbers]) -> bool:
    """Whether two numbers lie on the line of those of the hints; everything does where these lie
    on none.
    """
    (i, j), *rest = sorted(known, key=lambda each: each[1])
    last, partner = rest[-1] if rest else (i + 1, j + 1)
    step, width = last - i, partner - j
    on_line = [(a - i) * width == (b - j) * step for a, b in (numbers, *rest)]
    return on_line[0] or not all(on_line[1:]) or 0 in (step, width)
