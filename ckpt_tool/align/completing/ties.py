"""Target tensors that are a paired one under another name."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from ckpt_tool.align.findings import Aligned
from ckpt_tool.align.pairs import Pair
from ckpt_tool.ops import parse_ops
from ckpt_tool.tensors import Catalog


def with_ties(
    pairs: Iterable[Aligned], target: Catalog, unpaired: Collection[str]
) -> Iterator[Aligned]:
    """The pairs, with unpaired target keys that share a paired one's memory as copies of it."""
    ties: dict[str, list[str]] = defaultdict(list)
    for key in target:
        ties[target[key].tied_to or key].append(key)
    left = set(unpaired)
    for each in pairs:
        first = each.pair.targets[0][0]
        tied = ties[target[first].tied_to or first] if each.pair.is_rename else ()
        others = [key for key in tied if key in left]
        left.difference_update(others)
        yield _as_copies(each, first, others) if others else each


def _as_copies(each: Aligned, first: str, others: Iterable[str]) -> Aligned:
    """The pair with copies for several keys."""
    targets = ((first,), *((key,) for key in others))
    pair = Pair(each.pair.sources, targets, parse_ops("copy"))
    return replace(each, pair=pair, evidence=f"{each.evidence}, tied in the target")
