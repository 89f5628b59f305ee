"""How the keys of two catalogs relate before any rule says so: by a prefix, or by position."""

from ckpt_tool.tensors import Catalog

MAX_TRIED = 8


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
