"""Modules whose values differ by about as much: those of another size stand on their own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import inf, isfinite

from ckpt_tool.comparing import Entry

ALIKE = 3.0
"""By which factor the largest differences of two modules may differ that stand on one line."""
_BLOCK = re.compile(r".*?[0-9]+(?=[._]|$)|[^.]*")
"""A key up to its first number, as `encoder.3`; its first name where it has none."""


def sizes_of(entries: Iterable[Entry]) -> dict[str, int]:
    """A number for each key: equal for keys in modules whose largest differences are alike.

    Modules count, not tensors: a layer's bias and its weight stay together.
    """
    listed = list(entries)
    largest: dict[str, float] = {}
    for entry in listed:
        block = _block_of(entry.key)
        largest[block] = max(largest.get(block, 0.0), _size(entry))
    classes = _classes(largest)
    return {entry.key: classes[_block_of(entry.key)] for entry in listed}


def _block_of(key: str) -> str:
    found = _BLOCK.match(key)
    return found[0] if found else key


def _size(entry: Entry) -> float:
    if entry.values is None:
        return 0.0
    return entry.values.largest if isfinite(entry.values.largest) else inf


def _classes(largest: Mapping[str, float]) -> dict[str, int]:
    """The blocks from the largest difference to the least, a new class wherever one is less than a
    third of the first of its class.
    """
    found: dict[str, int] = {}
    first, number = inf, 0
    for block, size in sorted(largest.items(), key=lambda each: -each[1]):
        if size < first / ALIKE:
            first, number = size, number + 1
        found[block] = number
    return found
