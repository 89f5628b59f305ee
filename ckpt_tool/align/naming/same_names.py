"""Keys that names alone pair: the same ones, the same behind another head, the same but for
separators.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ckpt_tool.align.matching.similarity import are_opposed
from ckpt_tool.align.naming.vocabulary import words_of
from ckpt_tool.align.naming.wrappers import plain_name
from ckpt_tool.tensors import Catalog

MAX_HEAD = 6
"""How many names a head may have: `base_model.model.model.` has three."""
MAX_SIMILAR = 8
"""Keys of one ending: of more, endings tell nothing."""
OF_THE_FILE, OF_ITS_OWN = 0.5, 0.9
"""The share of a side that one head must pair; else the share of the keys that have this head."""
RIVAL = 0.3
"""The share of a head's pairs from which on another one makes it doubtful."""
FEW = 4
"""Pairs that a head must make where it isn't the whole file's."""

Heads = tuple[str, str]
KeyPair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Named:
    """The source key that a target key is, how sure that is, and why."""

    source: str
    confidence: float
    evidence: str


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


@dataclass(frozen=True, slots=True)
class _Way:
    """How names are written before they are compared, and what of an end is compared; how sure such
    pairs are, and what is said of them.
    """

    written: Callable[[str], str]
    compared: Callable[[str], str]
    confidence: float
    evidence: str
    is_loose: bool = False
    """Whether nearly all names must be the same this way before any is believed."""


_WAYS = (
    _Way(str, str, 0.99, "the same name"),
    _Way(plain_name, str, 0.98, "the same name but for what wraps the tensor"),
    _Way(_spaced, str, 0.98, "the same name but for separators"),
    _Way(_spaced, _joined, 0.97, "the same name but for separators"),
    # Latent diffusion keeps an average under names without any dots.
    _Way(
        _spaced, lambda end: end.replace(".", ""), 0.97, "the same name but for dots", is_loose=True
    ),
)


@dataclass(frozen=True, slots=True)
class SameNames:
    """Pairs by target key, and the heads behind which names are the same as they are written."""

    pairs: dict[str, Named]
    heads: tuple[Heads, ...]


def same_names(source: Catalog, target: Catalog) -> SameNames:
    """The pairs by target key, one to one, all of equal shapes; names that could mean two keys are
    left out.
    """
    found = {
        key: Named(key, 0.99, "the same name")
        for key in target
        if key in source and source[key].shape == target[key].shape
    }
    sure: list[Heads] = []
    for way in _WAYS:
        taken = {each.source for each in found.values()}
        from_source = {key: way.written(key) for key in source if key not in taken}
        from_target = {key: way.written(key) for key in target if key not in found}
        known = {(way.written(a), way.written(b)) for a, b in sure}
        for heads, pairs in _Ends(source, target, from_source, from_target, way).pairs(known):
            found |= {
                key: Named(origin, way.confidence, _said(way.evidence, heads))
                for origin, key in pairs
            }
            sure += [heads] if way.compared is str and way.written is not _spaced else []
    return SameNames(found, tuple(sure))


def _said(evidence: str, heads: Heads) -> str:
    behind = " and ".join(f"`{head}`" for head in heads if head)
    return f"{evidence} behind {behind}" if behind else evidence


def _ends(name: str) -> Iterator[tuple[str, str]]:
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
        self,
        source: Catalog,
        target: Catalog,
        from_source: Mapping[str, str],
        from_target: Mapping[str, str],
        way: _Way,
    ) -> None:
        self._least, self._way, self._shapes = min(len(source), len(target)), way, source
        self._under = [
            Counter(head for name in side.values() for head, _ in _ends(name))
            for side in (from_source, from_target)
        ]
        self._pairs: dict[Heads, list[KeyPair]] = defaultdict(list)
        known: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for key, name in from_source.items():
            for head, end in _ends(name):
                known[way.compared(end)].append((head, key))
        for key, name in from_target.items():
            hits = next(
                (
                    (head, found)
                    for head, end in _ends(name)
                    if (found := known.get(way.compared(end)))
                ),
                ("", []),
            )
            for head, origin in hits[1] if len(hits[1]) <= MAX_SIMILAR else ():
                if source[origin].shape == target[key].shape:
                    self._pairs[head, hits[0]].append((origin, key))

    def pairs(self, known: Collection[Heads]) -> Iterator[tuple[Heads, list[KeyPair]]]:
        """The heads that are sure, those that pair most first, with what they pair; `known` ones
        are sure already.
        """
        owners: dict[tuple[int, str], list[Heads]] = defaultdict(list)
        for heads, pairs in self._pairs.items():
            for pair in pairs:
                for side, key in enumerate(pair):
                    owners[side, key].append(heads)
        taken: set[tuple[int, str]] = set()
        for heads in sorted(
            self._pairs,
            key=lambda heads: (-len(self._pairs[heads]), len(heads[0]) + len(heads[1]), heads),
        ):
            pairs = [
                pair
                for pair in self._pairs[heads]
                if (0, pair[0]) not in taken and (1, pair[1]) not in taken
            ]
            free = [pair for pair in pairs if self._is_free(heads, pair, owners, len(pairs), taken)]
            if (
                free
                and len(free) >= (1 - RIVAL) * len(pairs)
                and (heads in known or self._is_enough(heads, free))
            ):
                taken.update((side, key) for pair in free for side, key in enumerate(pair))
                yield heads, free

    def _is_free(
        self,
        heads: Heads,
        pair: KeyPair,
        owners: Mapping[tuple[int, str], Sequence[Heads]],
        count: int,
        taken: Collection[object],
    ) -> bool:
        """Whether no other head that pairs about as many keys has a part of this pair, nor the same
        one another pair with it.
        """
        others = [other for side, key in enumerate(pair) for other in owners[side, key]]
        if others.count(heads) != 2:
            return False
        rivals = {
            other for other in others if other != heads and len(self._pairs[other]) >= RIVAL * count
        }
        return all(_is_preferred(heads, other) for other in rivals)

    def _is_enough(self, heads: Heads, pairs: Sequence[KeyPair]) -> bool:
        count = len(pairs)
        if not any(self._shapes[origin].shape for origin, _ in pairs):
            return False  # counters are everywhere
        shares = [
            count / under[head]
            for head, under in zip(heads, self._under, strict=True)
            if head or self._way.is_loose
        ]
        if self._way.is_loose and min(shares) < OF_ITS_OWN:
            return False
        if not all(heads) and (
            count >= OF_THE_FILE * self._least or (not any(heads) and self._way.compared is str)
        ):
            return True
        return count >= FEW and any(heads) and min(shares) >= OF_ITS_OWN and _may_be_one(*heads)


def _may_be_one(source: str, target: str) -> bool:
    """Whether two heads may be names of one module: not two members of a sequence, nor an encoder
    and a decoder.
    """
    if not (source and target):
        return True
    words = [
        frozenset(word for name in head.split(".") for word in words_of(name))
        for head in (source, target)
    ]
    return not (
        any(map(str.isdigit, source)) and any(map(str.isdigit, target))
    ) and not are_opposed(*words)


_CHOSEN = (
    ("encoder_q", "encoder_k"),
    ("base_encoder", "momentum_encoder"),
    ("online_encoder", "target_encoder"),
)
"""Of two copies of an encoder the one that is trained; the other follows it as an average."""


def _is_preferred(heads: Heads, rival: Heads) -> bool:
    """Whether both are the same but for the source's encoder that is trained, and its average."""
    source, others = heads[0].split("."), rival[0].split(".")
    differing = [pair for pair in zip(source, others, strict=False) if pair[0] != pair[1]]
    return (
        heads[1] == rival[1]
        and len(source) == len(others)
        and len(differing) == 1
        and differing[0] in _CHOSEN
    )
