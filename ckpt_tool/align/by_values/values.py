"""Which tensors of two checkpoints belong together, by what they hold: every pair is equal, bit for
bit, after its ops.

Each phase makes of what is left, an `Unpaired`, what is left after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from ckpt_tool.align.alignment import align
from ckpt_tool.align.by_values.companions import followers
from ckpt_tool.align.by_values.contents import DigestedSides, read_contents
from ckpt_tool.align.by_values.fingerprints import DigestedTensors, read_as, tensor_digest
from ckpt_tool.align.by_values.proof import is_proved
from ckpt_tool.align.by_values.reordering import matrices_by_size, reordered
from ckpt_tool.align.by_values.reshaping import reshaped
from ckpt_tool.align.by_values.row_search import TURNS, RowFinder, parts_of_vectors
from ckpt_tool.align.by_values.surroundings import settled_by_surroundings
from ckpt_tool.align.by_values.unpaired import PairsSoFar, Taking, keys_of_pair, unpaired
from ckpt_tool.align.findings import Aligned, Alignment, Ambiguous, Hint
from ckpt_tool.align.pairs import Pair
from ckpt_tool.align.sides import Sides
from ckpt_tool.ops import OpError, parse_ops, run_chain

EQUAL, DIFFERENT = "equal values", "the values differ"
MIN_SURE, MAX_DOUBTED = 0.9, 0.85
"""The confidence from which on a pair by name counts as sure (`align.MIN_CONFIDENCE`), and the most
that a pair keeps whose values differ where nearly all others' are equal: just below it.
"""
MIN_EQUAL = 0.9
"""The share of sure pairs by name that must have equal values for the others to be doubted. A
judgement: below it, as of a model that was trained on, names are the better evidence.
"""


def align_values(
    source: DigestedTensors,
    target: DigestedTensors,
    hints: Sequence[Hint] = (),
    by_bytes: bool = False,
) -> Alignment:
    """Pairs by equal values, then by names and shapes for what has no equal. Costs reading both
    sides once, a few tensors more often. `by_bytes` finds equal bytes alone, without arithmetic.
    """
    contents = read_contents(source, target, by_bytes)
    left = _only_equals(contents, unpaired(source.catalog, target.catalog))
    if not by_bytes and all(contents.without_equal(left)):
        left = _weight_norms(contents, left)
        left = _reordered(contents, left, contents.without_equal(left))
        left = _in_parts(contents, left)
    if left.is_any_left:
        left = _by_surroundings(contents, left, hints)
    if not by_bytes:
        spare = Sides(contents.of_telling(left), contents.without_equal(left).target)
        left = _reordered(contents, left, spare)
    left = _with_copies(contents, left)
    named = Alignment((), (), (), ())
    if left.is_any_left:
        named = align(source.catalog, target.catalog, hints)
    left = left.after(_judged_by_values(contents, left, named, by_bytes))
    return _alignment(contents, left, named)


def _only_equals(contents: DigestedSides, left: PairsSoFar) -> PairsSoFar:
    """Tensors of the same bytes that are the only ones of their content on both sides."""
    return left.after(
        Aligned(_copy(contents, keys.source[0], keys.target[0]), 1.0, EQUAL)
        for kind, keys in contents.by_kind.items()
        if kind in contents.telling and len(keys.source) == len(keys.target) == 1
    )


def _copy(contents: DigestedSides, origin: str, key: str) -> Pair:
    """A pair of the same elements in the same order, whatever their shapes."""
    catalogs = contents.catalogs
    ops = reshaped(catalogs.source[origin].shape, catalogs.target[key].shape)
    return Pair(((origin,),), ((key,),), parse_ops(ops))


def _weight_norms(contents: DigestedSides, left: PairsSoFar) -> PairsSoFar:
    """Weights that the source holds as a length and a direction."""
    return _proved(contents, left, _weight_norm_pairs(contents, left))


def _weight_norm_pairs(contents: DigestedSides, left: PairsSoFar) -> Iterator[Pair]:
    source, held = contents.checkpoints.source, contents.held.target
    found = {held[key].kind: key for key in contents.without_equal(left).target}
    for g, v in lengths_with_directions(left.keys.source):
        key = found.get((source.catalog[v].dtype, _folded(source, g, v)))
        if key is not None:
            yield Pair(((g,), (v,)), ((key,),), parse_ops({"weight_norm": 0}))


def lengths_with_directions(keys: Iterable[str]) -> list[tuple[str, str]]:
    """Keys of a length with those of its direction, in torch's old names and its new ones.

    >>> lengths_with_directions(["a.weight_g", "a.weight_v", "b.weight_g"])
    [('a.weight_g', 'a.weight_v')]
    """
    known = dict.fromkeys(keys)
    found = []
    for g in known:
        for length, direction in (("_g", "_v"), (".original0", ".original1")):
            if g.endswith(length) and (v := g.removesuffix(length) + direction) in known:
                found.append((g, v))
    return found


def _folded(source: DigestedTensors, g: str, v: str) -> bytes:
    """The digest of the weight that a length and a direction make; empty where they make none."""
    tensors = [read_as(source, key, source.catalog[key].dtype) for key in (g, v)]
    try:
        (weight,) = run_chain(parse_ops({"weight_norm": 0}), tensors)
    except (OpError, RuntimeError):
        return b""
    return tensor_digest(weight)


def _reordered(contents: DigestedSides, left: PairsSoFar, keys: Sides[list[str]]) -> PairsSoFar:
    """Tensors of the same elements in another order of dimensions, among some of the keys."""
    for size, targets in matrices_by_size(keys.target, contents.catalogs.target).items():
        sources = [key for key in keys.source if key in left.keys.source]
        pairs = reordered(contents.checkpoints, Sides(sources, targets), size)
        left = left.after(Aligned(pair, 1.0, EQUAL) for pair in pairs)
    return left


def _in_parts(contents: DigestedSides, left: PairsSoFar) -> PairsSoFar:
    """Tensors that are parts of others, joined of others, or have their rows in another order."""
    finder = RowFinder(contents.checkpoints)
    for turns in TURNS:
        left = _proved(contents, left, finder.pairs(contents.without_equal(left), turns))
    vectors = parts_of_vectors(contents.checkpoints, contents.without_equal(left))
    return _proved(contents, left, vectors)


def _proved(contents: DigestedSides, left: PairsSoFar, candidates: Iterable[Pair]) -> PairsSoFar:
    """The candidates whose ops make the target's bytes, and what lies beside their tensors and goes
    the same way.
    """
    taking = Taking(left)
    for pair in candidates:
        if not taking.is_free(pair) or not is_proved(pair, *contents.checkpoints):
            continue
        taking.take(Aligned(pair, 1.0, EQUAL))
        for other in followers(pair, left.keys):
            if taking.is_free(other) and is_proved(other, *contents.checkpoints):
                evidence = f"{EQUAL}, beside tensors that go the same way"
                taking.take(Aligned(other, 1.0, evidence))
    return taking.result()


def _by_surroundings(
    contents: DigestedSides, left: PairsSoFar, hints: Sequence[Hint]
) -> PairsSoFar:
    """Contents that stand in several places, by what stands around them."""
    alike = list(_alike(contents, left))
    labels = Sides(
        {key: label for label, (keys, _) in enumerate(alike) for key in keys.source},
        {key: label for label, (keys, _) in enumerate(alike) for key in keys.target},
    )
    telling = frozenset(label for label, (_, tells) in enumerate(alike) if tells)
    settled = settled_by_surroundings(contents.catalogs, labels, telling, hints)
    return left.after(
        Aligned(
            _copy(contents, each.pair.sources[0][0], each.pair.targets[0][0]),
            each.confidence,
            f"{EQUAL}, elsewhere too; {each.evidence}",
        )
        for each in settled
    )


def _alike(
    contents: DigestedSides, left: PairsSoFar
) -> Iterator[tuple[Sides[Iterable[str]], bool]]:
    """Keys of both sides that hold the same, and whether this is more than chance: those of a pair,
    then those that are left.
    """
    for each in left.pairs:
        if len(each.pair.sources) == len(each.pair.targets) == 1:
            yield keys_of_pair(each.pair), True
    for kind, keys in contents.grouped(left.keys).items():
        if all(keys):
            yield keys, kind in contents.telling


def _with_copies(contents: DigestedSides, left: PairsSoFar) -> PairsSoFar:
    """The pairs that give other targets, too, what their source key holds: tied weights that are
    stored twice.
    """
    order = {key: place for place, key in enumerate(contents.catalogs.target)}
    free = left.keys.map(dict)
    pairs = []
    for each in left.pairs:
        more = _copies_of(each.pair, contents, free)
        if more:
            keys = sorted((each.pair.targets[0][0], *more), key=order.__getitem__)
            slots = tuple((key,) for key in keys)
            each = replace(each, pair=Pair(each.pair.sources, slots, parse_ops("copy")))
            for key in more:
                del free.target[key]
        pairs.append(each)
    return PairsSoFar(free, tuple(pairs))


def _copies_of(pair: Pair, contents: DigestedSides, free: Sides[dict[str, None]]) -> list[str]:
    """The free target keys of the same content and shape as a rename's; none while a source key
    that holds it too is free.
    """
    if not pair.is_rename:
        return []
    (key,), held = pair.targets[0], contents.held.target[pair.targets[0][0]]
    same, catalog = contents.by_kind[held.kind], contents.catalogs.target
    if not held.tells or any(origin in free.source for origin in same.source):
        return []
    more = [other for other in same.target if other in free.target]
    return more if all(catalog[other].shape == catalog[key].shape for other in more) else []


def _judged_by_values(
    contents: DigestedSides, left: PairsSoFar, named: Alignment, by_bytes: bool
) -> Iterator[Aligned]:
    """Pairs by names and shapes, with what their values say: not for sure where nearly all that
    names pair has its equal there. Bytes that differ say nothing where only they were compared.
    """
    sure = [each.pair for each in named.pairs if each.confidence >= MIN_SURE]
    found = {(each.pair.sources, each.pair.targets) for each in left.pairs}
    agreed = sum((pair.sources, pair.targets) in found for pair in sure)
    is_decided = agreed > MIN_EQUAL * len(sure)
    for each in named.pairs:
        if contents.are_equal(each.pair):
            yield replace(each, evidence=f"{each.evidence}; {EQUAL}")
        elif by_bytes:
            yield each
        elif not is_decided:
            yield replace(each, evidence=f"{each.evidence}; {DIFFERENT}")
        else:
            evidence = f"{each.evidence}; {DIFFERENT}, where nearly all others are equal"
            yield Aligned(each.pair, min(each.confidence, MAX_DOUBTED), evidence)


def _alignment(contents: DigestedSides, left: PairsSoFar, named: Alignment) -> Alignment:
    """The pairs in the target's order, and what names and shapes leave open of what is left."""
    order = {key: place for place, key in enumerate(contents.catalogs.target)}
    return Alignment(
        tuple(sorted(left.pairs, key=lambda each: order[each.pair.targets[0][0]])),
        tuple(_still_open(named.ambiguous, left)),
        tuple(left.keys.source),
        tuple(left.keys.target),
        tuple(
            (origin, key)
            for origin, key in named.shape_mismatches
            if origin in left.keys.source and key in left.keys.target
        ),
    )


def _still_open(groups: Iterable[Ambiguous], left: PairsSoFar) -> Iterator[Ambiguous]:
    """The groups without the keys that have a pair."""
    for group in groups:
        sources = tuple(key for key in group.sources if key in left.keys.source)
        targets = tuple(key for key in group.targets if key in left.keys.target)
        if sources and targets:
            hint = f"{sources[0]} -> {targets[0]}"
            yield replace(group, sources=sources, targets=targets, hint=hint)
