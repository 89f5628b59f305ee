"""Tensors that are others': their storage is shared, or their bytes are a sibling's, without a plan
that can be seen.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations, pairwise

from ckpt_tool.examining.findings import Finding
from ckpt_tool.examining.siblings import Group
from ckpt_tool.examining.statistics import Statistics
from ckpt_tool.tensors import Catalog, TensorInfo

MAX_SHARE = 0.25
"""Ties of more siblings than these are how the network was built."""
Range = tuple[str, int, int]
"""A file, the first byte, and the first byte behind."""


def tie_findings(catalog: Catalog, groups: Sequence[Group]) -> Iterator[Finding]:
    """Siblings that are one tensor, where others of theirs are not, and their modules aren't."""
    together = Counter(_layers_of_tie(key, info) for key, info in catalog.items())
    for group in groups:
        ties = [
            key
            for key in group
            if catalog[key].tied_to and together[_layers_of_tie(key, catalog[key])] < 2
        ]
        if not ties or len(ties) > MAX_SHARE * len(group):
            continue
        for key in ties:
            first = catalog[key].tied_to or key
            if first in group and not _is_module_tied(key, first, catalog):
                others = len(group) - len(ties)
                fact = f"is one tensor with `{first}`; {others} siblings have their own"
                yield Finding("shared", key, fact)


def _layers_of_tie(key: str, info: TensorInfo) -> tuple[str, str] | None:
    """The layers of a tensor and of the one that it is, up to the number in which their names
    differ: several ties between two layers are how the network was built.
    """
    own, other = key.split("."), (info.tied_to or key).split(".")
    if own == other or len(own) != len(other):
        return None
    at = next(at for at, (a, b) in enumerate(zip(own, other, strict=True)) if a != b)
    return ".".join(own[: at + 1]), ".".join(other[: at + 1])


def _is_module_tied(key: str, first: str, catalog: Catalog) -> bool:
    """Whether a module that both are in, of more tensors than these, is the other's as a whole."""
    own, other = key.split("."), first.split(".")
    at = next(at for at, (a, b) in enumerate(zip(own, other, strict=True)) if a != b)
    for depth in range(len(own) - 2, at, -1):
        module, twin = ".".join(own[:depth]) + ".", ".".join(other[:depth]) + "."
        inside = [each for each in catalog if each.startswith(module)]
        pairs = [(each, twin + each.removeprefix(module)) for each in inside]
        if len(pairs) > 1 and all(_are_tied(*pair, catalog) for pair in pairs):
            return True
    return False


def _are_tied(key: str, other: str, catalog: Catalog) -> bool:
    infos = catalog.get(key), catalog.get(other)
    if infos[0] is None or infos[1] is None:
        return False
    return (infos[0].tied_to or key) == (infos[1].tied_to or other)


def overlap_findings(ranges: Mapping[str, Range]) -> Iterator[Finding]:
    """Tensors that share a part of their bytes, and are not one."""
    by_file: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    for key, (file, start, end) in ranges.items():
        if start < end:
            by_file[file].append((start, end, key))
    for spans in by_file.values():
        for (start, end, key), (next_start, next_end, other) in pairwise(sorted(spans)):
            if next_start < end and (start, end) != (next_start, next_end):
                shared = min(end, next_end) - next_start
                yield Finding(
                    "shared", other, f"shares {shared:,} bytes with `{key}`, and is not it"
                )


def equal_findings(
    catalog: Catalog,
    groups: Sequence[Group],
    measured: Mapping[str, Statistics],
    are_equal: Callable[[str, str], bool],
) -> Iterator[Finding]:
    """Siblings with the same bytes, though the rest of their layers differs. `are_equal` compares
    the bytes of two keys.
    """
    marks = {key: _mark(one) for key, one in measured.items() if not one.is_constant}
    layers = _layers(marks)
    for group in groups:
        alike: dict[object, list[str]] = defaultdict(list)
        for key in group:
            if key in marks and catalog[key].dtype.is_floating:
                alike[marks[key], catalog[key].shape].append(key)
        repeated = [keys for keys in alike.values() if len(keys) > 1]
        if sum(map(len, repeated)) > 2 * MAX_SHARE * len(group):
            continue
        for keys in repeated:
            for first, key in combinations(keys, 2):
                if not _is_layer_equal(first, key, marks, layers) and are_equal(first, key):
                    fact = f"has the bytes of `{first}`; the rest of their layers differs"
                    yield Finding("equal", key, fact)
                    break


def _mark(found: Statistics) -> tuple[float, float, float]:
    return found.squares, found.least, found.most


def _is_layer_equal(
    first: str, key: str, marks: Mapping[str, object], layers: Mapping[str, Sequence[str]]
) -> bool:
    """Whether the layers of both, from the number on in which their names differ, have more in
    common: a layer that was copied as a whole was meant.
    """
    own, other = key.split("."), first.split(".")
    at = next(at for at, (a, b) in enumerate(zip(own, other, strict=True)) if a != b)
    layer, twin = ".".join(own[: at + 1]) + ".", ".".join(other[: at + 1]) + "."
    inside = [each for each in layers[layer] if each != key]
    equal = sum(marks[each] == marks.get(twin + each.removeprefix(layer)) for each in inside)
    return not inside or 2 * equal >= len(inside)


def _layers(keys: Iterable[str]) -> Mapping[str, Sequence[str]]:
    """The keys in each layer: behind each prefix that ends in a number."""
    layers: dict[str, list[str]] = defaultdict(list)
    for key in keys:
        parts = key.split(".")
        for at, part in enumerate(parts):
            if part.isdigit():
                layers[".".join(parts[: at + 1]) + "."].append(key)
    return layers


def untied(catalog: Catalog) -> list[str]:
    """The keys of tensors that are no earlier one's, which are worth reading."""
    return [key for key, info in catalog.items() if not info.tied_to]
