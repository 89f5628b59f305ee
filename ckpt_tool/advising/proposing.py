"""What a proposed command says: patterns of keys, and the prefix that is meant where several would
do.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from ckpt_tool.advising.harmless import is_averaged
from ckpt_tool.advising.parts import paths_above
from ckpt_tool.keys import fold, quote
from ckpt_tool.keys.prefix import Prefix, likely_prefixes
from ckpt_tool.mapping.accounting.unreadable import keys_of
from ckpt_tool.tensors import Catalog


def patterns_of(keys: Sequence[str], catalog: Catalog) -> tuple[str, ...]:
    """Few patterns that match these keys of a catalog and no others: one for a kind of buffer that
    is everywhere, else the fewest.
    """
    everywhere = _leaves_everywhere(keys, catalog)
    folds = fold(
        dict.fromkeys(key for key in keys if _leaf(key) not in everywhere), keys_of(catalog)
    )
    return (
        *(f"**.{quote(leaf)}" for leaf in everywhere),
        *(one.pattern if len(one.keys) > 1 else quote(one.keys[0]) for one in folds),
    )


def _leaves_everywhere(keys: Sequence[str], catalog: Catalog) -> list[str]:
    """Last names of which all keys in two modules or more are among these, while other keys of
    these modules are not.
    """
    counts = Counter(_leaf(key) for key in keys)
    in_all = Counter(_leaf(key) for key in keys_of(catalog))
    left = frozenset(keys)
    beside = {path for key in keys_of(catalog) if key not in left for path in paths_above(key)}
    modules: dict[str, set[str]] = defaultdict(set)
    for key in keys:
        modules[_leaf(key)].add(key.rpartition(".")[0])
    everywhere = (leaf for leaf, count in counts.items() if 1 < count == in_all[leaf])
    known = beside - {""}
    return [leaf for leaf in everywhere if modules[leaf] <= known]


def _leaf(key: str) -> str:
    return key.rpartition(".")[2]


def prefixes(source: Catalog, target: Catalog) -> Iterator[Prefix]:
    """The one that is meant where several prefixes pair the keys equally well, and all others are
    of averaged copies.
    """
    likely = likely_prefixes(
        *({key: info.shape for key, info in side.items()} for side in (source, target))
    )
    plain = [prefix for prefix in likely if not is_averaged(prefix.strip + prefix.add)]
    if len(likely) > len(plain) == 1:
        yield plain[0]


def without_place(prefix: Prefix, source: Catalog, target: Catalog) -> list[str]:
    """The keys of the source that have this prefix, and no counterpart of their shape in the
    target.
    """
    names = ((key, prefix.renamed(key)) for key in source)
    return [
        key
        for key, name in names
        if name is not None and (name not in target or target[name].shape != source[key].shape)
    ]
