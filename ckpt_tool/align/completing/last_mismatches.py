"""What is left of both sides, belongs together and differs in its shape: pairs that a hint names,
the one table of positions, the one head.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from ckpt_tool.align.completing.unpaired import Unpaired
from ckpt_tool.align.findings import Hint
from ckpt_tool.align.naming.modules import ModuleTensors
from ckpt_tool.align.naming.same_names import KeyPair
from ckpt_tool.align.naming.spellings import WEIGHT
from ckpt_tool.align.naming.vocabulary import numberless
from ckpt_tool.align.sides import Sides
from ckpt_tool.mapping.accounting.heads import is_table, is_vocabulary
from ckpt_tool.mapping.accounting.shape_mismatches import fit_of, is_position_table


def last_mismatches(
    unpaired: Sides[Unpaired], hints: Sequence[Hint], known: Collection[KeyPair]
) -> list[KeyPair]:
    """Source and target keys of other shapes that nothing else could be; `known` ones, which names
    or structure tell, take no part.
    """
    left = _without(unpaired.source.keys, unpaired.target.keys, known)
    found = list(_hinted(hints, *left))
    found += _positions(unpaired, *_without(*left, found))
    tables = [(a, b) for a, b in found if is_position_table(a) or is_position_table(b)]
    found += _head(unpaired, *_without(*left, tables))
    shapes = unpaired.map(lambda side: side.catalog)
    pairs = dict.fromkeys(found)
    return [(a, b) for a, b in pairs if shapes.source[a].shape != shapes.target[b].shape]


def _without(
    source: frozenset[str], target: frozenset[str], pairs: Collection[KeyPair]
) -> tuple[frozenset[str], frozenset[str]]:
    return source - {a for a, _ in pairs}, target - {b for _, b in pairs}


def _hinted(
    hints: Sequence[Hint], source: Collection[str], target: Collection[str]
) -> Iterator[KeyPair]:
    """The pairs that hints name, in all blocks."""
    kinds = {(numberless(a), numberless(b)): (a, b) for a, b in hints}
    for (kind, other), hint in kinds.items():
        origins = [key for key in source if numberless(key) == kind]
        keys = [key for key in target if numberless(key) == other]
        if len(origins) == len(keys) == 1:
            yield origins[0], keys[0]
        elif hint[0] in source and hint[1] in target:
            yield hint


def _positions(
    unpaired: Sides[Unpaired], source: Collection[str], target: Collection[str]
) -> Iterator[KeyPair]:
    """The one table of positions that each side has left, if its grid can be resized."""
    origins = [key for key in source if is_position_table(key)]
    keys = [key for key in target if is_position_table(key)]
    if len(origins) == len(keys) == 1:
        origin, key = origins[0], keys[0]
        shapes = unpaired.source.catalog[origin].shape, unpaired.target.catalog[key].shape
        around = unpaired.target.catalog
        if fit_of(key, *shapes, around, origin=origin) not in (None, "fresh"):
            yield origin, key


def _head(
    unpaired: Sides[Unpaired], source: frozenset[str], target: frozenset[str]
) -> Iterator[KeyPair]:
    """The one linear module that each side has left, if it takes the same for other classes."""
    heads = [
        [each for each in side.modules if _is_linear(each) and left.issuperset(each.keys.values())]
        for side, left in (
            (unpaired.source, frozenset(source)),
            (unpaired.target, frozenset(target)),
        )
    ]
    if all(len(found) == 1 for found in heads):
        (one,), (other,) = heads
        if _are_heads(one, other):
            yield from ((key, other.keys[role]) for role, key in one.keys.items())


def _is_linear(module: ModuleTensors) -> bool:
    return len(dict(module.shapes).get(WEIGHT, ())) == 2


def _are_heads(one: ModuleTensors, other: ModuleTensors) -> bool:
    shapes, others = dict(one.shapes), dict(other.shapes)
    if shapes.keys() != others.keys():
        return False
    key, name = one.keys[WEIGHT], other.keys[WEIGHT]
    are_words = any(is_vocabulary(each) or is_table(each, shapes[WEIGHT]) for each in (key, name))
    return not are_words and all(
        len(shape) == len(others[role]) and shape[1:] == others[role][1:] and shape != others[role]
        for role, shape in shapes.items()
    )
