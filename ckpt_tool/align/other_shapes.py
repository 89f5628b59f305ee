"""What belongs together but for its shape, in lines for a person."""

from collections.abc import Sequence

from ckpt_tool.align.naming.same_names import KeyPair
from ckpt_tool.align.naming.vocabulary import numberless
from ckpt_tool.mapping.accounting.heads import has_shape_of_a_table
from ckpt_tool.mapping.accounting.shape_mismatches import fit_note
from ckpt_tool.tensors import Catalog, shape_text

MAX_SHAPE_MISMATCHES = 20
"""Kinds of keys that are listed; of more, how many there are."""
FEW_KINDS = 4
"""Kinds of tensors with another shape that a `fit:` may adapt; where more have, the networks differ
in width.
"""


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
    rest = [f"{more} more kinds of tensors have another shape"] if more > 0 else []
    return (*lines[:MAX_SHAPE_MISMATCHES], *rest)


def _line(pairs: Sequence[KeyPair], source: Catalog, target: Catalog, is_rare: bool) -> str:
    """The first pair of a kind with both shapes; where few have others, what would adapt them."""
    origin, key = pairs[0]
    shapes = (source[origin].shape, target[key].shape)
    many = f", and {len(pairs) - 1} like it" if len(pairs) > 1 else ""
    notes = fit_note(key, *shapes, has_shape_of_a_table(origin, source)) if is_rare else []
    sizes = f"{shape_text(shapes[0])} and {shape_text(shapes[1])}"
    return "; ".join([f"same place, another shape: {origin} -> {key}, {sizes}{many}", *notes])
