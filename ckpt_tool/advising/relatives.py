"""What is left of a source and could be what is fresh in a target: under another name, fused,
split, or in another size.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from ckpt_tool.advising.parts import Part
from ckpt_tool.mapping.accounting.heads import is_table, is_vocabulary
from ckpt_tool.tensors import Shape

Shapes = Mapping[str, Shape]
_POSITIONS = re.compile(r"(^|[._])pos(ition)?(s|al|_\w+)?([._]|$)")
MIN_MATRICES = 2
"""Matrices of a module whose names and ranks, without their sizes, tell what it is."""


@dataclass(frozen=True, slots=True)
class Relative:
    """A key, or a module, of the source that is left, and one of the target that it may be; `how`
    the one may become the other.
    """

    source: str
    target: str
    how: str


def relatives(left: Shapes, fresh: Shapes) -> Iterator[Relative]:
    """What of the source may be what is fresh: each key of the target at most once for a reason.

    >>> [one.how for one in relatives({"tok_emb.weight": (96, 16)}, {"wte.weight": (103, 16)})]
    ['with other rows may be']
    """
    yield from _of_equal_sizes(left, fresh)
    yield from _tables(left, fresh)
    yield from _kernels(left, fresh)


def _of_equal_sizes(left: Shapes, fresh: Shapes) -> Iterator[Relative]:
    source, target = _sizes(left), _sizes(fresh)
    for size in source.keys() & target.keys():
        yield Relative(source[size], target[size], "is left, and may make")


def _sizes(shapes: Shapes) -> dict[int, str]:
    """Numbers of elements, of single tensors and of those together that could be one, with one that
    has them.

    Together are those that differ in numbers or in one name, and those of one module that are as
    long in all but the first dimension.
    """
    found = {prod(shape): key for key, shape in shapes.items()}
    for keys in _groups(shapes):
        found.setdefault(sum(prod(shapes[key]) for key in keys), keys[0])
    return found


def belonging(left: Shapes, fresh: Shapes) -> tuple[list[str], list[str]]:
    """All matrices of both sides that may make each other, with their vectors: by themselves or
    with those beside them they have as many elements.

    >>> belonging({"qkv.weight": (4, 8)}, {"k.weight": (4, 4), "v.weight": (4, 4), "n": (4,)})
    (['qkv.weight'], ['k.weight', 'v.weight'])
    """
    source, target = (_all_of_sizes(_matrices(side)) for side in (left, fresh))
    common = source.keys() & target.keys()
    found = [{key for size in common for key in side[size]} for side in (source, target)]
    return _with_vectors(found[0], left), _with_vectors(found[1], fresh)


def _matrices(shapes: Shapes) -> Shapes:
    return {key: shape for key, shape in shapes.items() if len(shape) > 1}


def _with_vectors(found: set[str], shapes: Shapes) -> list[str]:
    """The keys that were found, with those of their modules that are vectors, in order."""
    modules = {key.rpartition(".")[0] for key in found if "." in key}
    return [
        key
        for key, shape in shapes.items()
        if key in found or (len(shape) < 2 and key.rpartition(".")[0] in modules)
    ]


def _all_of_sizes(shapes: Shapes) -> dict[int, set[str]]:
    """All tensors by the numbers of elements that they have, alone or with those beside them: with
    all, and of equal ones with one or two.
    """
    found: dict[int, set[str]] = defaultdict(set)
    for key, shape in shapes.items():
        found[prod(shape)].add(key)
    for keys in _groups(shapes):
        sizes = [prod(shapes[key]) for key in keys]
        found[sum(sizes)].update(keys)
        if len({*sizes}) == 1:
            for count in range(2, min(len(keys), 4)):
                found[count * sizes[0]].update(keys)
    return found


def _groups(shapes: Shapes) -> Iterable[Sequence[str]]:
    """The keys that could be one tensor together, as `_sizes` says."""
    groups: dict[object, list[str]] = defaultdict(list)
    for key, shape in shapes.items():
        module, _, leaf = key.rpartition(".")
        groups["beside", module.rpartition(".")[0], leaf, shape[1:]].append(key)
        groups["numbered", "".join("#" if mark.isdigit() else mark for mark in key), shape].append(
            key
        )
        groups["inside", module, len(shape), shape].append(key)
    return groups.values()


def _tables(left: Shapes, fresh: Shapes) -> Iterator[Relative]:
    """Tables over words or positions: which rows they have is another question than what
    they are.
    """
    source = next((key for key, shape in left.items() if _is_table(key, shape)), None)
    target = next((key for key, shape in fresh.items() if _is_table(key, shape)), None)
    if source and target:
        yield Relative(source, target, "with other rows may be")


def _is_table(key: str, shape: Shape) -> bool:
    return len(shape) > 1 and (
        is_vocabulary(key) or is_table(key, shape) or _POSITIONS.search(key) is not None
    )


def _kernels(left: Shapes, fresh: Shapes) -> Iterator[Relative]:
    """Kernels of as many outputs: for other numbers of input channels, or of another patch size."""
    by_rows: dict[tuple[int, int], list[str]] = defaultdict(list)
    for key, shape in left.items():
        if len(shape) > 2 and not _is_table(key, shape):
            by_rows[len(shape), shape[0]].append(key)
    for key, shape in fresh.items():
        for other in by_rows.get((len(shape), shape[0]), ()) if len(shape) > 2 else ():
            if left[other][1] == shape[1] or left[other][2:] == shape[2:]:
                yield Relative(other, key, "in another size may be")
                break


def twins(
    source: Sequence[Part], target: Sequence[Part], left: Shapes, fresh: Shapes
) -> Iterator[Relative]:
    """Modules of both sides that hold the same names, in another width."""
    known = {found: part for part in source if (found := structure(part.path, part.keys, left))}
    for part in target:
        other = known.get(structure(part.path, part.keys, fresh))
        if other is not None:
            yield Relative(other.path, part.path, "in another width may be")


def structure(
    path: str, keys: Iterable[str], shapes: Shapes, least: int = MIN_MATRICES
) -> frozenset[tuple[tuple[str, int], int]]:
    """The names below a module with their numbers of dimensions; empty where too few matrices are
    there to tell anything.
    """
    found = Counter(
        (key[len(path) :], len(shapes[key]))
        for key in keys
        if key in shapes and key.startswith(f"{path}.")
    )
    return frozenset(found.items()) if sum(rank > 1 for _, rank in found) >= least else frozenset()
