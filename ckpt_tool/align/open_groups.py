"""What nobody could know: groups of keys that a hint would settle, each with the likeliest hint."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from difflib import SequenceMatcher
from itertools import islice, product

from ckpt_tool.align.completing.phases import shared_tensors
from ckpt_tool.align.completing.unpaired import Unpaired
from ckpt_tool.align.decided import Decided
from ckpt_tool.align.findings import Ambiguous
from ckpt_tool.align.naming.modules import Candidate, ModuleTensors
from ckpt_tool.align.naming.same_names import KeyPair
from ckpt_tool.align.naming.shapes import plain
from ckpt_tool.align.sides import Sides
from ckpt_tool.tensors import Catalog, shape_text

MAX_PAIRS_COMPARED = 500

_MARKS = re.compile(r"[._/]")
_LAYERS = "equal blocks, more of them on one side: nothing shows which are the extra ones"
_BRANCHES = "equal parts side by side, whose names don't say which is which"
_EXCHANGEABLE = "equal blocks that could as well be exchanged"


def open_groups(
    decided: Decided, unpaired: Sides[Unpaired], shape_mismatches: Collection[KeyPair]
) -> Iterator[Ambiguous]:
    """The groups of keys that names and shapes can't tell apart."""
    keys = Sides(
        unpaired.source.keys - {origin for origin, _ in shape_mismatches},
        unpaired.target.keys - {key for _, key in shape_mismatches},
    )
    for candidates, reason in (
        (decided.doubtful.layers, _LAYERS),
        (decided.doubtful.branches, _BRANCHES),
        (decided.doubtful.exchangeable, _EXCHANGEABLE),
    ):
        if candidates:
            yield _doubtful(decided, candidates, reason)
    yield from _undecided(decided, keys)


def _undecided(decided: Decided, left: Sides[frozenset[str]]) -> Iterator[Ambiguous]:
    """Undecided modules by what they may be, those that differ in numbers only together."""
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for place, others in decided.matches.open.items():
        groups[others].append(place)
    for others, places in groups.items():
        sources = _keys_of(decided.modules.source, places, left.source)
        targets = _keys_of(decided.modules.target, others, left.target)
        if sources and targets and max(len(places), len(others)) > 1:
            shape = shape_text(decided.catalogs.source[sources[0]].shape)
            reason = f"equal shapes ({shape}) under names that don't distinguish them"
            yield Ambiguous(sources, targets, reason, _hint(sources, targets, decided.catalogs))


def _keys_of(
    modules: Sequence[ModuleTensors], places: Sequence[int], left: Collection[str]
) -> tuple[str, ...]:
    """The keys of these modules that are left."""
    keys = (key for place in places for key in modules[place].keys.values())
    return tuple(key for key in keys if key in left)


def _doubtful(decided: Decided, candidates: Collection[Candidate], reason: str) -> Ambiguous:
    pairs = [decided.pair(candidate) for candidate in sorted(candidates)]
    sources = tuple(key for pair in pairs for key in pair.source.keys.values())
    targets = tuple(key for pair in pairs for key in pair.target.keys.values())
    origin, key = shared_tensors(*pairs[0])[0]
    return Ambiguous(sources, targets, reason, f"{origin} -> {key}")


def _hint(sources: Sequence[str], targets: Sequence[str], catalogs: Sides[Catalog]) -> str:
    """A hint that would settle a group: two keys of one shape, if there are such, whose names are
    most like each other, of the same block, say.
    """

    def likeness(pair: KeyPair) -> tuple[bool, float]:
        origin, key = pair
        have_one_shape = plain(catalogs.source[origin].shape) == plain(catalogs.target[key].shape)
        names, others = _MARKS.split(origin), _MARKS.split(key)
        return have_one_shape, SequenceMatcher(None, names, others, autojunk=False).ratio()

    origin, key = max(islice(product(sources, targets), MAX_PAIRS_COMPARED), key=likeness)
    return f"{origin} -> {key}"
