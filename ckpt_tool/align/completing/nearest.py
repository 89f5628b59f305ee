"""Which of several paths belongs to one, by what both contain and what their names end in."""

from collections.abc import Callable, Sequence
from itertools import takewhile

from ckpt_tool.align.naming.paths import Names
from ckpt_tool.align.weights import WEIGHTS

Agreement = Callable[[Names, Names], float]
"""How far two paths contain the same."""


def nearest_path(path: Names, others: Sequence[Names], agreement: Agreement) -> Names | None:
    """The path that clearly agrees best with this one; None where none does."""
    rated = sorted(
        (
            (agreement(path, other) + WEIGHTS.shared_end * _shared_end(path, other), other)
            for other in others
        ),
        reverse=True,
    )
    if not rated or rated[0][0] < WEIGHTS.least_agreement:
        return None
    if len(rated) > 1 and rated[0][0] - rated[1][0] < WEIGHTS.nearest_lead:
        return None
    return rated[0][1]


def _shared_end(a: Names, b: Names) -> int:
    """How many last names two paths share."""
    pairs = zip(reversed(a), reversed(b), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
