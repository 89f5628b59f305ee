"""Which tensors of two catalogs belong together, how sure that is and why; and what nobody could
know.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ckpt_tool.align.completing.doubts import only_counts_places, with_doubts
from ckpt_tool.align.completing.last_mismatches import last_mismatches
from ckpt_tool.align.completing.phases import PHASES
from ckpt_tool.align.completing.ties import with_ties
from ckpt_tool.align.completing.unpaired import Unpaired, unpaired_after
from ckpt_tool.align.decided import Decided, decide
from ckpt_tool.align.findings import Aligned, Alignment, Hint
from ckpt_tool.align.naming.same_names import KeyPair
from ckpt_tool.align.open_groups import open_groups
from ckpt_tool.align.pairs import Pair
from ckpt_tool.align.sides import Sides
from ckpt_tool.errors import InputError
from ckpt_tool.tensors import Catalog

MAX_KINDS = 50_000
"""Names of one side that differ in more than numbers: some seconds; no network has a tenth of them.
"""
_NO_DIGITS = str.maketrans("", "", "0123456789")


def align(
    source: Catalog, target: Catalog, hints: Sequence[Hint] = (), are_names_settled: bool = True
) -> Alignment:
    """Pairs by names and shapes, the clearest first; what can't be decided is listed, not guessed.

    Without `are_names_settled` equal names are evidence among others: where values say already
    which blocks were moved. Raises InputError where names are too many and too different to be
    compared.
    """
    catalogs = Sides(source, target)
    _check_kinds(catalogs)
    decided = decide(catalogs, hints, are_names_settled)
    pairs: list[Aligned] = []
    mismatches: list[KeyPair] = [*decided.places.shape_mismatches]
    for phase in PHASES:
        found = phase(decided, _unpaired(decided, pairs))
        pairs += found.pairs
        mismatches += found.shape_mismatches
    finished = _finished(decided, pairs)
    mismatches += last_mismatches(_unpaired(decided, finished), hints, mismatches)
    return _alignment(decided, finished, mismatches)


def _check_kinds(catalogs: Sides[Catalog]) -> None:
    """Raises InputError for a side with too many kinds of names."""
    for side, catalog in zip(("source", "target"), catalogs, strict=True):
        kinds = {key.translate(_NO_DIGITS) for key in catalog} if len(catalog) > MAX_KINDS else ()
        if len(kinds) > MAX_KINDS:
            fact = f"has more than {MAX_KINDS:,} names that differ by more than their numbers"
            raise InputError(f"the {side}", fact, "write rules, or try `--by position`")


def _unpaired(decided: Decided, pairs: Iterable[Aligned]) -> Sides[Unpaired]:
    """What these pairs leave."""
    return unpaired_after(pairs, decided.catalogs, decided.modules, decided.places.kept)


def _finished(decided: Decided, pairs: Iterable[Aligned]) -> list[Aligned]:
    """The pairs without what each side computes by itself, with what makes them doubtful, and with
    what is tied to them.
    """
    found = [each for each in pairs if not _is_computed(each.pair, decided)]
    source, target = decided.catalogs
    doubted = list(with_doubts(found, source, target, decided.named))
    left = _unpaired(decided, doubted).target.keys
    return list(with_ties(doubted, target, left))


def _is_computed(pair: Pair, decided: Decided) -> bool:
    """Whether a pair is of places that each side counts by itself, under names that differ."""
    (origin, *_), (key, *_) = pair.sources[0], pair.targets[0]
    if key in decided.named:
        return False
    return only_counts_places(origin, decided.catalogs.source) and only_counts_places(
        key, decided.catalogs.target
    )


def _alignment(
    decided: Decided, pairs: Sequence[Aligned], mismatches: Iterable[KeyPair]
) -> Alignment:
    """The pairs in the target's order, with what is left beside them."""
    unpaired = _unpaired(decided, pairs)
    source, target = unpaired.map(lambda side: side.keys)
    misplaced = tuple((a, b) for a, b in mismatches if a in source and b in target)
    order = {key: place for place, key in enumerate(decided.catalogs.target)}
    return Alignment(
        tuple(sorted(pairs, key=lambda each: order[each.pair.targets[0][0]])),
        tuple(open_groups(decided, unpaired, misplaced)),
        tuple(_in_order(unpaired.source)),
        tuple(_in_order(unpaired.target)),
        misplaced,
    )


def _in_order(side: Unpaired) -> Iterator[str]:
    """The keys that are left, in the catalog's order."""
    return (key for key in side.catalog if key in side.keys)
