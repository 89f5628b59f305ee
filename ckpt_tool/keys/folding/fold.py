"""Many keys as few patterns: each pattern matches exactly the keys that it stands for, and no other
key that exists.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import lru_cache

from ckpt_tool.frozen import frozen
from ckpt_tool.keys.folding.boxes import Box, merge
from ckpt_tool.keys.folding.tokens import NO_DIGITS, is_number, tokens_of
from ckpt_tool.keys.folding.tree import Branch, branches_of
from ckpt_tool.keys.quoting import quote

MAX_TOKENS = 5_000_000
"""Parts of names in all; 330,000 usual keys have so many."""
MAX_FORMS = 20_000
"""Different names, but for their numbers, that are looked through for patterns; nobody reads more,
and no network has a tenth of them.
"""


@frozen
class Fold:
    """A pattern and the keys that it stands for, in the order in which they were given."""

    pattern: str
    keys: tuple[str, ...]


def fold(labels: Mapping[str, Hashable], others: Iterable[str] = ()) -> list[Fold]:
    """The keys of `labels` in few patterns, never two of different labels in one.

    `others` are the keys that no pattern may match. The folds come in the order of their first
    keys, and each key is in one. Names that are too many and too long, or too different, to be
    looked through stand for themselves.

    >>> [one.pattern for one in fold(dict.fromkeys(["a.0.w", "a.0.b", "a.1.w"]), ["c"])]
    ['a.**']
    """
    return _folded(labels, list(others), shows_blocks=False)


def outline(labels: Mapping[str, Hashable], others: Iterable[str] = ()) -> list[Fold]:
    """As `fold`, and as one would describe the network: repeated blocks are a line of their own,
    with the range of their numbers, and what stands beside them too.

    >>> keys = ["emb.w", "blocks.0.w", "blocks.0.b", "blocks.1.w", "blocks.1.b", "head.w", "head.b"]
    >>> [one.pattern for one in outline(dict.fromkeys(keys))]
    ['emb.w', 'blocks.{0..1}.*', 'head.*']
    """
    return _folded(labels, list(others), shows_blocks=True)


def _folded(
    labels: Mapping[str, Hashable], others: Sequence[str], shows_blocks: bool
) -> list[Fold]:
    if not labels:
        return []
    order = {key: i for i, key in enumerate(labels)}
    branches = branches_of(labels, others, shows_blocks)
    if branches is None:
        return [Fold(quote(key), (key,)) for key in labels]
    if not _are_few(branches):
        found = [(quote(branch.name) + branch.end, branch.keys) for branch in branches]
        return _in_order(found, order)
    existing = {**order, **dict.fromkeys(others)}
    boxes = merge(branches, existing)
    for box in boxes:
        box.keys.sort(key=order.__getitem__)
    return _in_order([(_render(box), box.keys) for box in boxes], order)


def _in_order(found: Sequence[tuple[str, list[str]]], order: Mapping[str, int]) -> list[Fold]:
    folds = [Fold(pattern, tuple(sorted(keys, key=order.__getitem__))) for pattern, keys in found]
    return sorted(folds, key=lambda one: order[one.keys[0]])


def _are_few(branches: list[Branch]) -> bool:
    """Whether the names are few but for their digits, and their parts are."""
    # A part has a character at least: most checkpoints need no counting.
    is_long = sum(len(branch.name) for branch in branches) > MAX_TOKENS
    if is_long and sum(len(tokens_of(branch.name)) for branch in branches) > MAX_TOKENS:
        return False
    if len(branches) <= MAX_FORMS:
        return True
    forms: set[tuple[str, str, Hashable]] = set()
    for branch in branches:
        forms.add((branch.name.translate(NO_DIGITS), branch.end, branch.label))
        if len(forms) > MAX_FORMS:
            return False
    return True


def _render(box: Box) -> str:
    return "".join([_render_values(values, box, i) for i, values in enumerate(box.coordinates)])


_quoted = lru_cache(maxsize=1 << 12)(quote)


def _render_values(values: frozenset[str], box: Box, axis: int) -> str:
    if len(values) == 1:
        (value,) = values
        return value[1:] if value[:1] == "." and value != "." else _quoted(value)
    if all(is_number(value) for value in values):
        return f"{{{_ranges(sorted(map(int, values)))}}}"
    return f"{{{','.join(_as_they_come(values, box, axis))}}}"


def _as_they_come(words: frozenset[str], box: Box, axis: int) -> list[str]:
    """The words in the order of the keys: a network's own."""
    found: dict[str, None] = {}
    for key in box.keys:
        found[tokens_of(key)[axis]] = None
        if len(found) == len(words):
            break
    return list(found)


def _ranges(numbers: Sequence[int]) -> str:
    """`0,2..5` for 0 2 3 4 5: runs of two and more are ranges."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ",".join(f"{run[0]}..{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
