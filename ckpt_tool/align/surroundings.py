"""Tensors whose content stands in several places: ones, zeros, counters, tied weights. What lies around them, and names, decide.

The alignment by names and shapes does it, on catalogs whose shapes tell contents: tensors have one shape where they hold the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ckpt_tool.align.alignment import Aligned, Hint, align
from ckpt_tool.tensors import Catalog, DType, TensorInfo

_FIRST = 1_000_003
"""Above any size of a real tensor's dimension that could meet one of these by chance."""

Labels = Mapping[str, int]
"""What keys hold, as a number that equal contents share."""


def settled_by_surroundings(
    catalogs: tuple[Catalog, Catalog], labels: tuple[Labels, Labels], telling: frozenset[int], hints: Sequence[Hint]
) -> Iterator[Aligned]:
    """Pairs of equal content, by what is around them; keys without a label take no part."""
    ours, theirs = (_relabelled(catalog, each, telling) for catalog, each in zip(catalogs, labels, strict=True))
    for each in align(ours, theirs, hints).pairs:
        if each.pair.is_rename and labels[0][each.pair.sources[0][0]] == labels[1][each.pair.targets[0][0]]:
            yield each


def _relabelled(catalog: Catalog, labels: Labels, telling: frozenset[int]) -> Catalog:
    return Catalog(
        (TensorInfo(key, DType.F32, (_FIRST + labels[key], *((3, 5) if labels[key] in telling else ()))) for key in catalog if key in labels),
        catalog.is_ordered,
    )
