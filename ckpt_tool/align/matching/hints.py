"""What a person says of one pair, for all pairs that it settles: the same names in other blocks,
and what lies beside it.
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import takewhile

from ckpt_tool.align.naming.modules import Candidate, Modules, ModuleTensors
from ckpt_tool.align.naming.paths import Names, is_below, pattern_of
from ckpt_tool.align.weights import WEIGHTS


class Hints:
    """How much the hints speak for a pair of modules."""

    def __init__(self, modules: Modules, hints: Sequence[Candidate]) -> None:
        pairs = [(modules.source[i].names, modules.target[j].names) for i, j in hints]
        self._ends: dict[tuple[Names, Names], list[tuple[str, str]]] = defaultdict(list)
        """What the names of hints end in, by their kinds."""
        for a, b in pairs:
            self._ends[pattern_of(a), pattern_of(b)].append((a[-1], b[-1]))
        self._places = [place for a, b in pairs if (place := _differing(a, b))]

    def of(self, a: ModuleTensors, b: ModuleTensors) -> float:
        """What is added to a pair's score; 0 where no hint is about it."""
        if not self._ends:
            return 0.0
        ends = self._ends.get((pattern_of(a.names), pattern_of(b.names)), ())
        is_named = any(_move_together(hint, (a.names[-1], b.names[-1])) for hint in ends)
        is_there = any(is_below(a.names, x) and is_below(b.names, y) for x, y in self._places)
        named = WEIGHTS.hint_same_names if is_named else 0.0
        return named + (WEIGHTS.hint_same_place if is_there else 0.0)


def _move_together(hint: tuple[str, str], ends: tuple[str, str]) -> bool:
    """Whether the last names of both modules are the hint's, or neither is: `norm1 -> before` says
    nothing of `norm2 -> before`. Numbers alone may be those of blocks, which other numbers count.
    """
    if all(name.isdecimal() for name in ends):
        return True
    return (hint[0] == ends[0]) is (hint[1] == ends[1])


def _differing(a: Names, b: Names) -> tuple[Names, Names] | None:
    """The paths above what both names end in."""
    ends = zip(a[::-1], b[::-1], strict=False)
    shared = len(list(takewhile(lambda pair: pair[0] == pair[1], ends)))
    source, target = a[: len(a) - shared], b[: len(b) - shared]
    return (source, target) if source and target and shared else None
