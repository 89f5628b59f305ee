"""Renames in an order in which each key goes where it should: exceptions first."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from ckpt_tool.keys import Matcher, PatternSet, Renderer, pair, parse, quote

Rename = tuple[str, str]


def in_order(renames: Sequence[Rename], wanted: Mapping[str, str]) -> list[Rename]:
    """The renames so that the first that matches a key gives the wanted one; where no order does,
    single keys come first.

    >>> in_order([("**", "**"), ("fc.*", "head.*")], {"fc.weight": "head.weight", "a": "a"})
    [('fc.*', 'head.*'), ('**', '**')]
    """
    rules = _Renames(renames)
    after: dict[int, set[int]] = defaultdict(set)
    singles: list[str] = []
    for key, target in wanted.items():
        found = rules.matching(key)
        right = [each for each in found if rules.gives(each, key, target)]
        if not right:
            singles.append(key)
        elif len(right) < len(found):
            after[right[0]].update(set(found) - set(right))
    order = _sorted(len(renames), after)
    if order is None:
        return [*rules.wrong(wanted), *renames]
    written = [(quote(key), quote(wanted[key])) for key in singles]
    return [*written, *(renames[each] for each in order)]


class _Renames:
    """Renames, by their numbers, ready to match keys."""

    def __init__(self, renames: Sequence[Rename]) -> None:
        pairings = [pair(parse(source), parse(target)) for source, target in renames]
        self._matchers = [
            Matcher(each.source, {**each.source.bounds, **each.target.bounds}) for each in pairings
        ]
        self._renderers = [Renderer(each.target) for each in pairings]
        self._patterns = PatternSet(self._matchers)

    def matching(self, key: str) -> list[int]:
        """The renames that match a key."""
        return self._patterns.all(key)

    def gives(self, number: int, key: str, target: str) -> bool:
        """Whether a rename makes the target key of the source key."""
        binding = self._matchers[number].match(key)
        try:
            return binding is not None and self._renderers[number](binding) == target
        except ValueError:
            return False

    def wrong(self, wanted: Mapping[str, str]) -> Iterator[Rename]:
        """Single keys for all that the first matching rename gets wrong."""
        for key, target in wanted.items():
            first = next(iter(self.matching(key)), None)
            if first is None or not self.gives(first, key, target):
                yield quote(key), quote(target)


def _sorted(count: int, after: Mapping[int, set[int]]) -> list[int] | None:
    """Numbers with those in `after[n]` behind n, else in their own order; None where that goes
    round in a circle.
    """
    before = {
        number: {first for first, others in after.items() if number in others}
        for number in range(count)
    }
    order: list[int] = []
    while before:
        free = next((number for number, others in before.items() if not others - set(order)), None)
        if free is None:
            return None
        order.append(free)
        del before[free]
    return order
