"""Pairs that names and shapes agree on, and that are no plain copies all the same: rotary halves,
codes, masks, norms, adapters.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator

from ckpt_tool.align.completing.layouts import is_table
from ckpt_tool.align.findings import Aligned
from ckpt_tool.align.naming.orientation import open_shapes
from ckpt_tool.align.naming.vocabulary import in_common_words
from ckpt_tool.align.naming.wrappers import States
from ckpt_tool.tensors import Catalog


def with_doubts(
    pairs: Iterable[Aligned], source: Catalog, target: Catalog, named: Container[str] = ()
) -> Iterator[Aligned]:
    """The pairs, those that are no plain copies no longer sure; `named` are keys of the target that
    names alone pair.
    """
    unknown = open_shapes(source, target)
    from_source, from_target = States(source), States(target)
    is_rotary = is_rotary_unknown(source, target)
    for each in pairs:
        (origin, *_), (key, *_) = each.pair.sources[0], each.pair.targets[0]
        if is_rotary and _ROTARY.search(in_common_words(key)):
            each = each.doubted("but the rotary halves may be interleaved on one side")
        if (
            source[origin].shape in unknown
            and key not in named
            and not (is_table(origin) or is_table(key))
        ):
            each = each.doubted("but it may have to be transposed")
        if len(each.pair.sources) == len(each.pair.targets) == 1:
            why, why_target = from_source.why_not_plain(origin), from_target.why_not_plain(key)
            if why != why_target:
                each = each.doubted(f"but {why or why_target}")
        yield each


_COMPUTED = re.compile(
    r"(relative_position_index|relative_position_indices|rel_pos_index|position_ids|"
    r"attention_bias_idxs)$"
)


def only_counts_places(key: str, catalog: Catalog) -> bool:
    """Whether a tensor only counts places: each library computes it in its own way from the sizes,
    and none takes it from a file.
    """
    return not catalog[key].dtype.is_floating and bool(_COMPUTED.search(key))


_ROTARY = re.compile(r"\.[qk]\.weight$")


def is_rotary_unknown(source: Catalog, target: Catalog) -> bool:
    """Whether one side is of a family that interleaves rotary halves (Meta's, torchtune's) and the
    other one that doesn't.
    """
    sides = [{name for key in side for name in key.split(".")} for side in (source, target)]
    if any(in_common_words(key).endswith(".q.bias") for key in source):
        return False
    return any(
        "tok_embeddings" in a and "embed_tokens" in b and "q_proj" in b
        for a, b in (sides, sides[::-1])
    )
