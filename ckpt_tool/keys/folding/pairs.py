"""Keys with what became of their names: pairs that changed alike, as one pattern for each side."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence

from ckpt_tool.frozen import frozen
from ckpt_tool.keys.folding.fold import Fold, fold
from ckpt_tool.keys.quoting import quote

_WORDS = re.compile(r"\{[^{}]*\}")
_NUMBER = re.compile(r"(?<![0-9])[0-9]{1,18}(?![0-9])")
_MAX_ROUNDS = 6
"""Times that both sides are folded; what they don't agree about by then stands for itself."""


@frozen
class PairGroup:
    """Patterns of both sides, and the keys of the first that they stand for."""

    a: str
    b: str
    keys: tuple[str, ...]


def pair_groups(
    pairs: Mapping[str, str],
    labels: Mapping[str, Hashable],
    all_a: Iterable[str],
    all_b: Iterable[str],
) -> list[PairGroup]:
    """Pairs, by the key of the first side, folded where they changed alike and have one label: each
    pattern matches exactly the keys of its group.
    """
    order = {key: i for i, key in enumerate(pairs)}
    changes = {key: (_change(key, other), labels.get(key)) for key, other in pairs.items()}
    known_a, known_b = list(all_a), list(all_b)
    moved, groups = [], []
    for one in fold(changes, known_a):
        if all(key == pairs[key] for key in one.keys):
            pattern = spelt(one.pattern, one.keys)
            groups.append(PairGroup(pattern, pattern, one.keys))
        else:
            moved.append(one)
    groups += _moved_groups(moved, pairs, known_a, known_b)
    return sorted(groups, key=lambda group: order[group.keys[0]])


def _moved_groups(
    folds: Sequence[Fold], pairs: Mapping[str, str], all_a: Sequence[str], all_b: Sequence[str]
) -> Iterator[PairGroup]:
    """The folds of the first side, taken apart until each is one pattern on the second side too."""
    back = {pairs[key]: key for one in reversed(folds) for key in reversed(one.keys)}
    others: Sequence[Fold] = ()
    for _ in range(_MAX_ROUNDS):
        others = fold(_part_of(folds, lambda key: pairs[key]), all_b)
        if len(others) == len(folds):
            break
        folds = fold(_part_of(others, back.__getitem__), all_a)
        if len(others) == len(folds):
            break
    pattern_of = {tuple(sorted(one.keys)): one for one in others}
    for one in folds:
        other = pattern_of.get(tuple(sorted(pairs[key] for key in one.keys)))
        if other is not None and len(one.keys) > 1:
            a, b = spelt(one.pattern, one.keys), spelt(other.pattern, other.keys)
            both = [(key, pairs[key]) for key in one.keys]
            named = _with_equal_ends(a, b, both) or _without_open_ends(both) or ()
        else:
            named = ()
        if named:
            yield PairGroup(*named, one.keys)
        else:
            yield from (PairGroup(quote(key), quote(pairs[key]), (key,)) for key in one.keys)


def _part_of(folds: Iterable[Fold], name_of: Callable[[str], str]) -> dict[str, Hashable]:
    """The names of the other side, each with the number of the fold that it must stay in."""
    return {name_of(key): at for at, one in enumerate(folds) for key in one.keys}


def spelt(pattern: str, keys: Sequence[str]) -> str:
    """A pattern; for everything, with the names that all keys begin with: `model.layers.**`."""
    if pattern != "**":
        return pattern
    shared = 0
    names = [key.split(".")[:-1] for key in keys]
    while all(len(each) > shared and each[shared] == names[0][shared] for each in names):
        shared += 1
    return ".".join([*(quote(name) for name in names[0][:shared]), pattern])


def _without_open_ends(keys: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
    """Both patterns with all names spelt out, `l{0..5}_old` and `l{0..5}_new`; None where these
    would be several.
    """
    found = []
    for side in zip(*keys, strict=True):
        above = {name.rpartition(".")[0] for name in side}
        others = [f"{path}.{_NO_NAME}" if path else _NO_NAME for path in above]
        folded = fold(dict.fromkeys(side), others)
        if len(folded) != 1:
            return None
        found.append(folded[0].pattern)
    return found[0], found[1]


def _with_equal_ends(a: str, b: str, keys: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
    """Both patterns so that they are a rule: what stands at their ends, `**` mostly, stands for the
    same names on both sides. None where the names don't say how.
    """
    heads, ends = zip(*map(_head_and_end, (a, b)), strict=True)
    closed = [end for end in ends if end not in OPEN]
    if len(closed) == 2:
        return a, b
    end = closed[0] if closed else min(ends, key=OPEN.__getitem__)
    depths = [_depth(head) for head in heads]
    parts = [(one.split("."), other.split(".")) for one, other in keys]
    tails = [
        min(_shared_end(*both), *(len(both[side]) - depths[side] for side in (0, 1)))
        for both in parts
    ]
    if not all(tails):
        return None
    found = []
    for side in (0, 1):
        between = {
            ".".join(both[side][depths[side] : -tail])
            for both, tail in zip(parts, tails, strict=True)
        }
        folded = fold(dict.fromkeys(sorted(between)), (_NO_NAME,))
        if len(folded) != 1:
            return None
        names = [heads[side], folded[0].pattern if between != {""} else "", end]
        found.append(".".join(name for name in names if name))
    return found[0], found[1]


OPEN = {"*": 1, "**": 2}
"""What at the end of a pattern stands for any names, the narrower first."""


_NO_NAME = "\0"


def _head_and_end(pattern: str) -> tuple[str, str]:
    """What stands before the last dot of a pattern, and behind it."""
    at = _plain(pattern).rfind(".")
    return pattern[: max(at, 0)], pattern[at + 1 :]


def _depth(pattern: str) -> int:
    return _plain(pattern).count(".") + 1 if pattern else 0


def _plain(pattern: str) -> str:
    """The pattern with no dot but those between names."""
    return _WORDS.sub(lambda one: "x" * len(one[0]), pattern)


def _shared_end(a: Sequence[str], b: Sequence[str]) -> int:
    """How many names are the same on both sides, from the last."""
    pairs = zip(reversed(a), reversed(b), strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(a), len(b)))


def _change(key: str, other: str) -> Hashable:
    """Which names became which, and by how much numbers differ."""
    a, b = key.split("."), other.split(".")
    shared = _shared_end(a, b)
    source, target = (".".join(names[: len(names) - shared]) for names in (a, b))
    numbers = [[int(number) for number in _NUMBER.findall(text)] for text in (source, target)]
    # Numbers that one side has more, behind the others, are constants: `conv1` is `0.0` of a block.
    steps = tuple(y - x for x, y in zip(*numbers, strict=False))
    count = len(steps)
    rest = tuple(numbers[0][count:]), tuple(numbers[1][count:])
    return _NUMBER.sub("#", source), _NUMBER.sub("#", target), steps, rest
