"""Shards that are told by their numbers: `model-00001-of-00002.safetensors`, without an index, or with one that is out of date."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.checkpoint import Checkpoint, Contents, Extra
from ckpt_tool.formats.sharded.shards import checkpoint_of, join, open_shards

_NUMBERED = re.compile(r"(.*?)[-_.]?([0-9]{2,6})-of-([0-9]{2,6})(\.safetensors|\.bin|\.pth|\.pt)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Numbered:
    """Files of one name that differ by their number out of `count`; `names` are in their order, `missing` are those that are not there."""

    stem: str
    count: int
    names: tuple[str, ...]
    missing: tuple[str, ...]


def numbered_sets(names: Iterable[str]) -> list[Numbered]:
    """The sets of numbered files, those that are all there first."""
    sets: dict[tuple[str, str, str], dict[int, re.Match[str]]] = defaultdict(dict)
    for name in sorted(names):
        if found := _NUMBERED.fullmatch(name):
            sets[found[1], found[3], found[4]][int(found[2])] = found
    return sorted(map(_numbered, sets.values()), key=lambda one: bool(one.missing))


def _numbered(files: dict[int, re.Match[str]]) -> Numbered:
    """Numbers begin at 1, or at 0 where that is there."""
    one = next(iter(files.values()))
    start, count, width = 0 if 0 in files else 1, int(one[3]), len(one[2])
    before, after = one[0][: one.start(2)], one[0][one.end(2) :]
    looked_at = range(start, start + count)[: MOST_MISSING + len(files)]
    missing = tuple(f"{before}{number:0{width}}{after}" for number in looked_at if number not in files)
    return Numbered(one[1], count, tuple(files[number][0] for number in sorted(files)), missing)


MOST_MISSING = 1000
"""A name may declare any number of files."""


def open_numbered(folder: str, path: str, found: Numbered, note: str = "") -> Checkpoint:
    """All tensors of the shards. Raises FormatError for a number that is missing, and for a tensor that is in two."""
    if found.missing or len(found.names) != found.count:
        missing = f": {', '.join(found.missing[:3])}{' …' if len(found.missing) > 3 else ''}" if found.missing else ""
        fact = f"has {len(found.names)} of {found.count} numbered shards; {found.count - len(found.names)} are missing{missing}"
        raise FormatError(folder, fact, "download them")
    shards = open_shards(folder, list(found.names), path)
    try:
        told = Extra("", "note", note or f"{found.count} numbered shards, which were read without an index")
        contents = join(_places(folder, shards.contents), shards.contents, [told])
    except BaseException:
        shards.close()
        raise
    return checkpoint_of(path, shards, contents, "shards")


def _places(folder: str, shards: dict[str, Contents]) -> dict[str, str]:
    places: dict[str, str] = {}
    for name, contents in shards.items():
        for key in (*contents.catalog, *contents.catalog.unreadable):
            other = places.setdefault(key, name)
            if other != name:
                fact = f"`{key[:200]}` is in two of its numbered shards, {other} and {name}"
                raise FormatError(folder, fact, "which of them counts is not defined; are they the parts of several processes?")
    return places


def complete_set(folder: str) -> Numbered | None:
    """The one set of numbered shards of a folder that is all there."""
    try:
        names = os.listdir(folder or ".")
    except OSError:
        return None
    whole = [found for found in numbered_sets(names) if not found.missing and len(found.names) == found.count]
    return whole[0] if len(whole) == 1 else None
