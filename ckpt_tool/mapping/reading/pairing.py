"""Holes of a rule's two sides: each target's under the ids of the first source, which pair them."""

from collections.abc import Sequence

from ckpt_tool.frozen import frozen
from ckpt_tool.keys import Pattern, PatternError, pair
from ckpt_tool.keys.pattern import Number
from ckpt_tool.mapping.reading.patterns import PatternText, Reading


@frozen
class PairedSides:
    """The patterns of both sides with common ids for their holes; `carried` are on all of them."""

    sources: tuple[Pattern, ...]
    targets: tuple[Pattern, ...]
    carried: tuple[str, ...]


def pair_sides(
    reading: Reading,
    sources: Sequence[Pattern],
    targets: Sequence[Pattern],
    target_texts: Sequence[PatternText],
) -> PairedSides | None:
    """The sides with common ids, or None after adding a problem for a hole that can't be paired.

    Targets alone, as of `-> TARGET: {init: zeros}`, keep the ids that they have.
    """
    if not sources:
        return PairedSides((), tuple(targets), ())
    renamed = []
    for pattern, text in zip(targets, target_texts, strict=True):
        try:
            renamed.append(pair(sources[0], pattern).target)
        except PatternError as error:
            reading.add("unbalanced", error.message, text.place_of(error))
            return None
    try:
        others = [pair(sources[0], other).target for other in sources[1:]]
    except PatternError as error:
        reading.add("unbalanced", error.message, target_texts[0].scalar.where)
        return None
    everywhere = [set(hole_ids(pattern)) for pattern in (sources[0], *others, *renamed)]
    shared = set.intersection(*everywhere) - reading.params
    carried = tuple(hole for hole in hole_ids(sources[0]) if hole in shared)
    return PairedSides((sources[0], *others), tuple(renamed), carried)


def hole_ids(pattern: Pattern) -> tuple[str, ...]:
    """The ids of a pattern's holes from the left, each once; of a number, the names in it."""
    ids: list[str] = []
    for hole in pattern.holes:
        ids.extend(hole.affine.names if isinstance(hole, Number) else (hole.id,))
    return tuple(dict.fromkeys(ids))
