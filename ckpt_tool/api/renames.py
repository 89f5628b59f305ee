"""Two checkpoints compared by what belongs together rather than by name."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import prod
from typing import TYPE_CHECKING

from ckpt_tool.align import MIN_CONFIDENCE, Aligned, align, draft_rules
from ckpt_tool.api.requirements import with_values
from ckpt_tool.api.suggestions import UNALIGNED
from ckpt_tool.comparing import Counterpart, Diff, Tolerance, Values, compare_all, diff_renamed
from ckpt_tool.errors import InputError, has_torch
from ckpt_tool.keys.relations import prefix_rule
from ckpt_tool.mapping.reading.writing import flow
from ckpt_tool.ops import ops_argument
from ckpt_tool.watching import Watch, WatchedTensors, unwatched

if TYPE_CHECKING:
    from ckpt_tool.formats import Checkpoint, Extent
    from ckpt_tool.tensors import Catalog

ONLY_BYTES = (
    "torch is not installed: what was cast, transposed, split or joined is not found by its values"
)
BLOCK = 1 << 12
"""Bytes of a tensor that are read at a time, to see whether all its numbers are the same."""
NUMBERS = re.compile(r"\d+")


def diff_by_alignment(
    source: Checkpoint,
    target: Checkpoint,
    values: bool,
    tolerance: Tolerance | None = None,
    watch: Watch = unwatched,
    every: Catalog | None = None,
) -> Diff:
    """The difference of two checkpoints whose tensors may have other names: found by names and
    shapes, or by values. `every` has the keys of the whole source, where some were chosen.

    Raises InputError where names are too many and too much alike to be aligned: see `not_aligned`.
    """
    keys = source.catalog if every is None else every
    if not values:
        pairs = _pairs_by_names(source.catalog, target.catalog)
        return _with_regrouped(
            diff_renamed(
                source.catalog, target.catalog, _by_names(pairs, source.catalog, target.catalog)
            ),
            pairs,
            keys,
        )
    from ckpt_tool.align.by_values.values import align_values

    with watch(source.catalog.nbytes + target.catalog.nbytes) as on_progress:
        sides = (with_values(source), with_values(target))
        one, other = (WatchedTensors(each, on_progress) for each in sides)
        by_bytes = not has_torch()
        pairs = align_values(one, other, by_bytes=by_bytes).pairs
    found = _by_values(pairs)
    found = _believed(found, source, target)
    found |= _changed(found, source.catalog, target.catalog)
    names = {key: other.key for key, other in found.items()}
    result = diff_renamed(
        source.catalog,
        target.catalog,
        found,
        lambda keys: _compared(source, target, names, keys, tolerance),
    )
    if by_bytes and result.changes:
        result = replace(result, notes=(*result.notes, ONLY_BYTES))
    return _with_regrouped(result, pairs, keys)


def not_aligned(error: InputError) -> str:
    """Why renames weren't looked for, where an alignment refuses the sides themselves; empty for
    any other error.
    """
    if error.path not in UNALIGNED:
        return ""
    return f"renames were not looked for: {error.path} {error.fact}"


def diff_beside(
    source: Checkpoint, target: Checkpoint, diff: Diff, values: bool, tolerance: Tolerance | None
) -> Diff | None:
    """The difference of what lies outside of two state dicts, where averaged weights are renamed as
    the weights are; None where nothing is.
    """
    found = dict(_followers(source.catalog, target.catalog, diff))
    if not found:
        return None
    names = {key: other.key for key, other in found.items()}
    return diff_renamed(
        source.catalog,
        target.catalog,
        found,
        (lambda keys: _compared(source, target, names, keys, tolerance)) if values else None,
    )


def _followers(a: Catalog, b: Catalog, diff: Diff) -> Iterator[tuple[str, Counterpart]]:
    """The keys of `a` alone that end in a renamed one, with those of `b` alone that end in its new
    name and are alike before it.
    """
    renamed = {
        entry.a.key: entry
        for entry in diff.changes
        if entry.kind == "renamed" and entry.a and entry.b and not entry.how
    }
    for key in a:
        if key in b:
            continue
        ends = (at.end() for at in re.finditer(r"\.", key))
        end = next((end for end in ends if key[end:] in renamed), None)
        if end is None:
            continue
        entry = renamed[key[end:]]
        assert entry.b is not None
        other = f"{key[:end]}{entry.b.key}"
        if other in b and other not in a and b[other].shape == a[key].shape:
            yield key, Counterpart(other, entry.confidence or 1.0, "as in the state dict")


def counterparts(a: Catalog, b: Catalog, keys: Container[str]) -> set[str]:
    """What belongs to some keys on the other side, by names and shapes."""
    found: set[str] = set()
    for each in _pairs_by_names(a, b):
        sides = [set(chain(*side)) for side in (each.pair.sources, each.pair.targets)]
        if each.confidence >= MIN_CONFIDENCE and any(key in keys for side in sides for key in side):
            found.update(*sides)
    return found


def _with_regrouped(result: Diff, pairs: Sequence[Aligned], keys: Catalog) -> Diff:
    """The difference with rules for what one side has joined and the other apart."""
    source, target = _keys_of(result, "only_a"), _keys_of(result, "only_b")
    sure = (each.pair for each in pairs if each.confidence >= MIN_CONFIDENCE)
    many = [
        pair
        for pair in sure
        if source.issuperset(chain(*pair.sources)) and target.issuperset(chain(*pair.targets))
    ]
    return replace(result, regrouped=tuple(draft_rules(many, keys))) if many else result


def _keys_of(result: Diff, kind: str) -> set[str]:
    return {entry.key for entry in result.changes if entry.kind == kind}


def _pairs_by_names(a: Catalog, b: Catalog) -> Sequence[Aligned]:
    """Where all keys of one side are on the other, nothing has another name."""
    if all(key in b for key in a) or all(key in a for key in b):
        return ()
    return align(a, b).pairs


def _by_names(aligned: Sequence[Aligned], a: Catalog, b: Catalog) -> dict[str, Counterpart]:
    """For keys that only one side has."""
    pairs = ((_single(each), each) for each in aligned if each.confidence >= MIN_CONFIDENCE)
    return {
        pair[0]: _counterpart(pair[1], each)
        for pair, each in pairs
        if pair and pair[0] not in b and pair[1] not in a
    }


def _by_values(pairs: Sequence[Aligned]) -> dict[str, Counterpart]:
    singles = ((_single(each), each) for each in pairs if each.confidence >= MIN_CONFIDENCE)
    found = {pair[0]: _counterpart(pair[1], each) for pair, each in singles if pair}
    # What keeps its name and is not equal is compared by name, whatever ops shapes suggest.
    return {key: other for key, other in found.items() if other.is_equal or other.key != key}


def _believed(
    found: Mapping[str, Counterpart], source: Checkpoint, target: Checkpoint
) -> dict[str, Counterpart]:
    """The pairs without those under two names of which one is on both sides, with the same shape,
    and whose values many tensors have by chance: unless others of the module, or of a block around
    it, moved alike.
    """
    little = {
        key
        for key, other in found.items()
        if other.key != key and _stays(key, other.key, source.catalog, target.catalog)
        if _says_little(source, key)
    }
    if not little:
        return dict(found)
    moves = {
        move
        for key, other in found.items()
        if key not in little and not _says_little(source, key)
        for move in _places(key, other.key)
    }
    return {
        key: other
        for key, other in found.items()
        if key not in little or _places(key, other.key) & moves
    }


def _places(key: str, other: str) -> set[tuple[str, str]]:
    """From which module to which a rename leads: the innermost, and the outermost one that has
    another name.

    >>> sorted(_places("layers.7.norm.bias", "layers.8.norm.bias"))
    [('layers.7', 'layers.8'), ('layers.7.norm', 'layers.8.norm')]
    """
    one, its = key.split("."), other.split(".")
    while len(one) > 1 and len(its) > 1 and one[-1] == its[-1]:
        one, its = one[:-1], its[:-1]
    return {_modules(key, other), (".".join(one), ".".join(its))}


def _modules(key: str, other: str) -> tuple[str, str]:
    return key.rpartition(".")[0], other.rpartition(".")[0]


def _stays(key: str, other: str, a: Catalog, b: Catalog) -> bool:
    """Whether one of two names is on both sides, with one shape."""
    return any(name in a and name in b and a[name].shape == b[name].shape for name in (key, other))


def _says_little(checkpoint: Checkpoint, key: str) -> bool:
    """Whether a tensor holds integers, a single number, or the same one everywhere."""
    info = checkpoint.catalog[key]
    if prod(info.shape) < 2 or not (info.dtype.is_floating or info.dtype.is_complex):
        return True
    size, first = info.dtype.itemsize or 1, b""
    for chunk in checkpoint.chunks(key, BLOCK):
        first = first or bytes(chunk[:size])
        if bytes(chunk) != first * (len(chunk) // size):
            return False
    return True


def _changed(found: Mapping[str, Counterpart], a: Catalog, b: Catalog) -> dict[str, Counterpart]:
    """What values pair with nothing since they have changed: by the prefix that leads from the keys
    of one side to the other's, else by names and shapes.
    """
    taken = {other.key for other in found.values()}
    same = {key for key in a if key in b and key not in found and key not in taken}
    left = [key for key in a if key not in found and key not in same]
    free = {key for key in b if key not in taken and key not in same}
    if not (left and free):
        return {}
    by_prefix = {
        key: Counterpart(other, evidence=f"{rule}, as other keys")
        for key, other, rule in _after_prefix(left, a, b)
        if other in free
    }
    left = [key for key in left if key not in by_prefix]
    free -= {other.key for other in by_prefix.values()}
    if not (left and free):
        return by_prefix
    aligned = _by_names(align(a, b).pairs, a, b)
    moves = {move for key, other in found.items() for move in _moves(key, other.key)}
    return by_prefix | {
        key: other
        for key in left
        if (other := aligned.get(key)) and other.key in free and _moves(key, other.key) & moves
    }


def _moves(key: str, other: str) -> set[tuple[str, str]]:
    """How a rename moves what is of the same module, and the same tensor of other blocks. Values
    that differ say nothing for a pair: that equal ones move alike does.
    """
    modules = _modules(key, other)
    kinds = NUMBERS.sub("{}", key), NUMBERS.sub("{}", other)
    return {kinds, modules} if all(modules) else {kinds}


def _after_prefix(keys: Sequence[str], a: Catalog, b: Catalog) -> Iterator[tuple[str, str, str]]:
    """The keys that are keys of equal shape on the other side after one prefix for another, as most
    keys are, with the rule.
    """
    found = prefix_rule(a, b)
    if found is None:
        return
    strip, add = (side.removesuffix("**") for side in found[0].split(" -> "))
    for key in keys:
        other = add + key.removeprefix(strip)
        if key.startswith(strip) and other in b and b[other].shape == a[key].shape:
            yield key, other, found[0]


def _single(each: Aligned) -> tuple[str, str] | None:
    """The two keys of a pair; of a tensor that several keys hold, the one that keeps its name, or
    the first.
    """
    sources, targets = (
        [key for slot in side for key in slot] for side in (each.pair.sources, each.pair.targets)
    )
    if len(sources) != 1 or (len(targets) > 1 and [op.name for op in each.pair.ops] != ["copy"]):
        return None
    return sources[0], sources[0] if sources[0] in targets else targets[0]


def _counterpart(key: str, each: Aligned) -> Counterpart:
    from ckpt_tool.align.by_values.values import EQUAL

    ops = [op for op in each.pair.ops if op.name != "copy"]
    plain = ops_argument(ops)
    options = ", ".join(flow(op) for op in plain)
    return Counterpart(
        key, each.confidence, each.evidence, options, EQUAL in each.evidence, tuple(plain)
    )


@dataclass
class _Renamed:
    """A checkpoint whose keys have the other side's names."""

    checkpoint: Checkpoint
    names: Mapping[str, str]

    def __post_init__(self) -> None:
        target = self.checkpoint.catalog
        self.catalog = {**target, **{key: target[name] for key, name in self.names.items()}}

    def extent(self, key: str) -> Extent | None:
        return self.checkpoint.extent(self.names.get(key, key))

    def chunks(self, key: str, size: int = 1 << 20) -> Iterator[bytes]:
        return self.checkpoint.chunks(self.names.get(key, key), size)


def _compared(
    source: Checkpoint,
    target: Checkpoint,
    names: Mapping[str, str],
    keys: Sequence[str],
    tolerance: Tolerance | None,
) -> Iterator[Values | None]:
    return compare_all(source, _Renamed(target, names), keys, tolerance)
