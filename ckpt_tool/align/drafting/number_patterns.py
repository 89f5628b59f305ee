"""Pairs of keys into pattern texts: which numbers are holes, and how the target's depend on the
source's.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ckpt_tool.align.pairs import Pair, Slot
from ckpt_tool.keys import quote
from ckpt_tool.keys.affine import LinearNumber
from ckpt_tool.ops import Each, Op

_NUMBER = re.compile(r"(?<![0-9])(0|[1-9][0-9]{0,8})(?![0-9])")
_LETTERS = "ijklmnopqrstuvwxyzabcdfgh"
_NAMES = [*_LETTERS, *(first + second for first in _LETTERS for second in _LETTERS)]
_COLLECTED = "e"

MAX_STRAYS = 4
"""Numbers that the target doesn't have, of which all ways to write some out are tried."""

Texts = tuple[str, ...]
"""What stands around the numbers of a key."""


@dataclass(frozen=True, slots=True)
class RuleDraft:
    """A rule in the making: a pattern's text for each slot. `keys` gives the first key of each
    slot, of one of its pairs.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    ops: tuple[Op, ...]
    keys: tuple[str, ...]


def split_numbers(key: str) -> tuple[Texts, tuple[int, ...]]:
    """The texts around a key's numbers, and the numbers."""
    parts = _NUMBER.split(key)
    return tuple(parts[::2]), tuple(int(part) for part in parts[1::2])


def abstract(pairs: Sequence[Pair], source_keys: Iterable[str]) -> list[RuleDraft]:
    """Pairs that differ in numbers only, as one; a number that has one value in all keys of the
    source stays as it is.
    """
    values: dict[Texts, set[int]] = defaultdict(set)
    for key in source_keys:
        texts, numbers = split_numbers(key)
        for place, number in enumerate(numbers):
            values[texts[: place + 1]].add(number)
    groups: dict[object, list[Pair]] = defaultdict(list)
    for pair in pairs:
        groups[_kind(pair)].append(pair)
    return [
        draft
        for group in groups.values()
        for draft in _PairGroup(group, values).drafts(frozenset())
    ]


def _kind(pair: Pair) -> object:
    """What pairs have in common that differ in numbers only; the words of `each` are known by their
    place.
    """
    sides = tuple(
        tuple((split_numbers(slot[0])[0], len(slot) > 1) for slot in slots)
        for slots in (pair.sources, pair.targets)
    )
    places = {slot[0]: str(place) for place, slot in enumerate((*pair.sources, *pair.targets))}
    return sides, tuple(with_words(op, places) for op in pair.ops)


def with_words(op: Op, words: Mapping[str, str]) -> Op:
    """An op whose `each` has other words; any other op as it is."""
    return (
        replace(op, chains=tuple((words.get(word, word), chain) for word, chain in op.chains))
        if isinstance(op, Each)
        else op
    )


NumberPlace = tuple[int, int]
"""A number of a source slot: which slot, and which of its numbers."""


class _PairGroup:
    """Pairs of one kind."""

    def __init__(
        self, pairs: Sequence[Pair], values: Mapping[Texts, set[int]], is_part: bool = False
    ) -> None:
        self.pairs, self._values, self.is_part = pairs, values, is_part
        first = pairs[0]
        self.texts = [split_numbers(slot[0])[0] for slot in first.sources]
        self.target_texts = [split_numbers(slot[0])[0] for slot in first.targets]

    def drafts(self, literal: frozenset[NumberPlace]) -> list[RuleDraft]:
        """The drafts with these numbers written out, and more of them where the target's don't
        follow from the others.
        """
        drafted, strays = self._draft(literal)
        if drafted is not None:
            return [drafted]
        if len(strays) > MAX_STRAYS:
            return self._drafts_without(strays, literal)
        ways = [self._split(place, literal) for place in strays]
        return (
            min(ways, key=len)
            if ways
            else [each for pair in self.pairs for each in _PairGroup([pair], {}).drafts(literal)]
        )

    def _drafts_without(
        self, strays: Sequence[NumberPlace], literal: frozenset[NumberPlace]
    ) -> list[RuleDraft]:
        """The drafts with many numbers written out: those that are one in all pairs at once, else
        that of fewest values.
        """
        values = {place: len(set(self.column(place))) for place in strays}
        fixed = frozenset(place for place, count in values.items() if count == 1)
        return (
            self.drafts(literal | fixed)
            if fixed
            else self._split(min(strays, key=values.__getitem__), literal)
        )

    def _split(self, place: NumberPlace, literal: frozenset[NumberPlace]) -> list[RuleDraft]:
        """The drafts of the pairs that agree in one number, for each of its values."""
        parts: dict[int, list[Pair]] = defaultdict(list)
        for pair in self.pairs:
            parts[split_numbers(pair.sources[place[0]][0])[1][place[1]]].append(pair)
        return [
            draft
            for part in parts.values()
            for draft in _PairGroup(part, self._values, is_part=True).drafts(literal | {place})
        ]

    def _draft(self, literal: frozenset[NumberPlace]) -> tuple[RuleDraft | None, list[NumberPlace]]:
        """A draft, or the numbers that may have to be written out: those that the target doesn't
        have.
        """
        holes = self._holes(literal)
        counted = {place: name for place, name in holes.items() if name != _COLLECTED}
        numbers = _TargetNumbers(self, counted)
        targets = numbers.patterns()
        strays = [place for place, name in counted.items() if name not in numbers.used]
        if strays or targets is None:
            return None, strays or list(counted)
        pair = self.pairs[0]
        return RuleDraft(
            tuple(self._source_pattern(slot, holes) for slot in range(len(self.texts))),
            targets,
            pair.ops,
            tuple(slot[0] for slot in (*pair.sources, *pair.targets)),
        ), []

    def column(self, place: NumberPlace) -> list[int]:
        """A number of a source slot in each of the pairs."""
        return [split_numbers(pair.sources[place[0]][0])[1][place[1]] for pair in self.pairs]

    def _holes(self, literal: frozenset[NumberPlace]) -> dict[NumberPlace, str]:
        """A name for each number of the sources that is a hole; equal columns of different slots
        have one name.
        """
        holes: dict[NumberPlace, str] = {}
        names = iter(_NAMES)
        known: list[tuple[int, list[int], str]] = []
        for place in self._places():
            slot, number = place
            if _varies(self.pairs[0].sources[slot], number):
                holes[place] = _COLLECTED
                continue
            column = self.column(place)
            if place in literal or self._is_fixed(place, column):
                continue
            shared = (name for at, other, name in known if at != slot and other == column)
            name = next(shared, None) or next(names, None)
            if name is not None:
                known.append((slot, column, name))
                holes[place] = name
        return holes

    def _places(self) -> Iterator[NumberPlace]:
        for slot, texts in enumerate(self.texts):
            yield from ((slot, number) for number in range(len(texts) - 1))

    def _is_fixed(self, place: NumberPlace, column: Sequence[int]) -> bool:
        """Whether a number has one value in all keys of the source, and in the pairs."""
        slot, number = place
        values = self._values.get(self.texts[slot][: number + 1], ())
        return len(values) <= 1 and len(set(column)) == 1

    def _source_pattern(self, slot: int, holes: Mapping[NumberPlace, str]) -> str:
        """A slot's pattern, with its numbers as holes or written out."""
        numbers = split_numbers(self.pairs[0].sources[slot][0])[1]
        shown = [
            f"{{{holes[slot, place]}}}" if (slot, place) in holes else str(number)
            for place, number in enumerate(numbers)
        ]
        return _pattern(self.texts[slot], shown)


class _TargetNumbers:
    """The numbers of the targets as holes, by how they follow from the sources'; `used` are the
    holes that some of them need.
    """

    def __init__(self, group: _PairGroup, holes: dict[NumberPlace, str]) -> None:
        self._group, self._holes = group, holes
        self._columns = {name: group.column(place) for place, name in reversed(holes.items())}
        self.used: set[str] = set()

    def patterns(self) -> tuple[str, ...] | None:
        """The pattern of each slot; None where a number doesn't follow from the sources'."""
        found = [self._pattern(slot) for slot in range(len(self._group.target_texts))]
        patterns = tuple(pattern for pattern in found if pattern is not None)
        return patterns if len(patterns) == len(found) else None

    def _pattern(self, slot: int) -> str | None:
        """A slot's pattern; None where a number of it doesn't follow from the sources'."""
        texts = self._group.target_texts[slot]
        shown = [self._number(slot, place) for place in range(len(texts) - 1)]
        known = [number for number in shown if number is not None]
        return _pattern(texts, known) if len(known) == len(shown) else None

    def _number(self, slot: int, place: int) -> str | None:
        """A number as a hole or written out; None where it doesn't follow from the sources'."""
        pairs = self._group.pairs
        if _varies(pairs[0].targets[slot], place):
            return f"{{{_COLLECTED}}}"
        wanted = [split_numbers(pair.targets[slot][0])[1][place] for pair in pairs]
        equal = self._equal(slot, place, wanted)
        if equal is not None:
            self.used.add(equal)
            return f"{{{equal}}}"
        if len(set(wanted)) == 1:
            return str(wanted[0])
        return self._affine(wanted)

    def _equal(self, slot: int, place: int, wanted: Sequence[int]) -> str | None:
        """The hole that stands for the same numbers, one that isn't used yet first."""
        names = sorted(self._columns, key=lambda name: (name in self.used, _NAMES.index(name)))
        is_one = len(set(wanted)) == 1
        for name in names:
            if self._columns[name] == wanted and (
                not is_one or self._follows(wanted[0], slot, place, name)
            ):
                return name
        return None

    def _affine(self, wanted: Sequence[int]) -> str | None:
        """A sum of a hole, `{2*i+1}`, that gives the numbers."""
        for name, column in self._columns.items():
            if (affine := _line(name, column, wanted)) is not None:
                self.used.add(name)
                return f"{{{affine}}}"
        return None

    def _follows(self, number: int, slot: int, place: int, name: str) -> bool:
        """Whether a number that is one in all pairs is the source's of this name, rather than the
        same by chance.

        It is where it follows the same word on both sides; else where no other place does, and the
        pairs weren't chosen for it.
        """
        group = self._group
        before = {
            _last_name(group.texts[at][spot])
            for (at, spot), hole in self._holes.items()
            if hole == name
        }
        texts = group.target_texts[slot]
        numbers = split_numbers(group.pairs[0].targets[slot][0])[1]
        fitting = [
            spot
            for spot, other in enumerate(numbers)
            if other == number and _last_name(texts[spot]) in before
        ]
        return place in fitting if fitting else not group.is_part


def _last_name(text: str) -> str:
    """The word before a number, without the mark between them."""
    return re.split(r"[._]", text.rstrip("._"))[-1]


def _varies(slot: Slot, place: int) -> bool:
    return len({split_numbers(key)[1][place] for key in slot}) > 1


def _line(name: str, column: Sequence[int], wanted: Sequence[int]) -> LinearNumber | None:
    """The sum `a*name + c` that gives all wanted numbers, if there is one."""
    pairs = sorted(set(zip(column, wanted, strict=True)))
    if len({x for x, _ in pairs}) < 2:
        return None
    (x0, y0), (x1, y1) = pairs[0], pairs[1]
    factor, rest = divmod(y1 - y0, x1 - x0) if x1 != x0 else (0, 1)
    if rest or not factor:
        return None
    constant = y0 - factor * x0
    return (
        LinearNumber(((name, factor),), constant)
        if all(factor * x + constant == y for x, y in pairs)
        else None
    )


def _pattern(texts: Texts, holes: Sequence[str]) -> str:
    return "".join(_alternate([quote(text) for text in texts], holes))


def _alternate(texts: Sequence[str], holes: Sequence[str]) -> Iterator[str]:
    for text, hole in zip(texts, [*holes, ""], strict=True):
        yield text
        yield hole
