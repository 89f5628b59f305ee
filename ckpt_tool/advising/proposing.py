"""What a proposed command says: patterns of keys, and the prefix that is meant where several would do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ckpt_tool.advising.harmless import is_averaged
from ckpt_tool.keys import fold, quote
from ckpt_tool.keys.prefix import Prefix, likely_prefixes
from ckpt_tool.mapping.unreadable import keys_of
from ckpt_tool.tensors import Catalog


def patterns_of(keys: Sequence[str], catalog: Catalog) -> tuple[str, ...]:
    """The fewest patterns that match these keys of a catalog and no others."""
    folds = fold(dict.fromkeys(keys), keys_of(catalog))
    return tuple(one.pattern if len(one.keys) > 1 else quote(one.keys[0]) for one in folds)


def prefixes(source: Catalog, target: Catalog) -> Iterator[Prefix]:
    """The one that is meant where several prefixes pair the keys equally well, and all others are of averaged copies."""
    likely = likely_prefixes(*({key: info.shape for key, info in side.items()} for side in (source, target)))
    plain = [prefix for prefix in likely if not is_averaged(prefix.strip + prefix.add)]
    if len(likely) > len(plain) == 1:
        yield plain[0]


def without_place(prefix: Prefix, source: Catalog, target: Catalog) -> list[str]:
    """The keys of the source that have this prefix, and no counterpart of their shape in the target."""
    names = ((key, prefix.renamed(key)) for key in source)
    return [key for key, name in names if name is not None and (name not in target or target[name].shape != source[key].shape)]
