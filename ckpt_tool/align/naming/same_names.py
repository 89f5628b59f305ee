"""Keys that names alone pair: the same ones, the same behind another head, the same but for
separators.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ckpt_tool.align.naming.vocabulary import are_opposed, words_of
from ckpt_tool.align.naming.wrappers import plain_name
from ckpt_tool.align.sides import Sides
from ckpt_tool.align.weights import WEIGHTS
from ckpt_tool.tensors import Catalog

MAX_HEAD = 6
"""How many names a head may have: `base_model.model.model.` has three."""
MAX_SIMILAR = 8
"""Keys of one ending: of more, endings mean nothing."""
FEW = 4
"""Pairs that a head must make where it isn't the whole file's."""

Heads = tuple[str, str]
"""What stands before the end that two names share: the source's, the target's."""
KeyPair = tuple[str, str]
"""A source key and a target key."""


@dataclass(frozen=True, slots=True)
class Named:
    """The source key that a target key is, how sure that is, and why."""

    source: str
    confidence: float
    evidence: str


@dataclass(frozen=True, slots=True)
class SameNames:
    """Pairs by target key, and the heads behind which names are the same as they are written."""

    pairs: Mapping[str, Named]
    heads: tuple[Heads, ...]


def same_names(source: Catalog, target: Catalog) -> SameNames:
    """The pairs by target key, one to one, all of equal shapes; names that could mean two keys are
    left out.
    """
    found = _equal(source, target)
    sure: list[Heads] = []
    for how in _comparisons():
        known = {(how.written(a), how.written(b)) for a, b in sure}
        ends = _Ends(Sides(source, target), _unpaired(source, target, found, how), how)
        for heads, pairs in ends.pairs(known):
            evidence = _behind(how.evidence, heads)
            found |= {key: Named(origin, how.confidence, evidence) for origin, key in pairs}
            if how.keeps_heads:
                sure.append(heads)
    return SameNames(found, tuple(sure))


def _equal(source: Catalog, target: Catalog) -> dict[str, Named]:
    """The keys that both sides have with one shape."""
    return {
        key: Named(key, WEIGHTS.same_name, "the same name")
        for key in target
        if key in source and source[key].shape == target[key].shape
    }


def _unpaired(
    source: Catalog, target: Catalog, found: Mapping[str, Named], how: _Comparison
) -> Sides[Mapping[str, str]]:
    """How the keys are written that are in no pair yet, for each side."""
    taken = {each.source for each in found.values()}
    return Sides(
        {key: how.written(key) for key in source if key not in taken},
        {key: how.written(key) for key in target if key not in found},
    )


def _behind(evidence: str, heads: Heads) -> str:
    behind = " and ".join(f"`{head}`" for head in heads if head)
    return f"{evidence} behind {behind}" if behind else evidence


_SEPARATORS = re.compile(r"[._/\-]+")
_BETWEEN_NUMBERS = re.compile(r"(?<=[0-9])\.(?=[0-9])")


def _spaced(key: str) -> str:
    """A key's names in small letters, with one kind of separator."""
    return _SEPARATORS.sub(".", plain_name(key)).lower()


def _joined(end: str) -> str:
    """The same without separators but for those between two numbers: `norm.1` is `norm1`, and block
    1.0 isn't block 10.
    """
    return _BETWEEN_NUMBERS.sub("#", end).replace(".", "")


def _undotted(end: str) -> str:
    return end.replace(".", "")


@dataclass(frozen=True, slots=True)
class _Comparison:
    """How names are written before they are compared, and what of an end is compared; how sure such
    pairs are, and why.
    """

    written: Callable[[str], str]
    compared: Callable[[str], str]
    confidence: float
    evidence: str
    keeps_heads: bool = False
    """Whether its heads are those of the keys, as they are written."""
    is_loose: bool = False
    """Whether nearly all names must be the same this way before any is believed."""


def _comparisons() -> tuple[_Comparison, ...]:
    """The ways to compare names, the strictest first."""
    separators = "the same name but for separators"
    unwrapped = "the same name but for what wraps the tensor"
    joined = WEIGHTS.same_joined
    return (
        _Comparison(str, str, WEIGHTS.same_name, "the same name", keeps_heads=True),
        _Comparison(plain_name, str, WEIGHTS.same_unwrapped, unwrapped, keeps_heads=True),
        _Comparison(_spaced, str, WEIGHTS.same_but_separators, separators),
        _Comparison(_spaced, _joined, joined, separators),
        # Latent diffusion keeps an average under names without any dots.
        _Comparison(_spaced, _undotted, joined, "the same name but for dots", is_loose=True),
    )


def _cuts(name: str) -> Iterator[tuple[str, str]]:
    """Each way to cut a name in two after a dot: its head and its end, the longest end first."""
    at = 0
    for _ in range(MAX_HEAD + 1):
        yield name[:at], name[at:]
        at = name.find(".", at) + 1
        if not at:
            return


class _Ends:
    """The keys of both sides that nothing has paired yet, by what their names end in."""

    def __init__(
        self, catalogs: Sides[Catalog], written: Sides[Mapping[str, str]], how: _Comparison
    ) -> None:
        self._least, self._how, self._source = min(map(len, catalogs)), how, catalogs.source
        self._under = written.map(_counted_heads)
        self._pairs: dict[Heads, list[KeyPair]] = defaultdict(list)
        ends = self._by_end(written.source)
        for key, name in written.target.items():
            head, found = self._longest(name, ends)
            for other, origin in found:
                if catalogs.source[origin].shape == catalogs.target[key].shape:
                    self._pairs[other, head].append((origin, key))

    def _by_end(self, written: Mapping[str, str]) -> dict[str, list[tuple[str, str]]]:
        """For each end that names of the source have, their heads with their keys."""
        found: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for key, name in written.items():
            for head, end in _cuts(name):
                found[self._how.compared(end)].append((head, key))
        return found

    def _longest(
        self, name: str, ends: Mapping[str, Sequence[tuple[str, str]]]
    ) -> tuple[str, Sequence[tuple[str, str]]]:
        """The head before the longest known end of a name, and what has that end; nothing where
        that is too much.
        """
        for head, end in _cuts(name):
            if found := ends.get(self._how.compared(end)):
                return head, found if len(found) <= MAX_SIMILAR else ()
        return "", ()

    def pairs(self, known: Collection[Heads]) -> Iterator[tuple[Heads, list[KeyPair]]]:
        """The heads that are sure, those that pair most first, with what they pair; `known` ones
        are sure already.
        """
        owners = self._owners()
        taken: Sides[set[str]] = Sides(set(), set())
        for heads in sorted(self._pairs, key=self._rank):
            pairs = _untaken(self._pairs[heads], taken)
            free = [pair for pair in pairs if self._is_free(heads, pair, owners, len(pairs))]
            is_much = free and len(free) >= (1 - WEIGHTS.rival) * len(pairs)
            if is_much and (heads in known or self._is_enough(heads, free)):
                taken.source.update(origin for origin, _ in free)
                taken.target.update(key for _, key in free)
                yield heads, free

    def _owners(self) -> Sides[Mapping[str, Sequence[Heads]]]:
        """The heads that pair each key, one for each pair."""
        owners: Sides[dict[str, list[Heads]]] = Sides(defaultdict(list), defaultdict(list))
        for heads, pairs in self._pairs.items():
            for origin, key in pairs:
                owners.source[origin].append(heads)
                owners.target[key].append(heads)
        return owners

    def _rank(self, heads: Heads) -> tuple[int, int, Heads]:
        """Heads that pair most come first, then short ones."""
        return -len(self._pairs[heads]), len(heads[0]) + len(heads[1]), heads

    def _is_free(
        self, heads: Heads, pair: KeyPair, owners: Sides[Mapping[str, Sequence[Heads]]], count: int
    ) -> bool:
        """Whether no other head that pairs about as many keys has a part of this pair, nor the same
        one another pair with it.
        """
        others = [*owners.source[pair[0]], *owners.target[pair[1]]]
        if others.count(heads) != 2:
            return False
        least = WEIGHTS.rival * count
        rivals = {each for each in others if each != heads and len(self._pairs[each]) >= least}
        return all(_is_preferred(heads, each) for each in rivals)

    def _is_enough(self, heads: Heads, pairs: Sequence[KeyPair]) -> bool:
        """Whether so many pairs make two heads sure."""
        if not any(self._source[origin].shape for origin, _ in pairs):
            return False  # counters are everywhere
        if self._how.is_loose and self._share(heads, len(pairs)) < WEIGHTS.of_its_own:
            return False
        return self._is_whole_file(heads, len(pairs)) or self._is_module(heads, len(pairs))

    def _is_whole_file(self, heads: Heads, count: int) -> bool:
        """Whether one side has no head, and these are most of a file, or just the same names."""
        is_same = not any(heads) and self._how.compared is str
        return not all(heads) and (count >= WEIGHTS.of_the_file * self._least or is_same)

    def _is_module(self, heads: Heads, count: int) -> bool:
        """Whether two heads are names of one module, nearly all of which is paired."""
        if count < FEW or not any(heads) or not _may_be_one(*heads):
            return False
        return self._share(heads, count) >= WEIGHTS.of_its_own

    def _share(self, heads: Heads, count: int) -> float:
        """How much so many pairs are of all keys behind either head; an empty head counts only in
        a loose comparison.
        """
        return min(
            count / under[head]
            for head, under in zip(heads, self._under, strict=True)
            if head or self._how.is_loose
        )


def _untaken(pairs: Sequence[KeyPair], taken: Sides[set[str]]) -> list[KeyPair]:
    """The pairs of which neither key is taken."""
    return [pair for pair in pairs if pair[0] not in taken.source and pair[1] not in taken.target]


def _counted_heads(written: Mapping[str, str]) -> Counter[str]:
    """How many names have each head."""
    return Counter(head for name in written.values() for head, _ in _cuts(name))


def _may_be_one(source: str, target: str) -> bool:
    """Whether two heads may be names of one module: not two members of a sequence, nor an encoder
    and a decoder.
    """
    if not (source and target):
        return True
    if any(map(str.isdigit, source)) and any(map(str.isdigit, target)):
        return False
    return not are_opposed(_words(source), _words(target))


def _words(head: str) -> frozenset[str]:
    return frozenset(word for name in head.split(".") for word in words_of(name))


_CHOSEN = (
    ("encoder_q", "encoder_k"),
    ("base_encoder", "momentum_encoder"),
    ("online_encoder", "target_encoder"),
)
"""Of two copies of an encoder the one that is trained; the other follows it as an average."""


def _is_preferred(heads: Heads, rival: Heads) -> bool:
    """Whether both are the same but for the source's encoder that is trained, and its average."""
    source, others = heads[0].split("."), rival[0].split(".")
    if heads[1] != rival[1] or len(source) != len(others):
        return False
    differing = [pair for pair in zip(source, others, strict=True) if pair[0] != pair[1]]
    return len(differing) == 1 and differing[0] in _CHOSEN
