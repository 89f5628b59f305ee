"""What belongs together by names, structure and order where sizes differ: the same network in another width, a head for other classes."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from ckpt_tool.align.likeness import Cell
from ckpt_tool.align.match import Match, Matching
from ckpt_tool.align.trust import confidences
from ckpt_tool.align.units import Form, Unit
from ckpt_tool.tensors import Shape

MOST_UNITS = 3000
LARGEST_KERNEL = 11
"""Sizes up to this one tell what kind of module it is; of larger ones any may differ."""
ANY = 64
LEAST_AGREEMENT = 0.95
LEAST_VOTES = 0.5

Sides = tuple[Sequence[Unit], Sequence[Unit]]


def outline(form: Form) -> Form:
    return tuple((role, _outlined(shape)) for role, shape in form)


def _outlined(shape: Shape) -> Shape:
    return tuple(size if size <= LARGEST_KERNEL and len(shape) > 2 else ANY for size in shape)


def by_outlines(units: Sides, left: tuple[Collection[int], Collection[int]], paired: Collection[Cell], is_ordered: bool) -> list[tuple[Match, float]]:
    """Units of these places that belong together whatever their sizes, with how sure that is, if those that are paired already do too."""
    forms = [{outline(units[side][place].form) for place in places} for side, places in enumerate(left)]
    if not forms[0] & forms[1] or max(map(len, units)) > MOST_UNITS:
        return []
    plain = [[replace(unit, form=outline(unit.form)) for unit in side] for side in units]
    matches = Matching(plain[0], plain[1], is_ordered).run().found
    trust = confidences(units, matches)
    known, seen = dict(paired), {match.source: match.target for match in matches}
    both = known.keys() & seen.keys()
    if not both or sum(known[i] == seen[i] for i in both) < LEAST_AGREEMENT * len(both):
        return []
    return [
        (match, trust[match.source, match.target])
        for match in matches
        if match.source in left[0] and match.target in left[1] and max(match.votes, match.words) >= LEAST_VOTES
    ]
