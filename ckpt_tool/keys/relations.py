"""How the keys of two catalogs relate before any rule says so: by a prefix, or by position."""

from itertools import islice

from ckpt_tool.tensors import Catalog

MAX_TRIED, MAX_EQUAL = 8, 32
"""Pairs of keys that suggest a prefix, and prefixes that are compared with the best one."""


def prefix_rule(source: Catalog, target: Catalog) -> tuple[str, int] | None:
    """The rule that adds or takes off the prefix after which most keys pair, with their number;
    None when none helps.

    Only prefixes of whole names are tried, those that the first keys of either side suggest.
    """
    best: tuple[str, int] | None = None
    equal = sum(key in target and source[key].shape == target[key].shape for key in source)
    for strip, add in sorted(_prefix_pairs(source, target)):
        count = sum(_fits(key, strip, add, source, target) for key in source)
        if count > max(equal, best[1] if best else 0) and 2 * count >= min(
            len(source), len(target)
        ):
            best = (f"{strip}** -> {add}**", count)
    return best


def prefix_rules(source: Catalog, target: Catalog) -> tuple[tuple[str, ...], int]:
    """The rules, each of one prefix for another, after which most keys pair, with their number;
    several where they pair as many. None when none helps.
    """
    best = prefix_rule(source, target)
    if best is None:
        return (), 0
    rule, count = best
    strip, add = (side.removesuffix("**") for side in rule.split(" -> "))
    tail = next(key for key in source if _fits(key, strip, add, source, target))[len(strip) :]
    others = [
        *((other, add) for other in _before(tail, source, count) if other != strip),
        *((strip, other) for other in _before(tail, target, count) if other != add),
    ]
    equal = (
        (other, new)
        for other, new in others
        if sum(_fits(key, other, new, source, target) for key in source) == count
    )
    found = (f"{other}** -> {new}**" for other, new in islice(equal, MAX_TRIED))
    return tuple(sorted((rule, *found))), count


def _before(tail: str, catalog: Catalog, count: int) -> list[str]:
    """What stands before a name that several keys end with, and before so many keys."""
    found = (key[: -len(tail)] for key in catalog if key.endswith(tail))
    prefixes = [prefix for prefix in found if not prefix or prefix.endswith(".")][:MAX_EQUAL]
    return [prefix for prefix in prefixes if _begin(prefix, catalog, count)]


def _begin(prefix: str, catalog: Catalog, count: int) -> bool:
    """Whether so many keys begin with a prefix."""
    others = (key for key in catalog if not key.startswith(prefix))
    return next(islice(others, len(catalog) - count, None), None) is None


def _fits(key: str, strip: str, add: str, source: Catalog, target: Catalog) -> bool:
    if not key.startswith(strip):
        return False
    other = add + key[len(strip) :]
    return other in target and target[other].shape == source[key].shape


def _prefix_pairs(source: Catalog, target: Catalog) -> set[tuple[str, str]]:
    tails = map(_with_tail, _same_endings(source, target))
    pairs = {
        (key[: len(key) - len(tail)], other[: len(other) - len(tail)]) for key, other, tail in tails
    }
    return {
        (strip, add)
        for strip, add in pairs
        if strip != add and all(not p or p.endswith(".") for p in (strip, add))
    }


def _with_tail(keys: tuple[str, str]) -> tuple[str, str, str]:
    source, target = (key.split(".") for key in keys)
    shared = 0
    while shared < min(len(source), len(target)) and source[-1 - shared] == target[-1 - shared]:
        shared += 1
    return keys[0], keys[1], ".".join(source[len(source) - shared :])


def _same_endings(source: Catalog, target: Catalog) -> list[tuple[str, str]]:
    """A few pairs of keys with the same last two names and the same shape."""
    by_end: dict[tuple[object, ...], str] = {}
    for key, info in target.items():
        by_end.setdefault((*key.split(".")[-2:], info.shape), key)
    ends = {key: (*key.split(".")[-2:], info.shape) for key, info in source.items()}
    return [(key, by_end[end]) for key, end in ends.items() if end in by_end][:MAX_TRIED]


def equal_positions(source: Catalog, target: Catalog) -> int:
    """How many tensors from the first on have equal shapes, one by one."""
    pairs = zip(source.values(), target.values(), strict=False)
    differ = (
        i
        for i, (from_source, from_target) in enumerate(pairs)
        if from_source.shape != from_target.shape
    )
    return next(differ, min(len(source), len(target)))
