"""The safetensors files of torch's HuggingFaceStorageWriter: of each process its parts of the
tensors.

`shard-{rank + 1}-model-{file}-of-{files}.safetensors`; the header's `DCP_SHARDING_INFO` says where
each part begins (torch/distributed/checkpoint/_hf_utils.py). Nothing says how large the whole is:
it reaches to the end of the last part.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.checkpoint import Checkpoint, Contents
from ckpt_tool.formats.distributed.pieces import Deferred, Piece, assembled, check_pieces
from ckpt_tool.formats.distributed.rank_files import SHOWN, check_stays
from ckpt_tool.formats.folder import Folder
from ckpt_tool.formats.pickle.unreadable import dimensions
from ckpt_tool.formats.placements.assembled import Placement
from ckpt_tool.formats.sharded.shards import Shards, open_shards
from ckpt_tool.formats.strict_json import JsonFault, parse_json
from ckpt_tool.regions import Region
from ckpt_tool.tensors import Catalog, Shape, TensorInfo, counted

_NAME = re.compile(r"shard-([0-9]{1,9})-model-([0-9]{1,9})-of-([0-9]{1,9})\.safetensors")
INFO = "DCP_SHARDING_INFO"
MAX_MISSING = 1000
"""Names may declare any number of files."""


def open_hf_shards(folder: Folder, names: Iterable[str], path: str) -> Checkpoint:
    """The whole of all parts. Raises FormatError where they leave something out, lie over each
    other or are of different types.
    """
    some = [name for name in sorted(names) if _NAME.fullmatch(name)]
    for name in some:
        check_stays(folder, name)
    shards = open_shards(folder, some, path)
    try:
        contents = _contents(shards)
    except BaseException:
        shards.close()
        raise
    return Checkpoint(path, "safetensors shards", contents, shards.files)


def _contents(shards: Shards) -> Contents:
    pieces: dict[str, list[Piece]] = {}
    for name, contents in shards.contents.items():
        for key, piece in _pieces(shards.folder.join(name), contents):
            pieces.setdefault(key, []).append(piece)
    hint = _hint(shards.contents)
    infos, makers = [], {}
    for key, found in pieces.items():
        shape = _whole(key, found, shards.folder.path)
        check_pieces(key, found, shape, shards.folder.path, hint)
        infos.append(TensorInfo(key, found[0].dtype, shape))
        makers[key] = assembled(found, shape)
    return Contents(
        Catalog(infos, is_ordered=False), Deferred(makers), layout=_layout(shards.contents)
    )


def _pieces(path: str, contents: Contents) -> Iterator[tuple[str, Piece]]:
    offsets = _offsets(path, contents.metadata)
    for key, info in contents.catalog.items():
        start = offsets.get(key, (0,) * len(info.shape))
        if len(start) != len(info.shape):
            fact = (
                f"its {INFO} has {counted(len(start), 'offset')} for `{key[:200]}` of "
                f"{counted(len(info.shape), 'dimension')}"
            )
            raise FormatError(path, fact)
        place = partial(_place, contents.placements, key)
        yield key, Piece(Region(start, info.shape), info.dtype, place)


def _place(placements: Mapping[str, Placement], key: str) -> Placement:
    return placements[key]


def _offsets(path: str, metadata: Mapping[str, str]) -> dict[str, Shape]:
    """Where each tensor's part begins, as the header says. Raises FormatError."""
    try:
        info = parse_json(metadata.get(INFO, "{}").encode())
    except JsonFault as fault:
        raise FormatError(path, f"its {INFO} {fault}") from None
    if not isinstance(info, dict):
        raise FormatError(path, f"its {INFO} is not an object of tensors")
    found: dict[str, Shape] = {}
    for key, entry in info.items():
        start = entry.get("saved_offsets") if isinstance(entry, dict) else None
        place = dimensions(tuple(start)) if isinstance(start, list) else None
        if place is None:
            raise FormatError(path, f"its {INFO} has no `saved_offsets` for `{key[:200]}`")
        found[key] = place
    return found


def _whole(key: str, pieces: list[Piece], folder: str) -> Shape:
    """The shape that reaches to the end of the last part in each dimension."""
    ranks = {len(piece.region.shape) for piece in pieces}
    if len(ranks) > 1:
        fact = f"`{key[:200]}` has {' and '.join(map(str, sorted(ranks)))} dimensions in its parts"
        raise FormatError(folder, fact)
    ends = [
        tuple(
            start + count for start, count in zip(one.region.offsets, one.region.shape, strict=True)
        )
        for one in pieces
    ]
    return tuple(map(max, zip(*ends, strict=True)))


def _hint(names: Iterable[str]) -> str:
    """Which files may be missing by their numbers: a process with nothing to write makes none."""
    found = [match for name in names if (match := _NAME.fullmatch(name))]
    ranks, count = max(int(match[1]) for match in found), max(int(match[3]) for match in found)
    here = {(int(match[1]), int(match[2])) for match in found}
    missing = [
        f"shard-{rank:05d}-model-{at:05d}-of-{count:05d}.safetensors"
        for rank in range(1, min(ranks, MAX_MISSING) + 1)
        for at in range(1, min(count, MAX_MISSING // ranks + 1) + 1)
        if (rank, at) not in here
    ]
    if not missing:
        return "are the files of all processes, and of one run, in the folder?"
    more = " …" if len(missing) > SHOWN else ""
    return f"by the numbers of the others {', '.join(missing[:SHOWN])}{more} may be missing"


def _layout(names: Iterable[str]) -> str:
    ranks = len({match[1] for name in names if (match := _NAME.fullmatch(name))})
    whose = "1 process" if ranks == 1 else f"{ranks:,} processes"
    return (
        f"the parts of {whose} (DCP's safetensors), joined; no file says how many there "
        "were, so that missing last ones would not be noticed"
    )
