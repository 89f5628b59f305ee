"""Which modules are built alike: the names below them, but for numbers, are mostly the same."""

from collections.abc import Iterable

MIN_SHARED = 0.5
"""The share of names that modules of one kind have in common: blocks with and without a shortcut
have more; a block, and a stem of a convolution and a norm, none.
"""
MAX_NAMES = 2_000
"""Names below a module that are compared; modules with more are alike if all are equal."""

Form = frozenset[str]


def are_alike(a: Form, b: Form) -> bool:
    """Whether two modules are of one kind, by the names below each."""
    if a == b:
        return True
    if not a or not b or max(len(a), len(b)) > MAX_NAMES:
        return False
    return len(a & b) >= MIN_SHARED * len(a | b)


def kinds_of(forms: Iterable[Form]) -> list[int]:
    """A number for each form: the first form that it is like."""
    firsts: list[Form] = []
    known: dict[Form, int] = {}
    found = []
    for form in forms:
        if form not in known:
            alike = (i for i, first in enumerate(firsts) if are_alike(first, form))
            known[form] = next(alike, len(firsts))
            if known[form] == len(firsts):
                firsts.append(form)
        found.append(known[form])
    return found
