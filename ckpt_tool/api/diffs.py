"""Two checkpoints compared, and what to try where little pairs."""

import os
import shlex
from typing import Protocol, TypeVar

from ckpt_tool.api.long_names import check_names
from ckpt_tool.diff import Diff, compare_all, compare_digests, diff_catalogs
from ckpt_tool.errors import InputError
from ckpt_tool.formats import Checkpoint, open_checkpoint
from ckpt_tool.keys.relations import equal_positions, prefix_rule

MOST_RULES = 5


class HasPath(Protocol):
    path: str


Side = TypeVar("Side", bound=HasPath)


def diff_checkpoints(a: str | os.PathLike[str], b: str | os.PathLike[str], values: bool = False, renames: bool = False) -> Diff:
    """The difference of two checkpoints, any formats; with `values`, of their tensors' values too.

    With `renames`, keys that only one side has are paired by alignment; with values as well, every tensor by what it holds.
    """
    with open_checkpoint(a) as ours, open_checkpoint(b) as theirs:
        check_names(ours.path, ours.catalog)
        check_names(theirs.path, theirs.catalog)
        if renames:
            from ckpt_tool.api.renames import diff_by_alignment

            return diff_by_alignment(ours, theirs, values)
        return diff_open(ours, theirs, values)


def diff_open(ours: Checkpoint, theirs: Checkpoint, values: bool = False) -> Diff:
    if not values:
        return diff_catalogs(ours.catalog, theirs.catalog)
    for side in (ours, theirs):
        if not side.has_digests:
            hint = "`ckpt show --digests` writes one that has digests"
            raise InputError(side.path, "is a key list, which has no values to compare", hint)
    compare = compare_all if ours.has_values and theirs.has_values else compare_digests
    return diff_catalogs(ours.catalog, theirs.catalog, lambda keys: compare(ours, theirs, keys))


def with_values(side: Side) -> Side:
    """The checkpoint. Raises InputError for a key list."""
    if not getattr(side, "has_values", True):
        raise InputError(side.path, "is a key list, which has no values to compare", "give a checkpoint")
    return side


def diff_hints(result: Diff, names: tuple[str, str]) -> list[str]:
    """What explains the differences, and what to try."""
    explained: list[str] = []
    # What explains shapes and values takes long to import: not for keys alone.
    if any(entry.kind in ("shape", "value") or entry.how for entry in result.changes):
        from ckpt_tool.api.misfits import misfit_hints

        explained = misfit_hints(result)
    regrouped = [f"joined on one side, apart on the other: -e {shlex.quote(rule)}" for rule in result.regrouped[:MOST_RULES]]
    return [*explained, *regrouped, *_relation_hints(result, names)]


def _relation_hints(result: Diff, names: tuple[str, str]) -> list[str]:
    """What to try where little pairs by name: the prefix that explains it, or a draft of the rules."""
    counts = result.counts
    if not (counts["only_a"] and counts["only_b"]) or 2 * (counts["same"] + counts["value"]) > min(len(result.a), len(result.b)):
        return []
    if rule := prefix_rule(result.a, result.b):
        text, count = rule
        which = f"all {count} keys" if count == len(result.a) else f"{count} keys"
        return [f"{which} of {names[0]} are keys of {names[1]} after -e '{text}'"]
    count = equal_positions(result.a, result.b) if result.a.is_ordered and result.b.is_ordered else 0
    if 2 * count < min(len(result.a), len(result.b)):
        return []
    return [f"the first {count} tensors have equal shapes, one by one: ckpt plan {shlex.join(names)} --by position"]
