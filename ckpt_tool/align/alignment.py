"""Which tensors of two catalogs belong together, how sure that is and why; and what nobody could know."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ckpt_tool.align.composites import composites
from ckpt_tool.align.depth import uncertain_depths
from ckpt_tool.align.fusions import Composite, Rest, is_order_unknown
from ckpt_tool.align.likeness import Cell
from ckpt_tool.align.match import Match, Matches, Matching
from ckpt_tool.align.outlines import by_outlines
from ckpt_tool.align.pairs import Pair
from ckpt_tool.align.reforms import reforms
from ckpt_tool.align.remaining import remaining
from ckpt_tool.align.sequels import sequels
from ckpt_tool.align.towers import uncertain_towers
from ckpt_tool.align.trust import confidences, evidence_of
from ckpt_tool.align.units import Names, Unit, units_of
from ckpt_tool.align.words import common_path
from ckpt_tool.errors import InputError
from ckpt_tool.formats.key_order import is_sorted
from ckpt_tool.ops import parse_ops
from ckpt_tool.tensors import Catalog, shape_text

Hint = tuple[str, str]
"""A source key and the target key that it becomes."""

MOST_KINDS = 50_000
"""Names of one side that differ in more than numbers: some seconds; no network has a tenth of them."""


@dataclass(frozen=True, slots=True)
class Aligned:
    """A pair, how likely it is right (0 to 1), and what speaks for it."""

    pair: Pair
    confidence: float
    evidence: str


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """Keys of equal shape that names and shapes can't tell apart; one pair of `hint`, chosen by a person, settles them."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    reason: str
    hint: str


@dataclass(frozen=True, slots=True)
class Alignment:
    """`misfits` are source and target keys that have the same place, but other shapes; they are among the unpaired ones."""

    pairs: tuple[Aligned, ...]
    ambiguous: tuple[Ambiguous, ...]
    unpaired_source: tuple[str, ...]
    unpaired_target: tuple[str, ...]
    misfits: tuple[tuple[str, str], ...] = ()

    def at_least(self, confidence: float) -> tuple[Pair, ...]:
        return tuple(each.pair for each in self.pairs if each.confidence >= confidence)


def align(source: Catalog, target: Catalog, hints: Sequence[Hint] = ()) -> Alignment:
    """Pairs by names and shapes, the clearest first; what can't be decided is listed, not guessed.

    Raises InputError where names are too many and too different to be compared.
    """
    for side, catalog in (("source", source), ("target", target)):
        if len(catalog) > MOST_KINDS and len({key.translate(_NO_DIGITS) for key in catalog}) > MOST_KINDS:
            fact = f"has more than {MOST_KINDS:,} names that differ by more than their numbers"
            raise InputError(f"the {side}", fact, "write rules, or try `--by position`")
    return _Aligning(source, target, hints).run()


class _Aligning:
    def __init__(self, source: Catalog, target: Catalog, hints: Sequence[Hint]) -> None:
        self.source, self.target = source, target
        self.units = (units_of(source), units_of(target))
        self.is_ordered = all(_tells_order(side) for side in (source, target))
        self.matching = Matching(*self.units, self.is_ordered, self._hinted(hints))
        self.misfits: list[tuple[str, str]] = []
        self.hints = hints
        self.trust: dict[Cell, float] = {}

    def _hinted(self, hints: Sequence[Hint]) -> list[tuple[int, int]]:
        ours, theirs = ({key: unit.place for unit in side for key in unit.keys.values()} for side in self.units)
        return [(ours[a], theirs[b]) for a, b in hints if a in ours and b in theirs]

    def run(self) -> Alignment:
        matches = self.matching.run()
        rotary = is_rotary_unknown(self.source, self.target)
        hinted = self._hinted(self.hints)
        depths, towers = uncertain_depths(self.units, matches, hinted), uncertain_towers(self.units, matches, hinted)
        doubtful = depths | towers
        sure = [match for match in matches.found if (match.source, match.target) not in doubtful]
        self.trust = confidences(self.units, sure)
        copies: dict[str, tuple[str, Match]] = {}
        for match in sure:
            ours, theirs = self.units[0][match.source], self.units[1][match.target]
            for role, key in _shared(ours, theirs):
                copies[theirs.keys[role]] = (key, match)
        pairs = list(self._copied(copies))
        pairs += self._sequels(pairs, sure, doubtful)
        pairs += [Aligned(each.pair, each.confidence, each.evidence) for each in self._composites(pairs)]
        pairs += self._leaves(pairs, sure)
        pairs += self._remaining(pairs, sure)
        pairs += self._by_outlines(pairs, matches, doubtful)
        halves = "but the rotary halves may be interleaved on one side"
        pairs = [_doubted(each, halves) if rotary and _ROTARY.search(common_path(each.pair.targets[0][0])) else each for each in pairs]
        pairs = list(self._with_ties(pairs))
        return self._result(pairs, matches, (depths, towers))

    def _copied(self, copies: Mapping[str, tuple[str, Match]]) -> Iterator[Aligned]:
        ops, unsure = reforms({key: origin for key, (origin, _) in copies.items()}, self.source, self.target)
        for key, (origin, match) in copies.items():
            if key in ops:
                found = Aligned(Pair(((origin,),), ((key,),), ops[key]), self.trust[match.source, match.target], evidence_of(match))
                found = _doubted(found, "but square: it may be transposed") if key in unsure else found
                yield _doubted(found, "but its rows may be in another order") if is_order_unknown(origin, key) else found

    def _leaves(self, pairs: Sequence[Aligned], matches: Sequence[Match]) -> list[Aligned]:
        """Single tensors that are left over inside modules that belong together."""
        inside = [self._inside(side, left) for side, left in enumerate(self._left(pairs))]
        taken: set[str] = set()
        found = []
        for match in matches if all(inside) else ():
            a, b = (
                [key for key in keys.get(units[place].names, ()) if key not in taken]
                for keys, units, place in zip(inside, self.units, (match.source, match.target), strict=True)
            )
            fitting = [(x, y) for x in a for y in b if self.source[x].shape == self.target[y].shape]
            if len(fitting) == 1 and self.trust[match.source, match.target] >= 0.9:
                (x, y) = fitting[0]
                found.append(Aligned(Pair(((x,),), ((y,),)), 0.92, "all that is left in modules that belong together"))
                taken |= {x, y}
        return found

    def _sequels(self, pairs: Sequence[Aligned], matches: Sequence[Match], doubtful: Collection[Cell]) -> Iterator[Aligned]:
        """Modules that are left in sequences whose other members are paired."""
        free = self._free(pairs, doubtful)
        paired = [cell for match in matches if self.trust[cell := (match.source, match.target)] >= 0.9]
        copies: dict[str, str] = {}
        for i, j in sequels(self.units, free, self.matching.forms, paired):
            ours, theirs = self.units[0][i], self.units[1][j]
            copies |= {theirs.keys[role]: key for role, key in _shared(ours, theirs)}
        ops, unsure = reforms(copies, self.source, self.target)
        for key, origin in copies.items():
            if key in ops and key not in unsure and not is_order_unknown(origin, key):
                yield Aligned(Pair(((origin,),), ((key,),), ops[key]), 0.93, "the others of its sequence are paired likewise")

    def _free(self, pairs: Sequence[Aligned], doubtful: Collection[Cell]) -> tuple[set[int], set[int]]:
        """The places of units that are in no pair, and of which nothing is doubtful."""
        ours, theirs = (
            {unit.place for unit in side if all(key in keys for key in unit.keys.values())}
            for side, keys in zip(self.units, self._left(pairs), strict=True)
        )
        return ours - {i for i, _ in doubtful}, theirs - {j for _, j in doubtful}

    def _remaining(self, pairs: Sequence[Aligned], matches: Sequence[Match]) -> list[Aligned]:
        """Modules of which only one is left on each side."""
        found = []
        paired = [(match.source, match.target) for match in matches]
        for i, j in remaining(self.units, self._left(pairs), self.matching.forms, paired):
            ours, theirs = self.units[0][i], self.units[1][j]
            for role, key in _shared(ours, theirs):
                if self.source[key].shape == self.target[theirs.keys[role]].shape:
                    found.append(
                        Aligned(Pair(((key,),), ((theirs.keys[role],),)), 0.93, "nothing else is left that fits, names agree in part")
                    )
        return found

    def _by_outlines(self, pairs: Sequence[Aligned], matches: Matches, doubtful: Collection[Cell]) -> list[Aligned]:
        """Modules that belong together though shapes around them differ; those whose own do are misfits."""
        free = self._free(pairs, doubtful)
        found = []
        paired = [(match.source, match.target) for match in matches.found]
        for match, confidence in by_outlines(self.units, free, paired, self.is_ordered):
            ours, theirs = self.units[0][match.source], self.units[1][match.target]
            for role, key in _shared(ours, theirs):
                other = theirs.keys[role]
                if ours.form != theirs.form:
                    self.misfits.append((key, other))
                elif confidence >= 0.9:
                    found.append(Aligned(Pair(((key,),), ((other,),)), 0.93, f"{evidence_of(match)}, in another width"))
        return found

    def _inside(self, side: int, left: frozenset[str]) -> dict[Names, list[str]]:
        """The keys that are left in and below each unit's path."""
        found: dict[Names, list[str]] = defaultdict(list)
        for unit in self.units[side]:
            keys = [key for key in unit.keys.values() if key in left]
            for depth in range(1, len(unit.names) + 1) if keys else ():
                found[unit.names[:depth]] += keys
        return found

    def _with_ties(self, pairs: Sequence[Aligned]) -> Iterator[Aligned]:
        """The pairs, with target tensors that are a paired one under another name as copies of it."""
        _, left = self._left(pairs)
        ties: dict[str, list[str]] = defaultdict(list)
        for key in self.target:
            ties[self.target[key].same_as or key].append(key)
        for each in pairs:
            first = each.pair.targets[0][0]
            others = [key for key in ties[self.target[first].same_as or first] if key in left] if each.pair.is_rename else []
            if others:
                targets = ((first,), *((key,) for key in others))
                pair = Pair(each.pair.sources, targets, parse_ops("copy"))
                yield replace(each, pair=pair, evidence=f"{each.evidence}, tied in the target")
                left = left - set(others)
            else:
                yield each

    def _left(self, pairs: Sequence[Aligned]) -> tuple[frozenset[str], frozenset[str]]:
        taken = {key for each in pairs for slot in each.pair.sources for key in slot}
        made = {key for each in pairs for slot in each.pair.targets for key in slot}
        return frozenset(key for key in self.source if key not in taken), frozenset(key for key in self.target if key not in made)

    def _composites(self, pairs: Sequence[Aligned]) -> list[Composite]:
        ours, theirs = self._left(pairs)
        sides = (Rest(self.source, ours, self.units[0]), Rest(self.target, theirs, self.units[1]))
        return composites(*sides, self.matching.votes.of)

    def _result(self, pairs: list[Aligned], matches: Matches, doubtful: tuple[set[Cell], set[Cell]]) -> Alignment:
        ours, theirs = self._left(pairs)
        groups = [
            *self._open(matches, ours - {a for a, _ in self.misfits}, theirs - {b for _, b in self.misfits}),
            *self._doubtful(doubtful[0], _DEPTHS),
            *self._doubtful(doubtful[1] - doubtful[0], _TOWERS),
        ]
        order = {key: place for place, key in enumerate(self.target)}
        pairs.sort(key=lambda each: order[each.pair.targets[0][0]])
        in_order = (tuple(key for key in self.source if key in ours), tuple(key for key in self.target if key in theirs))
        return Alignment(tuple(pairs), tuple(groups), *in_order, tuple(self.misfits))

    def _open(self, matches: Matches, ours: frozenset[str], theirs: frozenset[str]) -> Iterator[Ambiguous]:
        """Undecided units by what they may be, those that differ in numbers only together."""
        sets: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for place, others in matches.open.items():
            sets[others].append(place)
        for others, places in sets.items():
            a = tuple(key for place in places for key in self.units[0][place].keys.values() if key in ours)
            b = tuple(key for place in others for key in self.units[1][place].keys.values() if key in theirs)
            if a and b and (len(places) > 1 or len(others) > 1):
                shape = shape_text(self.source[a[0]].shape)
                yield Ambiguous(
                    a,
                    b,
                    f"equal shapes ({shape}) under names that don't tell them apart",
                    f"{a[0]} -> {_fitting(a[0], b, self.source, self.target)}",
                )

    def _doubtful(self, doubtful: set[Cell], reason: str) -> Iterator[Ambiguous]:
        if not doubtful:
            return
        a = [key for i, _ in sorted(doubtful) for key in self.units[0][i].keys.values()]
        b = [key for _, j in sorted(doubtful) for key in self.units[1][j].keys.values()]
        yield Ambiguous(tuple(a), tuple(b), reason, f"{a[0]} -> {_fitting(a[0], b, self.source, self.target)}")


_NO_DIGITS = str.maketrans("", "", "0123456789")
_DEPTHS = "equal blocks, more of them on one side: which are the extra ones, nothing tells"
_TOWERS = "equal parts side by side, whose names don't tell which is which"


def _tells_order(catalog: Catalog) -> bool:
    """Whether the keys stand as modules do: not sorted, and those of one module side by side."""
    owners = [key.rpartition(".")[0] for key in catalog]
    starts = sum(owner != before for owner, before in zip(owners, ["\n", *owners], strict=False))
    return catalog.is_ordered and not is_sorted(list(catalog)) and starts < 1.1 * len(set(owners)) + 2


def _fitting(key: str, others: Sequence[str], source: Catalog, target: Catalog) -> str:
    return next((other for other in others if target[other].shape == source[key].shape), others[0])


def _shared(ours: Unit, theirs: Unit) -> list[tuple[str, str]]:
    """Roles that two units share, with the source's key; two single tensors share theirs whatever they are called."""
    if len(ours.keys) == len(theirs.keys) == 1:
        return [(next(iter(theirs.keys)), next(iter(ours.keys.values())))]
    return [(role, key) for role, key in ours.keys.items() if role in theirs.keys]


_ROTARY = re.compile(r"\.[qk]\.weight$")


def is_rotary_unknown(source: Catalog, target: Catalog) -> bool:
    """Whether one side is of a family that interleaves rotary halves (Meta's, torchtune's) and the other one that doesn't."""
    sides = [{name for key in side for name in key.split(".")} for side in (source, target)]
    if any(common_path(key).endswith(".q.bias") for key in source):
        return False
    return any("tok_embeddings" in a and "embed_tokens" in b and "q_proj" in b for a, b in (sides, sides[::-1]))


def _doubted(each: Aligned, why: str) -> Aligned:
    return replace(each, confidence=0.5, evidence=f"{each.evidence}; {why}")
