"""Keys with what became of their names: pairs that changed alike, as one pattern for each side."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence

from ckpt_tool.frozen import frozen
from ckpt_tool.keys import fold, quote

_NUMBER = re.compile(r"(?<![0-9])[0-9]{1,18}(?![0-9])")


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
    changes = {key: (_change(key, other), labels.get(key)) for key, other in pairs.items()}
    known_b = list(all_b)
    groups = []
    for one in fold(changes, all_a):
        folded = fold(dict.fromkeys(pairs[key] for key in one.keys), known_b)
        if len(folded) == 1 and len(one.keys) > 1:
            a, b = spelt(one.pattern, one.keys), spelt(folded[0].pattern, folded[0].keys)
            groups.append(PairGroup(a, b, one.keys))
        else:
            groups += [PairGroup(quote(key), quote(pairs[key]), (key,)) for key in one.keys]
    return groups


def spelt(pattern: str, keys: Sequence[str]) -> str:
    """A pattern; for everything, with the names that all keys begin with: `model.layers.**`."""
    if pattern != "**":
        return pattern
    shared = 0
    names = [key.split(".")[:-1] for key in keys]
    while all(len(each) > shared and each[shared] == names[0][shared] for each in names):
        shared += 1
    return ".".join([*(quote(name) for name in names[0][:shared]), pattern])


def _change(key: str, other: str) -> Hashable:
    """Which names became which, and by how much numbers differ."""
    a, b = key.split("."), other.split(".")
    shared = 0
    while shared < min(len(a), len(b)) and a[-1 - shared] == b[-1 - shared]:
        shared += 1
    source, target = (".".join(names[: len(names) - shared]) for names in (a, b))
    numbers = [[int(number) for number in _NUMBER.findall(text)] for text in (source, target)]
    steps = (
        tuple(y - x for x, y in zip(*numbers, strict=True))
        if len(numbers[0]) == len(numbers[1])
        else (source, target)
    )
    return _NUMBER.sub("#", source), _NUMBER.sub("#", target), steps
