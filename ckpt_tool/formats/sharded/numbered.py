"""Shards that are known by their numbers: `model-00001-of-00002.safetensors`, without an index, or
with one that is out of date.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.checkpoint import Checkpoint, Contents
from ckpt_tool.formats.folder import Folder, names_in
from ckpt_tool.formats.sharded.shards import checkpoint_of, join_shards, open_shards
from ckpt_tool.tensors import counted

_NUMBERED = re.compile(
    r"(.*?)[-_.]?([0-9]{2,6})-of-([0-9]{2,6})(\.safetensors|\.bin|\.pth|\.pt)", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Numbered:
    """Files of one name that differ by their number out of `count`; `names` are in their order,
    `missing` are those that are not there.
    """

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
    looked_at = range(start, start + count)[: MAX_MISSING + len(files)]
    missing = tuple(
        f"{before}{number:0{width}}{after}" for number in looked_at if number not in files
    )
    return Numbered(one[1], count, tuple(files[number][0] for number in sorted(files)), missing)


MAX_MISSING = 1000
"""A name may declare any number of files."""


def open_numbered(folder: Folder, path: str, found: Numbered, note: str = "") -> Checkpoint:
    """All tensors of the shards; `note` says why no index counts, where there is one.

    Raises FormatError for a number that is missing, and for a tensor that is in two.
    """
    if found.missing or len(found.names) != found.count:
        missing = (
            f": {', '.join(found.missing[:3])}{' …' if len(found.missing) > 3 else ''}"
            if found.missing
            else ""
        )
        left = found.count - len(found.names)
        are = "is" if left == 1 else "are"
        fact = (
            f"has {len(found.names)} of {counted(found.count, 'numbered shard')}; "
            f"{left:,} {are} missing{missing}"
        )
        raise FormatError(folder.path, fact, "download them")
    shards = open_shards(folder, found.names, path)
    try:
        contents = join_shards(_places(folder.path, shards.contents), shards.contents, [])
    except BaseException:
        shards.close()
        raise
    checkpoint = checkpoint_of(path, shards, contents, "shards")
    checkpoint.contents = replace(
        checkpoint.contents, layout=checkpoint.contents.layout or note or _read_without(found.count)
    )
    return checkpoint


def _read_without(count: int) -> str:
    return (
        f"{counted(count, 'numbered shard')}, which {'was' if count == 1 else 'were'} read without "
        "an index"
    )


def _places(folder: str, shards: dict[str, Contents]) -> dict[str, str]:
    places: dict[str, str] = {}
    for name, contents in shards.items():
        for key in (*contents.catalog, *contents.catalog.unreadable):
            other = places.setdefault(key, name)
            if other != name:
                fact = f"`{key[:200]}` is in two of its numbered shards, {other} and {name}"
                raise FormatError(
                    folder,
                    fact,
                    "which of them counts is not defined; are they the parts of several processes?",
                )
    return places


def complete_set(folder: Folder, listed: Collection[str] = ()) -> Numbered | None:
    """The one set of numbered shards of a folder that is all there; of several, the one of which
    some are `listed`.
    """
    whole = [
        found
        for found in numbered_sets(names_in(folder))
        if not found.missing and len(found.names) == found.count
    ]
    own = [found for found in whole if not set(listed).isdisjoint(found.names)] or whole
    return own[0] if len(own) == 1 else None


def left_out(folder: Folder, listed: Collection[str]) -> tuple[str, ...]:
    """Numbered shards of a folder that are not listed, though others of their set are."""
    sets = [
        found.names
        for found in numbered_sets(names_in(folder))
        if not set(listed).isdisjoint(found.names)
    ]
    return tuple(name for names in sets for name in names if name not in listed)
