"""What belongs together by names, structure and order where sizes differ: the same network in
another width, a head for other classes.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import product

from ckpt_tool.align.matching.choosing import Match
from ckpt_tool.align.matching.confidence import confidences
from ckpt_tool.align.matching.evidence import Evidence, gather_evidence
from ckpt_tool.align.matching.matching import match
from ckpt_tool.align.naming.modules import Candidate, Modules, ModuleTensors
from ckpt_tool.align.naming.paths import Names, is_below, paths_above
from ckpt_tool.align.naming.shapes import ModuleShape
from ckpt_tool.align.sides import Sides
from ckpt_tool.align.weights import WEIGHTS
from ckpt_tool.errors import InputError
from ckpt_tool.tensors import Shape

MAX_MODULES = 3000
LARGEST_KERNEL = 11
"""Sizes up to this one show what kind of module it is; of larger ones any may differ."""
ANY = 64
"""What stands for those."""


def without_sizes(shapes: ModuleShape) -> ModuleShape:
    """The same with one number for all sizes that may differ."""
    return tuple((role, _without_sizes(shape)) for role, shape in shapes)


def _without_sizes(shape: Shape) -> Shape:
    return tuple(size if size <= LARGEST_KERNEL and len(shape) > 2 else ANY for size in shape)


def in_other_widths(
    modules: Modules, free: Sides[Collection[int]], paired: Collection[Candidate], is_ordered: bool
) -> list[tuple[Match, float]]:
    """Modules of these places that belong together whatever their sizes, with how sure that is, if
    those that are paired already do too.
    """
    if max(map(len, modules)) > MAX_MODULES or not _have_same_kinds(modules, free):
        return []
    try:
        evidence = gather_evidence(modules.map(_all_without_sizes), is_ordered)
    except InputError:
        return []  # too many are alike when sizes don't count
    found = match(_within_partners(evidence, modules, paired)).found
    if not _are_found_again(paired, found):
        return []
    sure = confidences(modules, found)
    return [
        (each, sure[each.candidate])
        for each in found
        if each.source in free.source
        and each.target in free.target
        and max(each.neighbours, each.words) >= WEIGHTS.width_evidence
    ]


def _have_same_kinds(modules: Modules, free: Sides[Collection[int]]) -> bool:
    """Whether some of these places of both sides are alike but for their sizes."""
    source, target = (
        {without_sizes(side[place].shapes) for place in places}
        for side, places in zip(modules, free, strict=True)
    )
    return not source.isdisjoint(target)


def _all_without_sizes(modules: Sequence[ModuleTensors]) -> list[ModuleTensors]:
    return [replace(module, shapes=without_sizes(module.shapes)) for module in modules]


def _within_partners(
    evidence: Evidence, modules: Modules, paired: Collection[Candidate]
) -> Evidence:
    """The evidence for pairs inside of modules that are partners; sizes that are the same count."""
    from_source, from_target = _partners(modules, paired)
    unordered = {}
    for (i, j), score in evidence.unordered.items():
        source, target = modules.source[i], modules.target[j]
        is_inside = _is_inside(source.names, target.names, from_source)
        if is_inside and _is_inside(target.names, source.names, from_target):
            same = WEIGHTS.same_sizes * _same_sizes(source.shapes, target.shapes)
            unordered[i, j] = score + same
    return replace(evidence, unordered=unordered)


def _are_found_again(paired: Collection[Candidate], found: Sequence[Match]) -> bool:
    """Whether nearly all pairs that are known are found without sizes too."""
    known, seen = dict(paired), dict(each.candidate for each in found)
    both = known.keys() & seen.keys()
    same = sum(known[i] == seen[i] for i in both)
    return bool(both) and same >= WEIGHTS.width_agreement * len(both)


def _same_sizes(source: ModuleShape, target: ModuleShape) -> float:
    """The share of sizes that are the same."""
    pairs = [
        (a, b)
        for (_, x), (_, y) in zip(source, target, strict=False)
        for a, b in zip(x, y, strict=False)
    ]
    return sum(a == b for a, b in pairs) / max(1, len(pairs))


def _partners(modules: Modules, paired: Collection[Candidate]) -> Sides[Mapping[Names, Names]]:
    """For each path of a side that several pairs speak of the outermost path of the other side that
    has them all, if it has no others.
    """
    met: Counter[tuple[Names, Names]] = Counter()
    sizes: Sides[Counter[Names]] = Sides(Counter(), Counter())
    for i, j in paired:
        source, target = paths_above(modules.source[i].names), paths_above(modules.target[j].names)
        met.update(product(source, target))
        sizes.source.update(source)
        sizes.target.update(target)
    found: Sides[dict[Names, Names]] = Sides({}, {})
    for (a, b), count in met.items():
        if count > 1 and count == sizes.source[a] == sizes.target[b]:
            found.source[a] = min(b, found.source.get(a, b), key=len)
            found.target[b] = min(a, found.target.get(b, a), key=len)
    return found


def _is_inside(names: Names, other: Names, partners: Mapping[Names, Names]) -> bool:
    """Whether a module lies in the partners of all paths above another that have any."""
    return all(is_below(other, partners[path]) for path in paths_above(names) if path in partners)
