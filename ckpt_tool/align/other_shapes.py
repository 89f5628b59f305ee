"""What belongs together but for its shape, in lines for a person."""

from collections.abc import Sequence
from dataclasses import dataclass

from ckpt_tool.align.drafting.draft import draft_rules
from ckpt_tool.align.naming.same_names import KeyPair
from ckpt_tool.align.naming.vocabulary import numberless
from ckpt_tool.align.pairs import Pair
from ckpt_tool.keys import fold
from ckpt_tool.mapping.accounting.heads import has_shape_of_a_table
from ckpt_tool.mapping.accounting.shape_mismatches import fit_note, fit_of, reason_of
from ckpt_tool.mapping.reading.writing import flow
from ckpt_tool.tensors import Catalog, shape_text

MAX_SHAPE_MISMATCHES = 20
"""Kinds of keys that are listed; of more, how many there are."""
FEW_KINDS = 4
"""Kinds of tensors with another shape that a `fit:` may adapt; where more have, the networks differ
in width.
"""


@dataclass(frozen=True, slots=True)
class Adapted:
    """Pairs of other shapes that a `fit:` adapts, as the lines of a rule file: rules, and what
    stands under `fit:`; why they are needed, and which keys of the source and the target they are.
    """

    rules: tuple[str, ...]
    fits: tuple[str, ...]
    reasons: tuple[str, ...]
    sources: tuple[str, ...]
    targets: tuple[str, ...]


def adapted(found: Sequence[KeyPair], source: Catalog, target: Catalog) -> Adapted | None:
    """What adapts these pairs, but for heads, which stay fresh; None where nothing does, or where
    so many have other shapes that the networks differ in width.
    """
    unlike = [(a, b) for a, b in found if source[a].shape != target[b].shape]
    if len({(numberless(a), numberless(b)) for a, b in unlike}) > FEW_KINDS:
        return None
    fits = {(a, b): fit_between(a, b, source, target) for a, b in unlike}
    pairs = {pair: fit for pair, fit in fits.items() if fit is not None and fit != "fresh"}
    sources, targets = ([pair[side] for pair in pairs] for side in (0, 1))
    if not pairs or len(set(sources)) < len(pairs) or len(set(targets)) < len(pairs):
        return None
    rules = draft_rules([Pair(((a,),), ((b,),)) for a, b in pairs], source, are_paths_moved=False)
    by_key = {b: fit for (_, b), fit in pairs.items()}
    folds = fold({b: str(fit) for b, fit in by_key.items()}, target)
    return Adapted(
        tuple(rules),
        tuple(flow({one.pattern: by_key[one.keys[0]]})[1:-1] for one in folds),
        tuple(dict.fromkeys(map(reason_of, by_key.values()))),
        tuple(sources),
        tuple(targets),
    )


def fit_between(
    origin: str, key: str, source: Catalog, target: Catalog
) -> str | dict[str, object] | None:
    """What makes a tensor of the source one of the target, as `fit:` has it."""
    are_words = has_shape_of_a_table(origin, source)
    return fit_of(key, source[origin].shape, target[key].shape, target, are_words, origin)


def shape_mismatch_lines(
    found: Sequence[KeyPair], source: Catalog, target: Catalog
) -> tuple[str, ...]:
    """A line for each kind of key that has its place on both sides, but another shape."""
    unlike = [(a, b) for a, b in found if source[a].shape != target[b].shape]
    kinds: dict[tuple[str, str], list[KeyPair]] = {}
    for a, b in unlike:
        kinds.setdefault((numberless(a), numberless(b)), []).append((a, b))
    is_rare = len(kinds) <= FEW_KINDS
    lines = [_line(pairs, source, target, is_rare) for pairs in kinds.values()]
    more = len(lines) - MAX_SHAPE_MISMATCHES
    rest = (
        [f"{more} more {'kind' if more == 1 else 'kinds'} of tensors with another shape"]
        if more > 0
        else []
    )
    return (*lines[:MAX_SHAPE_MISMATCHES], *rest)


def _line(pairs: Sequence[KeyPair], source: Catalog, target: Catalog, is_rare: bool) -> str:
    """The first pair of a kind with both shapes; where few have others, what would adapt them."""
    origin, key = pairs[0]
    shapes = (source[origin].shape, target[key].shape)
    many = f", and {len(pairs) - 1:,} like it" if len(pairs) > 1 else ""
    notes = _notes(origin, key, source, target) if is_rare else []
    sizes = f"{shape_text(shapes[0])} and {shape_text(shapes[1])}"
    return "; ".join([f"same place, another shape: {origin} -> {key}, {sizes}{many}", *notes])


def _notes(origin: str, key: str, source: Catalog, target: Catalog) -> list[str]:
    """What would adapt a tensor; a head under another name is what `drop:` and `keep:` have."""
    if fit_between(origin, key, source, target) == "fresh" and origin != key:
        return [f"{reason_of('fresh')}? then `drop:` and `keep:` are right"]
    are_words = has_shape_of_a_table(origin, source)
    return fit_note(key, source[origin].shape, target[key].shape, target, are_words, origin)
