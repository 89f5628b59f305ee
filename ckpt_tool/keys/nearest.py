"""The key that somebody probably meant."""

from collections.abc import Iterable
from difflib import SequenceMatcher
from heapq import nsmallest

MOST_COMPARED = 2000
MOST_WORK = 5_000_000
"""Pairs of characters that are compared, for keys of a few letters said again and again: half a second."""


def nearest(key: str, keys: Iterable[str]) -> str | None:
    """The most similar of `keys`, or None when none is at least 60 % alike."""
    candidates = nsmallest(MOST_COMPARED, keys, key=lambda other: _distance(key, other))
    matcher = SequenceMatcher(b=key, autojunk=False)
    best, ratio, work = None, 0.6, 0
    for candidate in candidates:
        matcher.set_seq1(candidate)
        if matcher.real_quick_ratio() > ratio and matcher.quick_ratio() > ratio:
            work += len(key) * len(candidate)
            if work > MOST_WORK:
                break
            if matcher.ratio() > ratio:
                best, ratio = candidate, matcher.ratio()
    return best


def _distance(key: str, other: str) -> int:
    """A cheap first sieve: names that both keys have at the same place count most."""
    ours, theirs = key.split("."), other.split(".")
    same = sum(a == b for a, b in zip(ours, theirs, strict=False)) + (ours[-1] == theirs[-1])
    return abs(len(ours) - len(theirs)) - 2 * same
