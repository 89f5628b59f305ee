"""Tensors that stand in the same place of other layers: names that differ in numbers alone."""

from __future__ import annotations

from collections import defaultdict

from ckpt_tool.tensors import Catalog

Group = tuple[str, ...]
"""Keys of siblings, in the catalog's order."""


def sibling_groups(catalog: Catalog) -> list[Group]:
    """The keys in groups of siblings: their names differ in numbers alone, they have as many
    dimensions, and so have the other tensors of their modules: the bias of a convolution is no
    sibling of a norm's.
    """
    modules: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for key, info in catalog.items():
        module, _, leaf = key.rpartition(".")
        modules[module].append((leaf, len(info.shape)))
    kinds = {module: tuple(sorted(leaves)) for module, leaves in modules.items()}
    groups: dict[object, list[str]] = defaultdict(list)
    for key, info in catalog.items():
        kind = kinds[key.rpartition(".")[0]]
        groups[place_of(key), len(info.shape), kind].append(key)
    return [tuple(keys) for keys in groups.values()]


def place_of(key: str) -> str:
    """The name with `*` for each number that is a part of its own: `layers.3.attn.weight` and
    `layers.7.attn.weight` have one place, `conv1.weight` and `conv2.weight` don't.
    """
    return ".".join("*" if part.isdigit() else part for part in key.split("."))
