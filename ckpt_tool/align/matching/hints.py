"""What a person says of one pair, for all pairs that it settles: the same names in other blocks,
and what lies beside it.
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import takewhile
from operator import ne

from ckpt_tool.align.naming.modules import Candidate, Modules, ModuleTensors
from ckpt_tool.align.naming.paths import Names, is_below, pattern_of
from ckpt_tool.align.naming.vocabulary import stem_and_number
from ckpt_tool.align.weights import WEIGHTS


class Hints:
    """How much the hints speak for a pair of modules."""

    def __init__(self, modules: Modules, hints: Sequence[Candidate]) -> None:
        pairs = [(modules.source[i].names, modules.target[j].names) for i, j in hints]
        self._by_kind: dict[tuple[Names, Names], list[tuple[Names, Names]]] = defaultdict(list)
        for a, b in pairs:
            self._by_kind[pattern_of(a), pattern_of(b)].append((a, b))
        self._places = [place for a, b in pairs if (place := _differing(a, b))]

    def of(self, a: ModuleTensors, b: ModuleTensors) -> float:
        """What is added to a pair's score; 0 where no hint is about it."""
        if not self._by_kind:
            return 0.0
        alike = self._by_kind.get((pattern_of(a.names), pattern_of(b.names)), ())
        is_named = any(_move_together(hint, (a.names, b.names)) for hint in alike)
        is_there = any(is_below(a.names, x) and is_below(b.names, y) for x, y in self._places)
        named = WEIGHTS.hint_same_names if is_named else 0.0
        return named + (WEIGHTS.hint_same_place if is_there else 0.0)


def _move_together(hint: tuple[Names, Names], pair: tuple[Names, Names]) -> bool:
    """Whether the same numbers are others than in the hint on both sides; where one side has more
    of them, whether the last names are others on both: `norm1 -> before` says nothing of
    `norm2 -> before`.
    """
    moves = [list(map(ne, before, after)) for before, after in zip(hint, pair, strict=True)]
    numbered = [
        [is_other for is_other, name in zip(move, names, strict=True) if stem_and_number(name)]
        for move, names in zip(moves, hint, strict=True)
    ]
    if len(numbered[0]) == len(numbered[1]):
        return numbered[0] == numbered[1]
    return moves[0][-1] == moves[1][-1] or all(names[-1].isdecimal() for names in pair)


def _differing(a: Names, b: Names) -> tuple[Names, Names] | None:
    """The paths above what both names end in."""
    ends = zip(a[::-1], b[::-1], strict=False)
    shared = len(list(takewhile(lambda pair: pair[0] == pair[1], ends)))
    source, target = a[: len(a) - shared], b[: len(b) - shared]
    return (source, target) if source and target and shared else None
