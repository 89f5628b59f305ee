"""Tensors whose content stands in several places: ones, zeros, counters, tied weights. What lies
around them, and names, decide.

The alignment by names and shapes does it, on catalogs whose shapes tell contents: tensors have one
shape where they hold the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ckpt_tool.align.alignment import align
from ckpt_tool.align.findings import Aligned, Hint
from ckpt_tool.align.pairs import Pair
from ckpt_tool.align.sides import Sides
from ckpt_tool.tensors import Catalog, DType, TensorInfo

_FIRST = 1_000_003
"""Above any size of a real tensor's dimension that could meet one of these by chance."""
_TELLING = (3, 5)
"""Dimensions that make what tells a kernel, beside the vectors of all other content."""
_COLLECTIONS = ("params", "batch_stats")

Labels = Mapping[str, int]
"""What keys hold, as a number that equal contents share."""


def settled_by_surroundings(
    catalogs: Sides[Catalog],
    labels: Sides[Labels],
    telling: frozenset[int],
    hints: Sequence[Hint],
) -> Iterator[Aligned]:
    """Pairs of equal content, by what is around them; keys without a label take no part."""
    source, target = (
        _relabelled(catalog, each, telling) for catalog, each in zip(catalogs, labels, strict=True)
    )
    keys = catalogs.map(lambda catalog: {_name(key, catalog): key for key in catalog})
    for each in align(
        source,
        target,
        [(_name(a, catalogs.source), _name(b, catalogs.target)) for a, b in hints],
        are_names_settled=False,
    ).pairs:
        if each.pair.is_rename:
            (source_name,), (target_name,) = each.pair.sources[0], each.pair.targets[0]
            origin, key = keys.source[source_name], keys.target[target_name]
            if labels.source[origin] == labels.target[key]:
                yield replace(each, pair=Pair(((origin,),), ((key,),)))


def _relabelled(catalog: Catalog, labels: Labels, telling: frozenset[int]) -> Catalog:
    shapes = {
        key: (_FIRST + labels[key], *(_TELLING if labels[key] in telling else ()))
        for key in catalog
        if key in labels
    }
    return Catalog(
        (TensorInfo(_name(key, catalog), DType.F32, shape) for key, shape in shapes.items()),
        catalog.is_ordered,
    )


def _name(key: str, catalog: Catalog) -> str:
    """A key without the collection that Flax puts before it: a norm's scale and its mean are one
    module's.
    """
    first, _, rest = key.partition("/")
    return (
        rest if rest and first in _COLLECTIONS and f"{_other(first)}/{rest}" not in catalog else key
    )


def _other(collection: str) -> str:
    return next(each for each in _COLLECTIONS if each != collection)
