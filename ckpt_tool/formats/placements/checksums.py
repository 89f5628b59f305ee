"""Checking the checksums of many byte ranges by several threads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from ckpt_tool.formats.limits import MiB
from ckpt_tool.formats.placements.byte_ranges import Extent

PIECE = MiB
"""What is read at a time: it stays in the processor's cache.

Mapping the files instead of reading them would save a copy, but a file that another process cuts
meanwhile would then end this one (SIGBUS).
"""
GROUP = 32 * MiB
"""What a thread gets at a time."""


def check_all(extents: Iterable[Extent], threads: int = 1) -> None:
    """Raises FormatError where the bytes of one of these are not those of its checksum."""
    groups = list(_groups(extents))
    if threads == 1 or len(groups) == 1:
        for group in groups:
            _check(group)
    else:
        with ThreadPoolExecutor(threads) as workers:
            for _ in workers.map(_check, groups):
                pass


def _groups(extents: Iterable[Extent]) -> Iterator[list[Extent]]:
    group: list[Extent] = []
    size = 0
    for extent in extents:
        group.append(extent)
        size += extent.length
        if size >= GROUP:
            yield group
            group, size = [], 0
    yield group


def _check(extents: Iterable[Extent]) -> None:
    buffer = memoryview(bytearray(PIECE))
    for extent in extents:
        for _ in extent.pieces_in(buffer):
            pass
