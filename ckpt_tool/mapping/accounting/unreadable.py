"""Keys of a state dict that can't be read: wanted by the target, or the target's own, they stand in
a plan's way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from ckpt_tool.errors import Problem
from ckpt_tool.keys import fold
from ckpt_tool.tensors import Catalog
from ckpt_tool.wording import named

MAX_PATTERNS = 12


def keys_of(catalog: Catalog) -> list[str]:
    """Every key of the state dict, those that can't be read too."""
    return [*catalog, *catalog.unreadable] if catalog.unreadable else list(catalog)


def check_readable(
    source: Catalog,
    left: Iterable[str],
    fresh: Collection[str],
    target: Catalog | None,
    name_of: Callable[[str], str | None] = str,
    taken: Iterable[str] = (),
) -> Iterator[Problem]:
    """Keys of the source that can't be read, and are `taken` by rules or are left and have the name
    of a `fresh` key of the target; and keys of the target that can't be read, and so can't be kept.

    `name_of` is what the target calls a key of the source.
    """
    wanted = (
        [*taken, *(key for key in left if key in source.unreadable and name_of(key) in fresh)]
        if source.unreadable
        else []
    )
    if wanted:
        hint = (
            "map from plain tensors (dequantised, gathered, dense); or name them, "
            "here by `--drop` and in the target by `--keep`"
        )
        yield _problem(
            wanted, source, "of the source can't be read, though the target has a place for", hint
        )
    if target is not None and target.unreadable:
        yield _problem(
            list(target.unreadable),
            target,
            "of the target can't be read, and the output would lack",
            "map onto plain tensors",
        )


def _problem(keys: Sequence[str], catalog: Catalog, fact: str, hint: str) -> Problem:
    """One problem for all; a note for each kind of them."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        kinds[catalog.unreadable[key].kind].append(key)
    folds = fold({key: catalog.unreadable[key].kind for key in keys}, keys_of(catalog))
    notes = [
        f"{named(one.pattern)} ({len(one.keys):,}): {catalog.unreadable[one.keys[0]].kind}"
        for one in folds[:MAX_PATTERNS]
    ]
    counts = ", ".join(f"{len(found)} {kind}" for kind, found in kinds.items())
    what = named(keys[0]) if len(keys) == 1 else f"{len(keys)} keys"
    them = "it" if len(keys) == 1 else "them"
    return Problem("unreadable", f"{what} {fact} {them}: {counts}", None, (*notes, hint))
