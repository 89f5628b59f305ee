"""The evidence that pairs tensors, phase by phase: what was decided of modules, then the rest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ckpt_tool.align.completing.combined import combined
from ckpt_tool.align.completing.fused import is_order_unknown
from ckpt_tool.align.completing.layouts import are_transposed, layout_changes
from ckpt_tool.align.completing.other_widths import in_other_widths
from ckpt_tool.align.completing.remaining import remaining
from ckpt_tool.align.completing.sequences import sequence_completions
from ckpt_tool.align.completing.unpaired import Unpaired
from ckpt_tool.align.decided import Decided
from ckpt_tool.align.findings import Aligned
from ckpt_tool.align.matching.confidence import evidence_of
from ckpt_tool.align.naming.modules import Candidate, ModuleTensors
from ckpt_tool.align.naming.paths import Names, block_of, numberless_names
from ckpt_tool.align.naming.same_names import KeyPair, Named
from ckpt_tool.align.pairs import Pair
from ckpt_tool.align.sides import Sides
from ckpt_tool.align.weights import WEIGHTS


@dataclass(frozen=True, slots=True)
class Found:
    """What one phase finds: pairs, and keys that have one place on both sides but other shapes."""

    pairs: tuple[Aligned, ...] = ()
    shape_mismatches: tuple[KeyPair, ...] = ()


Phase = Callable[[Decided, Sides[Unpaired]], Found]
"""A kind of evidence: what it pairs of what is left on both sides."""


def copies(decided: Decided, unpaired: Sides[Unpaired]) -> Found:
    """Each tensor of modules that belong together; what has its own name goes by that."""
    found = {**decided.named, **_by_modules(decided)}
    origins = {key: each.source for key, each in found.items()}
    ops, unsure = layout_changes(origins, *decided.catalogs)
    pairs = []
    for key, each in found.items():
        if key in ops:
            pair = Pair(((each.source,),), ((key,),), ops[key])
            aligned = Aligned(pair, each.confidence, each.evidence)
            if key in unsure and key not in decided.named:
                aligned = aligned.doubted("but square: it may be transposed")
            if is_order_unknown(each.source, key):
                aligned = aligned.doubted("but its rows may be in another order")
            pairs.append(aligned)
    return Found(tuple(pairs))


def _by_modules(decided: Decided) -> dict[str, Named]:
    """The tensors of modules that belong together, but for those that their own names pair."""
    taken = {each.source for each in decided.named.values()}
    found = {}
    for match in decided.sure:
        confidence, evidence = decided.confidence[match.candidate], evidence_of(match)
        for origin, key in shared_tensors(*decided.pair(match.candidate)):
            if origin not in taken and key not in decided.named:
                found[key] = Named(origin, confidence, evidence)
    return found


def sequence_members(decided: Decided, unpaired: Sides[Unpaired]) -> Found:
    """Modules that are left in sequences whose other members are paired."""
    confidence = decided.confidence
    paired = [each.candidate for each in decided.sure if confidence[each.candidate] >= WEIGHTS.sure]
    free, similarities = _movable(decided, unpaired), decided.evidence.similarities
    candidates = sequence_completions(decided.modules, free, similarities, paired)
    tensors = (pair for each in candidates for pair in shared_tensors(*decided.pair(each)))
    origins = {key: origin for origin, key in tensors}
    ops, unsure = layout_changes(origins, *decided.catalogs)
    evidence = "the others of its sequence pair in the same way"
    return Found(
        tuple(
            Aligned(Pair(((origin,),), ((key,),), ops[key]), WEIGHTS.continued, evidence)
            for key, origin in origins.items()
            if key in ops and key not in unsure and not is_order_unknown(origin, key)
        )
    )


def parts_and_wholes(decided: Decided, unpaired: Sides[Unpaired]) -> Found:
    """Tensors that several of the other side make: fused projections, stacked experts."""
    found = combined(unpaired, decided.matches.neighbours.of, lambda: _are_transposed(decided))
    doubtful = decided.doubtful.every
    if not doubtful:
        return Found(tuple(found))
    owners = decided.modules.map(_blocks_of_keys)
    pairs = [decided.pair(candidate).map(_block) for candidate in doubtful]
    blocks = Sides({each.source for each in pairs}, {each.target for each in pairs})
    return Found(
        tuple(
            each.doubted("but its block could as well be another")
            if owners.source[each.pair.sources[0][0]] in blocks.source
            or owners.target[each.pair.targets[0][0]] in blocks.target
            else each
            for each in found
        )
    )


def _block(module: ModuleTensors) -> Names:
    return block_of(module.parent)


def _are_transposed(decided: Decided) -> bool | None:
    """Whether one side has its matrices transposed, as far as those show it that are paired."""
    found = {**decided.named, **_by_modules(decided)}
    origins = {key: each.source for key, each in found.items()}
    return are_transposed(origins, *decided.catalogs)


def _blocks_of_keys(modules: Sequence[ModuleTensors]) -> dict[str, Names]:
    """For each key the block that its module is in."""
    return {key: _block(module) for module in modules for key in module.keys.values()}


def last_tensors(decided: Decided, unpaired: Sides[Unpaired]) -> Found:
    """Single tensors that are left over inside modules that belong together."""
    inside = unpaired.map(_inside)
    taken: set[str] = set()
    found = []
    for match in decided.sure if all(inside) else ():
        if decided.confidence[match.candidate] >= WEIGHTS.sure:
            source, target = decided.pair(match.candidate)
            left = Sides(inside.source.get(source.names, ()), inside.target.get(target.names, ()))
            fitting = [
                (origin, key)
                for origin in left.source
                for key in left.target
                if not taken & {origin, key} and _have_one_shape(decided, origin, key)
            ]
            if len(fitting) == 1:
                found += fitting
                taken.update(fitting[0])
    evidence = "all that is left in modules that belong together"
    return Found(tuple(_renamed(*pair, WEIGHTS.last_leaf, evidence) for pair in found))


def last_modules(decided: Decided, unpaired: Sides[Unpaired]) -> Found:
    """Modules of which only one is left on each side."""
    paired = [match.candidate for match in decided.sure]
    similarities = decided.evidence.similarities
    evidence = "nothing else fits, names agree in part"
    return Found(
        tuple(
            _renamed(origin, key, WEIGHTS.last_fit, evidence)
            for candidate in remaining(decided.modules, unpaired, similarities, paired)
            for origin, key in _tensors_in_place(decided, candidate)
            if _have_one_shape(decided, origin, key)
        )
    )


def other_widths(decided: Decided, unpaired: Sides[Unpaired]) -> Found:
    """Modules that belong together though shapes around them differ; those whose own do are shape
    mismatches.
    """
    paired = [match.candidate for match in decided.matches.found]
    free, is_ordered = _movable(decided, unpaired), decided.evidence.is_ordered
    pairs: list[Aligned] = []
    mismatches: list[KeyPair] = []
    for match, confidence in in_other_widths(decided.modules, free, paired, is_ordered):
        source, target = decided.pair(match.candidate)
        tensors = _tensors_in_place(decided, match.candidate)
        if source.shapes != target.shapes:
            mismatches += tensors
        elif confidence >= WEIGHTS.sure:
            evidence = f"{evidence_of(match)}, in another width"
            pairs += (_renamed(*pair, WEIGHTS.other_width, evidence) for pair in tensors)
    return Found(tuple(pairs), tuple(mismatches))


PHASES: tuple[Phase, ...] = (
    copies,
    sequence_members,
    parts_and_wholes,
    last_tensors,
    last_modules,
    other_widths,
)
"""The order of the evidence: each phase sees what those before it left."""


def shared_tensors(source: ModuleTensors, target: ModuleTensors) -> list[KeyPair]:
    """The keys of roles that two modules share; two single tensors belong together whatever they
    are called.
    """
    if len(source.keys) == len(target.keys) == 1:
        return list(zip(source.keys.values(), target.keys.values(), strict=True))
    return [(key, target.keys[role]) for role, key in source.keys.items() if role in target.keys]


def _tensors_in_place(decided: Decided, candidate: Candidate) -> list[KeyPair]:
    """The same, none where one of the modules has a place of its own."""
    source, target = decided.pair(candidate)
    return [] if decided.places.are_apart(source, target) else shared_tensors(source, target)


def _movable(decided: Decided, unpaired: Sides[Unpaired]) -> Sides[set[int]]:
    """The places of modules that are in no pair, and of which nothing is doubtful: neither they nor
    others in blocks that differ from theirs in numbers only.
    """
    pairs = [decided.pair(candidate).map(_kind_of_block) for candidate in decided.doubtful.every]
    kinds = Sides({each.source for each in pairs}, {each.target for each in pairs})
    doubtful = decided.doubtful.every
    return Sides(
        {
            place
            for place in unpaired.source.movable() - {i for i, _ in doubtful}
            if _kind_of_block(decided.modules.source[place]) not in kinds.source
        },
        {
            place
            for place in unpaired.target.movable() - {j for _, j in doubtful}
            if _kind_of_block(decided.modules.target[place]) not in kinds.target
        },
    )


def _kind_of_block(module: ModuleTensors) -> Names:
    """The block that a module is in, whatever its number; of one that is in none, its own path."""
    return numberless_names(_block(module) or module.names)


def _inside(side: Unpaired) -> Mapping[Names, list[str]]:
    """The keys that are left in and below each path, but for those with places of their own."""
    found: dict[Names, list[str]] = defaultdict(list)
    for module in side.modules:
        keys = [key for key in side.of(module).values() if key not in side.kept]
        for depth in range(1, len(module.names) + 1) if keys else ():
            found[module.names[:depth]] += keys
    return found


def _have_one_shape(decided: Decided, origin: str, key: str) -> bool:
    return decided.catalogs.source[origin].shape == decided.catalogs.target[key].shape


def _renamed(origin: str, key: str, confidence: float, evidence: str) -> Aligned:
    return Aligned(Pair(((origin,),), ((key,),)), confidence, evidence)
