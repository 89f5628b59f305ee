"""Many keys as few patterns: each pattern matches exactly the keys that it stands for, and no other
key that exists.
"""

import re
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ckpt_tool.keys.quoting import can_be_word, quote

MAX_WORDS = 6
MAX_CHARACTERS = 72
"""A choice of words stays readable up to so many words and characters."""

MAX_ROOM = 80_000_000
"""Characters of names, and of the branches of their tree, that are folded; a few hundred thousand
usual keys have so many.
"""
MAX_TOKENS = 5_000_000
"""Parts of names in all; 330,000 usual keys have so many."""
MAX_FORMS = 20_000
"""Different names, but for their numbers, that are looked through for patterns; nobody reads more,
and no network has a tenth of them.
"""
MAX_WORK = 30_000_000
"""Boxes of one form times the square of their tokens: beyond it they are not compared."""
_BRANCH = 200
"""What a branch takes besides its name."""

_SUBTREE, _CHILDREN = "**", "*"
_NAMES = re.compile(r"\.|[^.]+", re.DOTALL)
_TOKENS = re.compile(r"\.|[0-9]+|[^.0-9]+")
_NO_DIGITS = str.maketrans("", "", "0123456789")
_PARTS = re.compile(r"[0-9]+|[^0-9]+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Fold:
    """A pattern and the keys that it stands for, in the order in which they were given."""

    pattern: str
    keys: tuple[str, ...]


def fold(labels: Mapping[str, Hashable], others: Iterable[str] = ()) -> list[Fold]:
    """Folds the keys of `labels`, never two of different labels into one pattern.

    `others` are the keys that no pattern may match. The folds come in the order of their first
    keys, and each key is in one. Names that are too many and too long, or too different, to be
    looked through stand for themselves.
    """
    if not labels:
        return []
    order = {key: i for i, key in enumerate(labels)}
    branches = _whole_branches(labels, others)
    if branches is None:
        return [Fold(quote(key), (key,)) for key in labels]
    if _are_alike(branches):
        found = [
            (_render(box.coordinates), box.keys)
            for box in _merge([_box(branch) for branch in branches])
        ]
    else:
        found = [(quote(branch.name) + branch.end, branch.keys) for branch in branches]
    folds = [Fold(pattern, tuple(sorted(keys, key=order.__getitem__))) for pattern, keys in found]
    return sorted(folds, key=lambda one: order[one.keys[0]])


@dataclass(slots=True)
class _Branch:
    """One key, or all the keys below a name, which then `end`s in `*` or `**`."""

    name: str
    end: str
    label: Hashable
    keys: list[str]


def _whole_branches(labels: Mapping[str, Hashable], others: Iterable[str]) -> list[_Branch] | None:
    """The keys; where all keys below a name have one label, that name alone.

    None where that would take more than the memory that a few hundred thousand usual names take.
    """
    tree: _Tree = {}
    room = MAX_ROOM
    for key in labels:
        room -= _plant(tree, key, room)
        if room < 0:
            return None
    foreign = {id(node) for key in others if key not in labels for node in _above(tree, key)}
    return _collect(tree, labels, foreign)


def _are_alike(branches: list[_Branch]) -> bool:
    """Whether the names are few but for their digits, and their parts are."""
    # A part has a character at least: most checkpoints need no counting.
    is_long = sum(len(branch.name) for branch in branches) > MAX_TOKENS
    if is_long and sum(len(_TOKENS.findall(branch.name)) for branch in branches) > MAX_TOKENS:
        return False
    if len(branches) <= MAX_FORMS:
        return True
    forms: set[tuple[str, str, Hashable]] = set()
    for branch in branches:
        forms.add((branch.name.translate(_NO_DIGITS), branch.end, branch.label))
        if len(forms) > MAX_FORMS:
            return False
    return True


_LEAF = object()
_Tree = dict[str, object]


def _plant(tree: _Tree, key: str, room: int) -> int:
    """Adds a key to the tree; gives what that took, the characters of new branches' names, as far
    as there is room.
    """
    node, end, taken = tree, key.find("."), len(key)
    start = 0
    while end >= 0 and taken <= room:
        name = key[start : end + 1]
        below = node.get(name)
        if below is None:
            below = node[name] = {}
            taken += end + _BRANCH
        assert isinstance(below, dict)
        node, start, end = below, end + 1, key.find(".", end + 1)
    node[key[start:]] = _LEAF
    return taken


def _above(tree: _Tree, key: str) -> Iterator[_Tree]:
    """The branches of the tree that a key would be in."""
    node, start, end = tree, 0, key.find(".")
    while True:
        yield node
        below = node.get(key[start : end + 1]) if end >= 0 else None
        if not isinstance(below, dict):
            return
        node, start, end = below, end + 1, key.find(".", end + 1)


def _collect(root: _Tree, labels: Mapping[str, Hashable], foreign: set[int]) -> list[_Branch]:
    """Walks the tree without recursion (keys of strangers may be deep), children before their
    parents.
    """
    order: list[tuple[_Tree, str]] = [(root, "")]
    for node, prefix in order:
        order.extend(
            (below, prefix + name) for name, below in node.items() if isinstance(below, dict)
        )
    found: dict[str, list[_Branch]] = {}
    for node, prefix in reversed(order):
        gathered: list[_Branch] = []
        for name, below in node.items():
            key = prefix + name
            if isinstance(below, dict):
                gathered.extend(found.pop(key))
            else:
                gathered.append(_Branch(key, "", labels[key], [key]))
        found[prefix] = gathered if id(node) in foreign else _as_branch(prefix, gathered)
    return found[""]


def _as_branch(prefix: str, branches: list[_Branch]) -> list[_Branch]:
    """One branch for all, where they are of one kind; else the branches as they are."""
    if not _can_be_one(branches):
        return branches
    keys = [key for branch in branches for key in branch.keys]
    if prefix and prefix in keys:
        return branches  # an empty name, which no star stands for
    are_children = prefix and all("." not in key[len(prefix) :] for key in keys)
    end = _CHILDREN if are_children else _SUBTREE
    return [_Branch(prefix, end, branches[0].label, keys)]


def _can_be_one(branches: list[_Branch]) -> bool:
    """Whether branches have one label and more than one key."""
    if any(branch.label != branches[0].label for branch in branches):
        return False
    return sum(len(branch.keys) for branch in branches) > 1


@dataclass(slots=True)
class _Box:
    """The product of one set of values for each token; `keys` are exactly its members."""

    coordinates: tuple[frozenset[str], ...]
    label: Hashable
    keys: list[str]


def _box(branch: _Branch) -> _Box:
    end = (
        (frozenset(("." + branch.end,)),) if branch.end else ()
    )  # no token of a key has a dot and more
    return _Box((*_singletons(branch.name), *end), branch.label, branch.keys)


def _singletons(key: str) -> tuple[frozenset[str], ...]:
    return tuple([token for name in _NAMES.findall(key) for token in _tokens(name)])


@lru_cache(maxsize=1 << 12)
def _tokens(name: str) -> tuple[frozenset[str], ...]:
    """Dots, whole numbers without leading zeros, and the texts between them: joined again they are
    the key.
    """
    tokens = [name] if name == "." else _split_numbers(name)
    return tuple([_singleton(token) for token in tokens])


@lru_cache(maxsize=1 << 12)
def _singleton(token: str) -> frozenset[str]:
    return frozenset((token,))


def _split_numbers(name: str) -> list[str]:
    """`conv12a` as `conv`, `12`, `a`: digits at the end of a word count as a number, those with a
    leading zero as text.
    """
    merged: list[str] = []
    for part in _PARTS.findall(name):
        if merged and not _is_number(part) and not _is_number(merged[-1]):
            merged[-1] += part
        else:
            merged.append(part)
    return merged


def _is_number(token: str) -> bool:
    """Whether patterns read it as one."""
    return (
        len(token) <= 6
        and token.isascii()
        and token.isdecimal()
        and (token == "0" or token[0] != "0")
    )


def _merge(boxes: list[_Box]) -> list[_Box]:
    """Joins boxes that differ in one coordinate, numbers first and from the right, until
    none do.
    """
    by_label: dict[Hashable, list[_Box]] = defaultdict(list)
    for box in boxes:
        by_label[box.label].append(box)
    merged: list[_Box] = []
    for alike in by_label.values():
        groups: dict[tuple[str, ...], list[_Box]] = defaultdict(list)
        for box in alike:
            groups[_kinds(box) if len(alike) > 1 else ()].append(box)
        for kinds, group in groups.items():
            merged.extend(_merge_alike(group, kinds))
    return merged


def _kinds(box: _Box) -> tuple[str, ...]:
    return tuple(
        ["#" if _is_number(next(iter(c))) else "." if c == {"."} else "a" for c in box.coordinates]
    )


def _merge_alike(boxes: list[_Box], kinds: tuple[str, ...]) -> list[_Box]:
    if len(boxes) < 2 or len(boxes) * len(kinds) ** 2 > MAX_WORK:
        return boxes
    axes = [i for i in reversed(range(len(kinds))) if kinds[i] == "#"] + [
        i for i in reversed(range(len(kinds))) if kinds[i] == "a"
    ]
    before = len(boxes) + 1
    while len(boxes) < before:
        before = len(boxes)
        for axis in axes:
            boxes = _join_along(boxes, axis, is_number=kinds[axis] == "#")
    return boxes


def _join_along(boxes: list[_Box], axis: int, is_number: bool) -> list[_Box]:
    alike: dict[tuple[frozenset[str], ...], list[_Box]] = defaultdict(list)
    for box in boxes:
        alike[(*box.coordinates[:axis], *box.coordinates[axis + 1 :])].append(box)
    joined: list[_Box] = []
    for group in alike.values():
        words = [word for box in group for word in box.coordinates[axis]]
        if len(group) > 1 and (is_number or _makes_a_choice(words)):
            coordinates = (
                *group[0].coordinates[:axis],
                frozenset(words),
                *group[0].coordinates[axis + 1 :],
            )
            joined.append(
                _Box(coordinates, group[0].label, [key for box in group for key in box.keys])
            )
        else:
            joined.extend(group)
    return joined


def _makes_a_choice(words: Sequence[str]) -> bool:
    return (
        len(words) <= MAX_WORDS
        and sum(map(len, words)) <= MAX_CHARACTERS
        and all(word[0] != "." and can_be_word(word) for word in words)
    )


def _render(coordinates: Sequence[frozenset[str]]) -> str:
    return "".join(_render_values(values) for values in coordinates)


_quoted = lru_cache(maxsize=1 << 12)(quote)


def _render_values(values: frozenset[str]) -> str:
    if len(values) == 1:
        (value,) = values
        return value[1:] if value[:1] == "." and value != "." else _quoted(value)
    if all(_is_number(value) for value in values):
        return f"{{{_ranges(sorted(map(int, values)))}}}"
    return f"{{{','.join(sorted(values))}}}"


def _ranges(numbers: Sequence[int]) -> str:
    """`0,2..5` for 0 2 3 4 5: runs of two and more are ranges."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ",".join(f"{run[0]}..{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
