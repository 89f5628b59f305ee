"""The key that somebody probably meant."""

from collections.abc import Iterable
from difflib import SequenceMatcher
from heapq import nsmallest

MAX_COMPARED = 2000
MAX_WORK = 5_000_000
"""Pairs of characters that are compared, for keys of a few letters that come over and over: half a
second.
"""


def nearest(key: str, keys: Iterable[str]) -> str | None:
    """The most similar of `keys`, or None when none is at least 60 % alike."""
    candidates = nsmallest(MAX_COMPARED, keys, key=lambda other: _distance(key, other))
    matcher = SequenceMatcher(b=key, autojunk=False)
    best, ratio, planned = None, 0.6, 0
    for candidate in candidates:
        matcher.set_seq1(candidate)
        if matcher.real_quick_ratio() > ratio and matcher.quick_ratio() > ratio:
            planned += len(key) * len(candidate)
            if planned > MAX_WORK:
                break
            if matcher.ratio() > ratio:
                best, ratio = candidate, matcher.ratio()
    return best


def _distance(key: str, other: str) -> int:
    """A cheap first sieve: names that both keys have at the same place count most."""
    source, target = key.split("."), other.split(".")
    same = sum(a == b for a, b in zip(source, target, strict=False)) + (source[-1] == target[-1])
    return abs(len(source) - len(target)) - 2 * same
