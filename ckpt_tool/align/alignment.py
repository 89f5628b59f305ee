"""Which tensors of two catalogs belong together, how sure that is and why; and what nobody could
know.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import SequenceMatcher

from ckpt_tool.align.completing.combined import combined
from ckpt_tool.align.completing.fused import Composite, Unpaired, is_order_unknown
from ckpt_tool.align.completing.layouts import layout_changes, numberless
from ckpt_tool.align.completing.other_widths import in_other_widths
from ckpt_tool.align.completing.remaining import remaining
from ckpt_tool.align.completing.sequences import sequence_completions
from ckpt_tool.align.findings import Aligned, Alignment, Ambiguous, Hint
from ckpt_tool.align.matching.confidence import confidences, evidence_of
from ckpt_tool.align.matching.doubts import is_computed, with_doubts
from ckpt_tool.align.matching.extra_layers import uncertain_layers
from ckpt_tool.align.matching.interchangeable import matched
from ckpt_tool.align.matching.matching import Match, Matches, Matching
from ckpt_tool.align.matching.similarity import Candidate
from ckpt_tool.align.matching.twin_branches import uncertain_branches
from ckpt_tool.align.naming.modules import ModuleTensors, Names, modules_of
from ckpt_tool.align.naming.places import Places, without_shifted
from ckpt_tool.align.naming.same_names import Named, SameNames, same_names
from ckpt_tool.align.pairs import Pair
from ckpt_tool.errors import InputError
from ckpt_tool.formats.key_order import is_sorted
from ckpt_tool.ops import parse_ops
from ckpt_tool.tensors import Catalog, shape_text

MAX_KINDS = 50_000
"""Names of one side that differ in more than numbers: some seconds; no network has a tenth of them.
"""


def align(
    source: Catalog, target: Catalog, hints: Sequence[Hint] = (), are_names_settled: bool = True
) -> Alignment:
    """Pairs by names and shapes, the clearest first; what can't be decided is listed, not guessed.

    Without `are_names_settled` equal names are evidence among others: where values say already
    which blocks were moved. Raises InputError where names are too many and too different to be
    compared.
    """
    for side, catalog in (("source", source), ("target", target)):
        if (
            len(catalog) > MAX_KINDS
            and len({key.translate(_NO_DIGITS) for key in catalog}) > MAX_KINDS
        ):
            fact = f"has more than {MAX_KINDS:,} names that differ by more than their numbers"
            raise InputError(f"the {side}", fact, "write rules, or try `--by position`")
    return _Aligning(source, target, hints, are_names_settled).run()


class _Aligning:
    def __init__(
        self,
        source: Catalog,
        target: Catalog,
        hints: Sequence[Hint],
        are_names_settled: bool = True,
    ) -> None:
        self.source, self.target = source, target
        self.hints = hints
        same = same_names(source, target) if are_names_settled else SameNames({}, ())
        self.modules = (modules_of(source), modules_of(target))
        self.named = _unless_hinted(without_shifted(same.pairs, self.modules), hints)
        self.places = Places(
            *((source, target) if are_names_settled else (Catalog(()), Catalog(()))), same
        )
        self.fixed = _same_modules(self.modules, self.named)
        self.is_ordered = all(has_module_order(side) for side in (source, target))
        self.matching = Matching(
            *self.modules, self.is_ordered, self._hinted(hints), self.fixed, self.places
        )
        self.shape_mismatches = list(self.places.shape_mismatches)
        self.confidence: dict[Candidate, float] = {}

    def _hinted(self, hints: Sequence[Hint]) -> list[tuple[int, int]]:
        source, target = (
            {key: module.place for module in side for key in module.keys.values()}
            for side in self.modules
        )
        return [(source[a], target[b]) for a, b in hints if a in source and b in target]

    def run(self) -> Alignment:
        matches, exchanges = matched(self.matching)
        hinted = self._hinted(self.hints)
        depths, towers = (
            uncertain_layers(self.modules, matches, hinted),
            uncertain_branches(self.modules, matches, hinted),
        )
        depths, towers = depths - self.fixed, towers - self.fixed
        equal = {
            candidate
            for each in exchanges
            if not self.matching.hinted & {*each.candidates}
            for candidate in each.candidates
        } - self.fixed
        doubtful = depths | towers | equal
        sure = [match for match in matches.found if (match.source, match.target) not in doubtful]
        self.confidence = confidences(self.modules, sure)
        pairs = list(self._copied(sure))
        pairs += self._sequences(pairs, sure, doubtful)
        pairs += [
            Aligned(each.pair, each.confidence, each.evidence) for each in self._combined(pairs)
        ]
        pairs += self._leaves(pairs, sure)
        pairs += self._remaining(pairs, sure)
        pairs += self._other_widths(pairs, matches, doubtful)
        pairs = [each for each in pairs if not self._is_computed(each.pair)]
        pairs = list(self._with_ties(list(with_doubts(pairs, self.source, self.target))))
        return self._result(pairs, matches, (depths, towers, equal - depths - towers))

    def _is_computed(self, pair: Pair) -> bool:
        """Whether a pair is of places that each side counts by itself, under names that differ."""
        (origin, *_), (key, *_) = pair.sources[0], pair.targets[0]
        return (
            key not in self.named
            and is_computed(origin, self.source)
            and is_computed(key, self.target)
        )

    def _copied(self, matches: Sequence[Match]) -> Iterator[Aligned]:
        """Each tensor of modules that belong together; what has its own name goes by that."""
        found = {
            key: (each.source, each.confidence, each.evidence) for key, each in self.named.items()
        }
        taken = {each.source for each in self.named.values()}
        for match in matches:
            source, target = self.modules[0][match.source], self.modules[1][match.target]
            for role, key in _shared(source, target):
                if key not in taken and target.keys[role] not in self.named:
                    found[target.keys[role]] = (
                        key,
                        self.confidence[match.source, match.target],
                        evidence_of(match),
                    )
        ops, unsure = layout_changes(
            {key: origin for key, (origin, _, _) in found.items()}, self.source, self.target
        )
        for key, (origin, confidence, evidence) in found.items():
            if key in ops:
                each = Aligned(Pair(((origin,),), ((key,),), ops[key]), confidence, evidence)
                each = (
                    each.doubted("but square: it may be transposed")
                    if key in unsure and key not in self.named
                    else each
                )
                yield (
                    each.doubted("but its rows may be in another order")
                    if is_order_unknown(origin, key)
                    else each
                )

    def _leaves(self, pairs: Sequence[Aligned], matches: Sequence[Match]) -> list[Aligned]:
        """Single tensors that are left over inside modules that belong together."""
        inside = [
            self._inside(side, left - kept)
            for side, (left, kept) in enumerate(
                zip(self._left(pairs), self.places.kept, strict=True)
            )
        ]
        taken: set[str] = set()
        found = []
        for match in matches if all(inside) else ():
            a, b = (
                [key for key in keys.get(modules[place].names, ()) if key not in taken]
                for keys, modules, place in zip(
                    inside, self.modules, (match.source, match.target), strict=True
                )
            )
            fitting = [(x, y) for x in a for y in b if self.source[x].shape == self.target[y].shape]
            if len(fitting) == 1 and self.confidence[match.source, match.target] >= 0.9:
                (x, y) = fitting[0]
                found.append(
                    Aligned(
                        Pair(((x,),), ((y,),)),
                        0.92,
                        "all that is left in modules that belong together",
                    )
                )
                taken |= {x, y}
        return found

    def _sequences(
        self, pairs: Sequence[Aligned], matches: Sequence[Match], doubtful: Collection[Candidate]
    ) -> Iterator[Aligned]:
        """Modules that are left in sequences whose other members are paired."""
        free = self._free(pairs, doubtful)
        paired = [
            candidate
            for match in matches
            if self.confidence[candidate := (match.source, match.target)] >= 0.9
        ]
        copies: dict[str, str] = {}
        for i, j in sequence_completions(self.modules, free, self.matching.similarities, paired):
            source, target = self.modules[0][i], self.modules[1][j]
            copies |= {target.keys[role]: key for role, key in _shared(source, target)}
        ops, unsure = layout_changes(copies, self.source, self.target)
        for key, origin in copies.items():
            if key in ops and key not in unsure and not is_order_unknown(origin, key):
                yield Aligned(
                    Pair(((origin,),), ((key,),), ops[key]),
                    0.93,
                    "the others of its sequence are paired likewise",
                )

    def _free(
        self, pairs: Sequence[Aligned], doubtful: Collection[Candidate]
    ) -> tuple[set[int], set[int]]:
        """The places of modules that are in no pair, and of which nothing is doubtful."""
        source, target = (
            {
                module.place
                for module in side
                if all(key in keys and key not in kept for key in module.keys.values())
            }
            for side, keys, kept in zip(
                self.modules, self._left(pairs), self.places.kept, strict=True
            )
        )
        return source - {i for i, _ in doubtful}, target - {j for _, j in doubtful}

    def _remaining(self, pairs: Sequence[Aligned], matches: Sequence[Match]) -> list[Aligned]:
        """Modules of which only one is left on each side."""
        found = []
        paired = [(match.source, match.target) for match in matches]
        for i, j in remaining(self.modules, self._left(pairs), self.matching.similarities, paired):
            source, target = self.modules[0][i], self.modules[1][j]
            for role, key in (
                _shared(source, target) if not self.places.are_apart(source, target) else ()
            ):
                if self.source[key].shape == self.target[target.keys[role]].shape:
                    found.append(
                        Aligned(
                            Pair(((key,),), ((target.keys[role],),)),
                            0.93,
                            "nothing else is left that fits, names agree in part",
                        )
                    )
        return found

    def _other_widths(
        self, pairs: Sequence[Aligned], matches: Matches, doubtful: Collection[Candidate]
    ) -> list[Aligned]:
        """Modules that belong together though shapes around them differ; those whose own do are
        misfits.
        """
        free = self._free(pairs, doubtful)
        found = []
        paired = [(match.source, match.target) for match in matches.found]
        for match, confidence in in_other_widths(self.modules, free, paired, self.is_ordered):
            source, target = self.modules[0][match.source], self.modules[1][match.target]
            for role, key in (
                _shared(source, target) if not self.places.are_apart(source, target) else ()
            ):
                other = target.keys[role]
                if source.shapes != target.shapes:
                    self.shape_mismatches.append((key, other))
                elif confidence >= 0.9:
                    found.append(
                        Aligned(
                            Pair(((key,),), ((other,),)),
                            0.93,
                            f"{evidence_of(match)}, in another width",
                        )
                    )
        return found

    def _inside(self, side: int, left: frozenset[str]) -> dict[Names, list[str]]:
        """The keys that are left in and below each module's path."""
        found: dict[Names, list[str]] = defaultdict(list)
        for module in self.modules[side]:
            keys = [key for key in module.keys.values() if key in left]
            for depth in range(1, len(module.names) + 1) if keys else ():
                found[module.names[:depth]] += keys
        return found

    def _with_ties(self, pairs: Sequence[Aligned]) -> Iterator[Aligned]:
        """The pairs, with target tensors that are a paired one under another name as copies of it."""
        _, left = self._left(pairs)
        ties: dict[str, list[str]] = defaultdict(list)
        for key in self.target:
            ties[self.target[key].tied_to or key].append(key)
        for each in pairs:
            first = each.pair.targets[0][0]
            others = (
                [key for key in ties[self.target[first].tied_to or first] if key in left]
                if each.pair.is_rename
                else []
            )
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
        return frozenset(key for key in self.source if key not in taken), frozenset(
            key for key in self.target if key not in made
        )

    def _combined(self, pairs: Sequence[Aligned]) -> list[Composite]:
        source, target = self._left(pairs)
        sides = (
            Unpaired(self.source, source, self.modules[0]),
            Unpaired(self.target, target, self.modules[1]),
        )
        return combined(*sides, self.matching.votes.of)

    def _result(
        self,
        pairs: list[Aligned],
        matches: Matches,
        doubtful: tuple[set[Candidate], set[Candidate], set[Candidate]],
    ) -> Alignment:
        source, target = self._left(pairs)
        self.shape_mismatches = [
            (a, b) for a, b in self.shape_mismatches if a in source and b in target
        ]
        groups = [
            *self._open(
                matches,
                source - {a for a, _ in self.shape_mismatches},
                target - {b for _, b in self.shape_mismatches},
            ),
            *self._doubtful(doubtful[0], _DEPTHS),
            *self._doubtful(doubtful[1] - doubtful[0], _TOWERS),
            *self._doubtful(doubtful[2], _EQUAL),
        ]
        order = {key: place for place, key in enumerate(self.target)}
        pairs.sort(key=lambda each: order[each.pair.targets[0][0]])
        in_order = (
            tuple(key for key in self.source if key in source),
            tuple(key for key in self.target if key in target),
        )
        return Alignment(tuple(pairs), tuple(groups), *in_order, tuple(self.shape_mismatches))

    def _open(
        self, matches: Matches, source: frozenset[str], target: frozenset[str]
    ) -> Iterator[Ambiguous]:
        """Undecided modules by what they may be, those that differ in numbers only together."""
        sets: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for place, others in matches.open.items():
            sets[others].append(place)
        for others, places in sets.items():
            a = tuple(
                key
                for place in places
                for key in self.modules[0][place].keys.values()
                if key in source
            )
            b = tuple(
                key
                for place in others
                for key in self.modules[1][place].keys.values()
                if key in target
            )
            if a and b and (len(places) > 1 or len(others) > 1):
                shape = shape_text(self.source[a[0]].shape)
                yield Ambiguous(
                    a,
                    b,
                    f"equal shapes ({shape}) under names that don't tell them apart",
                    f"{a[0]} -> {_fitting(a[0], b, self.source, self.target)}",
                )

    def _doubtful(self, doubtful: set[Candidate], reason: str) -> Iterator[Ambiguous]:
        if not doubtful:
            return
        a = [key for i, _ in sorted(doubtful) for key in self.modules[0][i].keys.values()]
        b = [key for _, j in sorted(doubtful) for key in self.modules[1][j].keys.values()]
        yield Ambiguous(
            tuple(a), tuple(b), reason, f"{a[0]} -> {_fitting(a[0], b, self.source, self.target)}"
        )


_MARKS = re.compile(r"[._/]")
MAX_NAMES_COMPARED = 200
_NO_DIGITS = str.maketrans("", "", "0123456789")
_DEPTHS = "equal blocks, more of them on one side: which are the extra ones, nothing tells"
_EQUAL = "equal blocks that could as well be exchanged"
_TOWERS = "equal parts side by side, whose names don't tell which is which"


def has_module_order(catalog: Catalog) -> bool:
    """Whether the keys stand as modules do: not sorted, and those of one module side by side."""
    owners = [key.rpartition(".")[0] for key in catalog]
    starts = sum(owner != before for owner, before in zip(owners, ["\n", *owners], strict=False))
    return (
        catalog.is_ordered and not is_sorted(list(catalog)) and starts < 1.1 * len(set(owners)) + 2
    )


def _fitting(key: str, others: Sequence[str], source: Catalog, target: Catalog) -> str:
    """The key of the target, of this shape if there is one, whose name is most like this one: of
    the same block, say.
    """
    fitting = [other for other in others if target[other].shape == source[key].shape] or list(
        others
    )
    from_source = _MARKS.split(key)
    return max(
        fitting[:MAX_NAMES_COMPARED],
        key=lambda other: SequenceMatcher(
            None, from_source, _MARKS.split(other), autojunk=False
        ).ratio(),
    )


def _shared(source: ModuleTensors, target: ModuleTensors) -> list[tuple[str, str]]:
    """Roles that two modules share, with the source's key; two single tensors share theirs whatever
    they are called.
    """
    if len(source.keys) == len(target.keys) == 1:
        return [(next(iter(target.keys)), next(iter(source.keys.values())))]
    return [(role, key) for role, key in source.keys.items() if role in target.keys]


def _unless_hinted(named: Mapping[str, Named], hints: Sequence[Hint]) -> dict[str, Named]:
    """The pairs by name without those of keys of which a hint says otherwise, in this block or in
    another one.
    """
    kinds = {(numberless(a), numberless(b)) for a, b in hints}
    source, target = {a for a, _ in kinds}, {b for _, b in kinds}
    found = {}
    for key, each in named.items():
        kind = (numberless(each.source), numberless(key))
        if kind in kinds or (kind[0] not in source and kind[1] not in target):
            found[key] = each
    return found


def _same_modules(
    modules: tuple[Sequence[ModuleTensors], Sequence[ModuleTensors]], named: Mapping[str, Named]
) -> set[Candidate]:
    """The modules of which names alone say that they belong together."""
    places = {key: module.place for module in modules[0] for key in module.keys.values()}
    met = {
        module.place: {places[named[key].source] for key in module.keys.values() if key in named}
        for module in modules[1]
    }
    owners = Counter(place for found in met.values() for place in found)
    return {
        (next(iter(found)), place)
        for place, found in met.items()
        if len(found) == 1 and owners[next(iter(found))] == 1
    }
