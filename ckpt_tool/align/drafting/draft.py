"""Pairs into the fewest rules: numbers become holes, what only a path changes becomes one rule for
the path, words become choices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from ckpt_tool.align.drafting.choices import merge_slots
from ckpt_tool.align.drafting.merging import merge_choices
from ckpt_tool.align.drafting.number_patterns import RuleDraft, abstract
from ckpt_tool.align.drafting.rule_order import in_order
from ckpt_tool.align.pairs import Pair
from ckpt_tool.keys import parse
from ckpt_tool.mapping.reading.writing import rule_line

Names = tuple[str, ...]
"""The names of a pattern's text, between its dots."""

MAX_CANDIDATES = 4
"""Paths that one path may become, the most frequent first, among which is chosen."""
PRICE_OF_EVERYTHING = 2.5
"""How many rules `** -> **` must save to be worth it: it takes keys that nobody saw. A judgement;
any other path costs one rule.
"""
DISCOUNT_OF_A_NAME = 0.001
"""How much cheaper a path's rule is for each of its names: decides between paths of equal effect,
and outweighs no rule.
"""


def draft_rules(
    pairs: Sequence[Pair], source_keys: Iterable[str], are_paths_moved: bool = True
) -> list[str]:
    """Lines of YAML, in order of precedence, that map the pairs of one source. Nothing is verified:
    compile a plan for that.

    `source_keys` are all keys of the source, also those that are in no pair. Rules for whole paths,
    `a.** -> b.**`, may take those too.
    """
    keys = list(source_keys)
    wanted = {pair.sources[0][0]: pair.targets[0][0] for pair in pairs if pair.is_rename}
    renames = abstract([pair for pair in pairs if pair.is_rename], keys)
    others = abstract([pair for pair in pairs if not pair.is_rename], keys)
    single = list(_paths(renames)) if are_paths_moved else _as_they_are(renames)
    ordered = in_order(merge_choices(single), wanted)
    return [
        *(rule_line(each.sources, each.targets, each.ops) for each in merge_slots(others, keys)),
        *(rule_line([source], [target]) for source, target in ordered),
    ]


def _as_they_are(renames: Sequence[RuleDraft]) -> list[tuple[str, str]]:
    """Each rename's patterns, without rules for whole paths."""
    return [(draft.sources[0], draft.targets[0]) for draft in renames]


@dataclass(slots=True)
class _Node:
    """A place in the tree of source patterns. `leaves` are the renames below it, `own` the one that
    ends here.
    """

    path: Names
    children: dict[str, _Node] = field(default_factory=dict)
    leaves: list[tuple[Names, Names]] = field(default_factory=list)
    own: Names | None = None


Move = tuple[Names, Names]
"""A path that becomes another, with all that is below."""


def _paths(renames: Sequence[RuleDraft]) -> Iterator[tuple[str, str]]:
    """The fewest `path.** -> other.**` and single keys that make all renames; exceptions come
    before what they except.
    """
    root = _Node(())
    for draft in renames:
        _insert(root, tuple(draft.sources[0].split(".")), tuple(draft.targets[0].split(".")))
    yield from _Router().rules(root, None)


def _insert(root: _Node, source: Names, target: Names) -> None:
    node = root
    node.leaves.append((source, target))
    for depth, name in enumerate(source, 1):
        node = node.children.setdefault(name, _Node(source[:depth]))
        node.leaves.append((source, target))
    node.own = target


class _Router:
    """Chooses, for each path, whether it has a rule of its own or follows that of a path above it:
    as few rules as possible.

    The same choice as in the smallest routing table (Draves and others, "Constructing optimal IP
    routing tables", 1999).
    """

    def __init__(self) -> None:
        self._known: dict[tuple[Names, Move | None], tuple[float, Move | None]] = {}
        self._moves: dict[Names, list[Move]] = {}

    def rules(self, node: _Node, above: Move | None) -> Iterator[tuple[str, str]]:
        """The rules for all below a path, where the rule of a path above it, if any, is `above`."""
        _, own = self._best(node, above)
        active = own or above
        # A written number is an exception from a hole beside it.
        for child in sorted(node.children.values(), key=lambda child: "{" in child.path[-1]):
            yield from self.rules(child, active)
        if node.own is not None and not _explains(above, node.path, node.own):
            yield ".".join(node.path), ".".join(node.own)
        if own:
            yield ".".join((*own[0], "**")), ".".join((*own[1], "**"))

    def _best(self, node: _Node, above: Move | None) -> tuple[float, Move | None]:
        """The number of rules for all below a path, and its own rule if that makes fewer. A longer
        path counts a little less.
        """
        known = self._known.get((node.path, above))
        if known is None:
            here = float(node.own is not None and not _explains(above, node.path, node.own))
            ways: list[tuple[float, Move | None]] = [(here + self._below(node, above), None)]
            for move in self._candidates(node):
                ways.append((here + _price(node.path) + self._below(node, move), move))
            known = min(ways, key=lambda way: way[0])
            self._known[node.path, above] = known
        return known

    def _candidates(self, node: _Node) -> list[Move]:
        if (found := self._moves.get(node.path)) is None:
            found = self._moves[node.path] = _candidates(node)
        return found

    def _below(self, node: _Node, move: Move | None) -> float:
        return sum(self._best(child, move)[0] for child in node.children.values())


def _price(path: Names) -> float:
    """What a rule for a whole path costs, in rules."""
    return 1 - DISCOUNT_OF_A_NAME * len(path) if path else PRICE_OF_EVERYTHING


def _explains(move: Move | None, source: Names, target: Names) -> bool:
    return (
        move is not None
        and len(source) > len(move[0])
        and target == (*move[1], *source[len(move[0]) :])
    )


def _candidates(node: _Node) -> list[Move]:
    """What this path becomes in most renames below it."""
    found: Counter[Names] = Counter()
    depth = len(node.path)
    for source, target in node.leaves:
        rest = source[depth:]
        if rest and len(target) >= len(rest) and target[len(target) - len(rest) :] == rest:
            found[target[: len(target) - len(rest)]] += 1
    balanced = [
        path for path, _ in found.most_common(MAX_CANDIDATES) if _holes(path) == _holes(node.path)
    ]
    return [(node.path, path) for path in balanced]


def _holes(path: Names) -> set[str]:
    """The names of the numbers in a path."""
    return {name for part in path for name in _numbers(part)}


@lru_cache(maxsize=1 << 12)
def _numbers(part: str) -> tuple[str, ...]:
    return parse(part).numbers if "{" in part else ()
