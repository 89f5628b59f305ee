"""Whether the keys that a pairing leaves can be dropped and kept, one side's whole new modules and
the other's whole unused ones.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from math import prod

from ckpt_tool.advising.fresh import FreshKeys
from ckpt_tool.advising.leftovers import Doubt, Judgement, Leftovers, in_doubt, shapes_of
from ckpt_tool.advising.parts import is_below
from ckpt_tool.advising.relatives import twins
from ckpt_tool.advising.unused import UnusedKeys
from ckpt_tool.tensors import Catalog, counted
from ckpt_tool.wording import EMPTY, share_text

MIN_USED = 0.6
"""The share of the source's keys, in the module that all mapped ones are in, that must be mapped
where something stays fresh.
"""
MIN_OF_A_SIDE = 0.1
"""The share of the values of one side at least that must be mapped, for the two networks to have to
do with each other.
"""


def doubts_in_words(doubts: Sequence[Doubt]) -> tuple[str, ...]:
    """A line for each reason, with the first that it concerns, and how many more."""
    by_reason: dict[str, list[Doubt]] = defaultdict(list)
    for doubt in doubts:
        by_reason[doubt.why].append(doubt)
    return tuple(_in_words(alike[0], len(alike) - 1) for alike in by_reason.values())


def _in_words(doubt: Doubt, more: int) -> str:
    path, other = (f"`{name}`" if name else "" for name in (doubt.path, doubt.other))
    return " ".join(word for word in (path, doubt.why, other) if word) + (
        f", and {more:,} more" if more else ""
    )


def judge(leftovers: Leftovers) -> Judgement:
    """What may be proposed for the keys that are left.

    A target's key may be kept when it belongs to a module that is new as a whole, and nothing that
    is left of the source could be it: no tensor of its shapes, none that it is made of or is a part
    of. A source's key may be dropped when it is a buffer that modules compute, a copy of the
    weights that are taken, or belongs to a whole module that the target has no place for. Numbered
    blocks of one structure are never left by half: which of them would be meant, nothing tells.
    """
    source, target = UnusedKeys(leftovers), FreshKeys(leftovers)
    doubts = [*_unreadable(leftovers), *source.doubts(), *target.doubts()]
    doubts += (
        in_doubt(one)
        for one in twins(
            source.renamed, target.renamed, shapes_of(leftovers.source), shapes_of(leftovers.target)
        )
    )
    doubts += _too_little(leftovers, source) if target.parts else ()
    return Judgement(tuple(leftovers.left), tuple(leftovers.fresh), tuple(dict.fromkeys(doubts)))


def _unreadable(leftovers: Leftovers) -> Iterator[Doubt]:
    for key in leftovers.left:
        if key in leftovers.source.unreadable:
            yield Doubt(key or EMPTY, "can't be read")


def _too_little(leftovers: Leftovers, unused: UnusedKeys) -> Iterator[Doubt]:
    """A pairing that takes little of where it takes anything is no sign that the two networks have
    to do with each other.
    """
    root = unused.root
    inside = [key for key in leftovers.source if is_below(key, root)]
    known = sum(key in leftovers.taken or key in unused.harmless for key in inside)
    if known < MIN_USED * len(inside):
        of = f"{counted(len(inside), 'key')} of {f'`{root}` in ' if root else ''}the source"
        used = sum(key in leftovers.taken for key in inside)
        yield Doubt("", f"only {used:,} of {of} are used")
    shares = _share(leftovers.taken, leftovers.source), _share(leftovers.made, leftovers.target)
    if max(shares) < MIN_OF_A_SIDE:
        of_source, of_target = (share_text(share) for share in shares)
        yield Doubt(
            "", f"only {of_source} of the source's values are used, for {of_target} of the target's"
        )


def _share(keys: Iterable[str], catalog: Catalog) -> float:
    """The share of a side's values that these keys have."""
    return sum(prod(catalog[key].shape) for key in keys if key in catalog) / (
        sum(prod(info.shape) for info in catalog.values()) or 1
    )
