"""What nobody could know: groups of keys that a hint would settle, each with the likeliest hint."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from difflib import SequenceMatcher

from ckpt_tool.align.completing.unpaired import Unpaired
from ckpt_tool.align.decided import Decided
from ckpt_tool.align.findings import Ambiguous
from ckpt_tool.align.naming.modules import Candidate, ModuleTensors
from ckpt_tool.align.naming.same_names import KeyPair
from ckpt_tool.align.sides import Sides
from ckpt_tool.tensors import Catalog, shape_text

MAX_NAMES_COMPARED = 200

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
    yield from _undecided(decided, keys)
    for candidates, reason in (
        (decided.doubtful.layers, _LAYERS),
        (decided.doubtful.branches, _BRANCHES),
        (decided.doubtful.exchangeable, _EXCHANGEABLE),
    ):
        if candidates:
            yield _doubtful(decided, candidates, reason)


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
            yield Ambiguous(sources, targets, reason, _hint(sources[0], targets, decided.catalogs))


def _keys_of(
    modules: Sequence[ModuleTensors], places: Sequence[int], left: Collection[str]
) -> tuple[str, ...]:
    """The keys of these modules that are left."""
    keys = (key for place in places for key in modules[place].keys.values())
    return tuple(key for key in keys if key in left)


def _doubtful(decided: Decided, candidates: Collection[Candidate], reason: str) -> Ambiguous:
    pairs = [decided.pair(candidate) for candidate in sorted(candidates)]
    by_target = [decided.modules.target[j] for _, j in sorted(candidates)]
    sources = tuple(key for pair in pairs for key in pair.source.keys.values())
    targets = tuple(key for module in by_target for key in module.keys.values())
    return Ambiguous(sources, targets, reason, _hint(sources[0], targets, decided.catalogs))


def _hint(key: str, others: Sequence[str], catalogs: Sides[Catalog]) -> str:
    """A hint that would settle a group: the key of the target, of this shape if there is one, whose
    name is most like this one, of the same block, say.
    """
    shape, names = catalogs.source[key].shape, _MARKS.split(key)

    def likeness(other: str) -> float:
        return SequenceMatcher(None, names, _MARKS.split(other), autojunk=False).ratio()

    fitting = [other for other in others if catalogs.target[other].shape == shape] or others
    return f"{key} -> {max(fitting[:MAX_NAMES_COMPARED], key=likeness)}"
