"""What is left to be paired, and the pairs that were found: a value, of which each phase makes the
next.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ckpt_tool.align.findings import Aligned
from ckpt_tool.align.pairs import Pair, Slot
from ckpt_tool.align.sides import Sides
from ckpt_tool.tensors import Catalog


@dataclass(frozen=True, slots=True)
class PairsSoFar:
    """The keys of both sides that no pair has, in their order, and the pairs."""

    keys: Sides[dict[str, None]]
    pairs: tuple[Aligned, ...] = ()

    @property
    def is_any_left(self) -> bool:
        """Whether there is something to pair on both sides."""
        return all(self.keys)

    def has(self, pair: Pair) -> bool:
        """Whether no pair has one of these keys."""
        source, target = keys_of_pair(pair)
        return source <= self.keys.source.keys() and target <= self.keys.target.keys()

    def after(self, found: Iterable[Aligned]) -> PairsSoFar:
        """What is left when each of these takes its keys, but for those that ask for keys that are
        taken.
        """
        taking = Taking(self)
        for each in found:
            taking.take(each)
        return taking.result()


class Taking:
    """Pairs as they are found one by one: a key goes to the first that asks for it."""

    def __init__(self, unpaired: PairsSoFar) -> None:
        self._left = PairsSoFar(unpaired.keys.map(dict), unpaired.pairs)
        self._found: list[Aligned] = []

    def is_free(self, pair: Pair) -> bool:
        """Whether no pair has one of these keys."""
        return self._left.has(pair)

    def take(self, each: Aligned) -> bool:
        """Takes a pair's keys, if all of them are free."""
        if not self.is_free(each.pair):
            return False
        for left, keys in zip(self._left.keys, keys_of_pair(each.pair), strict=True):
            for key in keys:
                del left[key]
        self._found.append(each)
        return True

    def result(self) -> PairsSoFar:
        """What is left now."""
        return replace(self._left, pairs=(*self._left.pairs, *self._found))


def unpaired(source: Catalog, target: Catalog) -> PairsSoFar:
    """All keys of both sides, and no pair."""
    return PairsSoFar(Sides(source, target).map(dict.fromkeys))


def keys_of_pair(pair: Pair) -> Sides[set[str]]:
    """The keys of a pair.

    >>> keys_of_pair(Pair((("qkv",),), (("q",), ("k",), ("v",)))).source
    {'qkv'}
    """
    return Sides(pair.sources, pair.targets).map(_keys)


def _keys(slots: tuple[Slot, ...]) -> set[str]:
    return {key for slot in slots for key in slot}
