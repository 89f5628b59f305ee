"""What a person says of one pair, for all pairs that it settles: the same names in other blocks,
and what lies beside it.
"""

from collections.abc import Sequence
from itertools import takewhile

from ckpt_tool.align.naming.modules import ModuleTensors, Names, pattern_of

SAME_NAMES, SAME_PLACE = 3.0, 1.0


class Hints:
    """How much the hints speak for a pair of modules."""

    def __init__(
        self,
        source: Sequence[ModuleTensors],
        target: Sequence[ModuleTensors],
        hints: Sequence[tuple[int, int]],
    ) -> None:
        pairs = [(source[i].names, target[j].names) for i, j in hints]
        self._kinds = {(pattern_of(a), pattern_of(b)) for a, b in pairs}
        self._places = [place for a, b in pairs if (place := _differing(a, b))]

    def of(self, a: ModuleTensors, b: ModuleTensors) -> float:
        if not self._kinds:
            return 0.0
        said = SAME_NAMES if (pattern_of(a.names), pattern_of(b.names)) in self._kinds else 0.0
        is_there = any(a.names[: len(x)] == x and b.names[: len(y)] == y for x, y in self._places)
        return said + (SAME_PLACE if is_there else 0.0)


def _differing(a: Names, b: Names) -> tuple[Names, Names] | None:
    """The paths above what both names end in."""
    shared = len(
        list(takewhile(lambda pair: pair[0] == pair[1], zip(a[::-1], b[::-1], strict=False)))
    )
    source, target = a[: len(a) - shared], b[: len(b) - shared]
    return (source, target) if source and target and shared else None
