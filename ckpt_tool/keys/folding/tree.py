"""Keys as a tree of modules, and whole branches of it as one: all keys below a name."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from ckpt_tool.keys.folding.structure import Form, kinds_of
from ckpt_tool.keys.folding.tokens import NO_DIGITS

MAX_ROOM = 80_000_000
"""Characters of names, and of the branches of their tree, that are folded; a few hundred thousand
usual keys have so many.
"""
_BRANCH = 200
"""What a branch takes besides its name."""

SUBTREE, CHILDREN = "**", "*"
_LEAF = object()
_Tree = dict[str, object]


@dataclass(slots=True, eq=False)
class Branch:
    """One key, or all the keys below a name, which then `end`s in `*` or `**`."""

    name: str
    end: str
    label: Hashable
    keys: list[str]

    @property
    def form(self) -> Form:
        """The names below it, but for their numbers; nothing for a key."""
        if not self.end:
            return frozenset()
        return frozenset([key[len(self.name) :].translate(NO_DIGITS) for key in self.keys])


@dataclass(slots=True, eq=False)
class _Below:
    """What is below a name: its branches, whether one pattern may stand for all, and whether there
    are repeated blocks.
    """

    branches: list[Branch]
    is_whole: bool
    has_blocks: bool = False


def branches_of(
    labels: Mapping[str, Hashable], others: Iterable[str], shows_blocks: bool
) -> list[Branch] | None:
    """The keys; where all keys below a name have one label, that name alone. Where `shows_blocks`,
    no name hides repeated blocks, and none the whole: each block stands for itself.

    None where that would take more than the memory that a few hundred thousand usual names take.
    """
    tree: _Tree = {}
    room = MAX_ROOM
    for key in labels:
        room -= _plant(tree, key, room)
        if room < 0:
            return None
    foreign = {id(node) for key in others if key not in labels for node in _above(tree, key)}
    return _collect(tree, labels, foreign, shows_blocks)


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


def _collect(
    root: _Tree, labels: Mapping[str, Hashable], foreign: set[int], shows_blocks: bool
) -> list[Branch]:
    """Walks the tree without recursion (keys of strangers may be deep), children before their
    parents.
    """
    order: list[tuple[_Tree, str]] = [(root, "")]
    for node, prefix in order:
        order.extend(
            (below, prefix + name) for name, below in node.items() if isinstance(below, dict)
        )
    found: dict[str, _Below] = {}
    for node, prefix in reversed(order):
        children = [
            (name, found.pop(prefix + name) if isinstance(below, dict) else None)
            for name, below in node.items()
        ]
        has_blocks = shows_blocks and _show_blocks(prefix, children)
        gathered: list[Branch] = []
        for name, child in children:
            key = prefix + name
            gathered += child.branches if child else [Branch(key, "", labels[key], [key])]
        is_whole = id(node) not in foreign and _have_one_label(gathered)
        hides_more = has_blocks or (shows_blocks and not prefix)
        is_chain = shows_blocks and len(gathered) == 1  # the longer name says more
        can_be_one = is_whole and not hides_more and not is_chain
        branches = _as_branch(prefix, gathered) if can_be_one else gathered
        found[prefix] = _Below(branches, is_whole, has_blocks)
    return found[""].branches


def _show_blocks(prefix: str, children: list[tuple[str, _Below | None]]) -> bool:
    """Makes one branch of each repeated block among the children; whether there are some, here or
    below. A single weight is none, but where the children are a list of these.
    """
    numbered: dict[str, list[tuple[str, _Below]]] = defaultdict(list)
    has_blocks = False
    for name, child in children:
        if child is None:
            continue
        has_blocks = has_blocks or child.has_blocks
        form = name.translate(NO_DIGITS)
        if form != name:
            numbered[form].append((prefix + name, child))
    for group in numbered.values():
        if len(group) < 2:
            continue
        forms = [_form(key, child) for key, child in group]
        kinds = kinds_of(forms)
        is_list = len(group) == len(children) and len(set(forms)) == 1
        counts = Counter(
            kind for kind, each in zip(kinds, forms, strict=True) if is_list or len(each) > 1
        )
        for kind, (key, child) in zip(kinds, group, strict=True):
            if counts[kind] > 1:
                has_blocks = True
                if child.is_whole:
                    child.branches = _as_branch(key, child.branches)
    return has_blocks


def _form(prefix: str, below: _Below) -> Form:
    keys = (key for branch in below.branches for key in branch.keys)
    return frozenset([key[len(prefix) :].translate(NO_DIGITS) for key in keys])


def _as_branch(prefix: str, branches: list[Branch]) -> list[Branch]:
    """One branch for all of one label; as they are where that says no more."""
    keys = [key for branch in branches for key in branch.keys]
    if len(keys) == 1 or (prefix and prefix in keys):
        return branches  # an empty name, which no star stands for
    are_children = prefix and all("." not in key[len(prefix) :] for key in keys)
    end = CHILDREN if are_children else SUBTREE
    return [Branch(prefix, end, branches[0].label, keys)]


def _have_one_label(branches: list[Branch]) -> bool:
    return all(branch.label == branches[0].label for branch in branches)
