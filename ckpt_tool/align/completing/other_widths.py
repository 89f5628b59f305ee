"""What belongs together by names, structure and order where sizes differ: the same network in
another width, a head for other classes.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import product

from ckpt_tool.align.matching.confidence import confidences
from ckpt_tool.align.matching.matching import Match, Matching
from ckpt_tool.align.matching.similarity import Candidate
from ckpt_tool.align.naming.modules import ModuleShape, ModuleTensors, Names
from ckpt_tool.errors import InputError
from ckpt_tool.tensors import Shape

MAX_MODULES = 3000
LARGEST_KERNEL = 11
"""Sizes up to this one tell what kind of module it is; of larger ones any may differ."""
ANY = 64
MIN_AGREEMENT = 0.95
MIN_VOTES = 0.5

SIZES = 0.3
"""What sizes that are the same count."""

Sides = tuple[Sequence[ModuleTensors], Sequence[ModuleTensors]]


def without_sizes(shapes: ModuleShape) -> ModuleShape:
    return tuple((role, _without_size(shape)) for role, shape in shapes)


def _without_size(shape: Shape) -> Shape:
    return tuple(size if size <= LARGEST_KERNEL and len(shape) > 2 else ANY for size in shape)


def in_other_widths(
    modules: Sides,
    left: tuple[Collection[int], Collection[int]],
    paired: Collection[Candidate],
    is_ordered: bool,
) -> list[tuple[Match, float]]:
    """Modules of these places that belong together whatever their sizes, with how sure that is, if
    those that are paired already do too.
    """
    similarities = [
        {without_sizes(modules[side][place].shapes) for place in places}
        for side, places in enumerate(left)
    ]
    if not similarities[0] & similarities[1] or max(map(len, modules)) > MAX_MODULES:
        return []
    plain = [
        [replace(module, shapes=without_sizes(module.shapes)) for module in side]
        for side in modules
    ]
    try:
        matching = Matching(plain[0], plain[1], is_ordered)
    except InputError:
        return []  # too many are alike when sizes don't count
    partners = _partners(modules, paired)
    matching.unordered = {
        (i, j): score + SIZES * _same_sizes(modules[0][i].shapes, modules[1][j].shapes)
        for (i, j), score in matching.unordered.items()
        if _is_allowed(modules[0][i].names, modules[1][j].names, partners)
    }
    matches = matching.run().found
    confidence = confidences(modules, matches)
    known, seen = dict(paired), {match.source: match.target for match in matches}
    both = known.keys() & seen.keys()
    if not both or sum(known[i] == seen[i] for i in both) < MIN_AGREEMENT * len(both):
        return []
    return [
        (match, confidence[match.source, match.target])
        for match in matches
        if match.source in left[0]
        and match.target in left[1]
        and max(match.votes, match.words) >= MIN_VOTES
    ]


def _same_sizes(source: ModuleShape, target: ModuleShape) -> float:
    pairs = [
        (a, b)
        for (_, x), (_, y) in zip(source, target, strict=False)
        for a, b in zip(x, y, strict=False)
    ]
    return sum(a == b for a, b in pairs) / max(1, len(pairs))


def _partners(
    modules: Sides, paired: Collection[Candidate]
) -> tuple[dict[Names, Names], dict[Names, Names]]:
    """For each path of a side that several pairs tell of the outermost path of the other side that
    has them all, if it has no others.
    """
    met: Counter[tuple[Names, Names]] = Counter()
    sizes: tuple[Counter[Names], Counter[Names]] = (Counter(), Counter())
    for i, j in paired:
        source, target = _above(modules[0][i].names), _above(modules[1][j].names)
        met.update(product(source, target))
        sizes[0].update(source)
        sizes[1].update(target)
    found: tuple[dict[Names, Names], dict[Names, Names]] = ({}, {})
    for (a, b), count in met.items():
        if count > 1 and count == sizes[0][a] == sizes[1][b]:
            found[0][a] = min(b, found[0].get(a, b), key=len)
            found[1][b] = min(a, found[1].get(b, a), key=len)
    return found


def _is_allowed(
    source: Names, target: Names, partners: tuple[dict[Names, Names], dict[Names, Names]]
) -> bool:
    """Whether a pair of modules lies in modules that are partners, as far as these have any."""
    for names, other, known in ((source, target, partners[0]), (target, source, partners[1])):
        if any(other[: len(known[path])] != known[path] for path in _above(names) if path in known):
            return False
    return True


def _above(names: Names) -> list[Names]:
    return [names[:depth] for depth in range(1, len(names))]
