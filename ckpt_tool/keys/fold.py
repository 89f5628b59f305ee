"""Many keys as few patterns: each pattern matches exactly the keys that it stands for, and no other key that exists."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ckpt_tool.keys.pattern import quote

MOST_WORDS = 6
MOST_CHARACTERS = 72
"""A choice of words stays readable up to so many words and characters."""

_SUBTREE, _CHILDREN = "**", "*"


@dataclass(frozen=True, slots=True)
class Fold:
    """A pattern and the keys that it stands for, in the order in which they were given."""

    pattern: str
    keys: tuple[str, ...]


def fold(labels: Mapping[str, Hashable], others: Iterable[str] = ()) -> list[Fold]:
    """Folds the keys of `labels`, never two of different labels into one pattern.

    `others` are the keys that no pattern may match. The folds come in the order of their first keys, and each key is in one.
    """
    order = {key: i for i, key in enumerate(labels)}
    boxes = _merge(_whole_branches(labels, others))
    folds = [Fold(_render(box.coordinates), tuple(sorted(box.keys, key=order.__getitem__))) for box in boxes]
    return sorted(folds, key=lambda one: order[one.keys[0]])


@dataclass(slots=True)
class _Box:
    """The product of one set of values for each token; `keys` are exactly its members."""

    coordinates: tuple[frozenset[str], ...]
    label: Hashable
    keys: list[str]


def _whole_branches(labels: Mapping[str, Hashable], others: Iterable[str]) -> list[_Box]:
    """The keys as boxes of one; where all keys below a name have one label, a single box with `*` or `**` at its end."""
    tree: dict[str, object] = {}
    for key in labels:
        _plant(tree, key)
    foreign = {prefix for key in others if key not in labels for prefix in _prefixes(key)}
    boxes: list[_Box] = []
    _collect(tree, labels, foreign, boxes)
    return boxes


_LEAF = object()


def _plant(tree: dict[str, object], key: str) -> None:
    node = tree
    *path, leaf = key.split(".")
    for name in path:
        below = node.setdefault(f"{name}.", {})
        assert isinstance(below, dict)
        node = below
    node[leaf] = _LEAF


def _prefixes(key: str) -> Iterable[str]:
    position = key.find(".")
    while position >= 0:
        yield key[: position + 1]
        position = key.find(".", position + 1)
    yield ""


def _collect(root: dict[str, object], labels: Mapping[str, Hashable], foreign: set[str], boxes: list[_Box]) -> None:
    """Walks the tree without recursion (keys of strangers may be deep), children before their parents."""
    order: list[tuple[dict[str, object], str]] = [(root, "")]
    for node, prefix in order:
        order.extend((below, prefix + name) for name, below in node.items() if isinstance(below, dict))
    found: dict[str, list[_Box]] = {}
    for node, prefix in reversed(order):
        mine: list[_Box] = []
        for name, below in node.items():
            key = prefix + name
            mine.extend(found.pop(key) if isinstance(below, dict) else [_Box(_singletons(key), labels[key], [key])])
        found[prefix] = _as_branch(prefix, mine, foreign)
    boxes.extend(found[""])


def _as_branch(prefix: str, boxes: list[_Box], foreign: set[str]) -> list[_Box]:
    if prefix in foreign or len({box.label for box in boxes}) > 1 or sum(len(box.keys) for box in boxes) < 2:
        return boxes
    keys = [key for box in boxes for key in box.keys]
    if prefix and prefix in keys:
        return boxes  # an empty name, which no star stands for
    end = _CHILDREN if prefix and all("." not in key[len(prefix) :] for key in keys) else _SUBTREE
    return [_Box((*_singletons(prefix), frozenset((f"\0{end}",))), boxes[0].label, keys)]


def _singletons(key: str) -> tuple[frozenset[str], ...]:
    return tuple(frozenset((token,)) for token in _tokens(key))


def _tokens(key: str) -> list[str]:
    """Dots, whole numbers without leading zeros, and the texts between them: joined again they are the key."""
    tokens: list[str] = []
    for i, name in enumerate(key.split(".")):
        if i:
            tokens.append(".")
        tokens.extend(_split_numbers(name))
    return tokens


def _split_numbers(name: str) -> list[str]:
    """`conv12a` as `conv`, `12`, `a`: digits at the end of a word count as a number, those with a leading zero as text."""
    parts: list[str] = []
    for character in name:
        is_digit = "0" <= character <= "9"
        if parts and is_digit == parts[-1][-1].isdecimal():
            parts[-1] += character
        else:
            parts.append(character)
    merged: list[str] = []
    for part in parts:
        is_text = not part.isdecimal() or (part[0] == "0" and len(part) > 1)
        if merged and is_text and not _is_number(merged[-1]):
            merged[-1] += part
        else:
            merged.append(part)
    return merged or [""]


def _is_number(token: str) -> bool:
    return token.isascii() and token.isdecimal() and (token == "0" or token[0] != "0")


def _merge(boxes: list[_Box]) -> list[_Box]:
    """Joins boxes that differ in one coordinate, numbers first and from the right, until none do."""
    groups: dict[tuple[Hashable, tuple[str, ...]], list[_Box]] = defaultdict(list)
    for box in boxes:
        kinds = tuple("#" if _is_number(next(iter(c))) else "." if c == {"."} else "a" for c in box.coordinates)
        groups[(box.label, kinds)].append(box)
    merged: list[_Box] = []
    for (_, kinds), group in groups.items():
        merged.extend(_merge_alike(group, kinds))
    return merged


def _merge_alike(boxes: list[_Box], kinds: tuple[str, ...]) -> list[_Box]:
    axes = [i for i in reversed(range(len(kinds))) if kinds[i] == "#"] + [i for i in reversed(range(len(kinds))) if kinds[i] == "a"]
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
            coordinates = (*group[0].coordinates[:axis], frozenset(words), *group[0].coordinates[axis + 1 :])
            joined.append(_Box(coordinates, group[0].label, [key for box in group for key in box.keys]))
        else:
            joined.extend(group)
    return joined


def _makes_a_choice(words: Sequence[str]) -> bool:
    return (
        len(words) <= MOST_WORDS
        and sum(map(len, words)) <= MOST_CHARACTERS
        and all(word and word[0] != "\0" and not set(word) & set("\\*{},>") and word == word.strip() for word in words)
    )


def _render(coordinates: Sequence[frozenset[str]]) -> str:
    return "".join(_render_values(values) for values in coordinates)


def _render_values(values: frozenset[str]) -> str:
    if len(values) == 1:
        (value,) = values
        return value[1:] if value[:1] == "\0" else quote(value)
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
