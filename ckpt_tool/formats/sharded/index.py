"""Hugging Face's sharded checkpoints: an `*.index.json` whose `weight_map` says which file has
which tensor.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections import Counter
from dataclasses import replace

from ckpt_tool.errors import FormatError, InputError
from ckpt_tool.formats.checkpoint import Checkpoint, Contents, Extra
from ckpt_tool.formats.files import AGAIN, SourceFile
from ckpt_tool.formats.folder import Folder
from ckpt_tool.formats.limits import EXTRAS, HEADER_BYTES
from ckpt_tool.formats.sharded.numbered import complete_set, left_out, open_numbered
from ckpt_tool.formats.sharded.shards import checkpoint_of, join_shards, open_shards
from ckpt_tool.formats.strict_json import JsonFault, parse_json
from ckpt_tool.tensors import counted

BESIDE_A_NAME = 85
"""What a safetensors header has of a tensor besides its name: type, shape and place."""
_DRIVE = re.compile(r"[A-Za-z]:")


class Stale(FormatError):
    """An index that doesn't belong to the shards that lie beside it."""


def is_index(file: SourceFile, head: bytes) -> bool:
    """Whether this is a JSON object named as an index, or with a `weight_map` near its start."""
    if head.removeprefix(BOM_UTF8).lstrip()[:1] != b"{":
        return False
    return file.path.endswith(".index.json") or b'"weight_map"' in file.read(
        0, min(file.size, 1 << 16)
    )


def open_index(file: SourceFile, folder: Folder, path: str, wanted: str) -> Checkpoint:
    """The tensors of all shards, which lie in `folder`, in the order of the `weight_map`. Every
    shard is opened: only it knows its shapes.

    Raises FormatError for a shard that is missing or lies outside of the index's folder, and for a
    tensor that is not in the shard that the index names, or in two. Where all numbered shards are
    there, and the index is another's, or leaves out one of them or of their tensors, they are read
    without it; of others, a tensor that the index does not list is an extra.
    """
    if wanted:
        raise InputError(path, f"no state dict in an index is named `{wanted}`")
    weight_map, total = _read_index(file)
    try:
        return _open_shards(file, folder, path, weight_map, total)
    except Stale as fault:
        found = complete_set(folder, set(weight_map.values()))
        if found is None:
            raise
        shards = (
            f"{counted(found.count, 'numbered shard')} beside it "
            f"{'was' if found.count == 1 else 'were'}"
        )
        note = f"its index is out of date ({fault.fact}); the {shards} read without it"
        checkpoint = open_numbered(folder, path, found, note)
        checkpoint.contents = replace(checkpoint.contents, stale_index=fault.fact)
        return checkpoint


def _open_shards(
    file: SourceFile, folder: Folder, path: str, weight_map: dict[str, str], total: object
) -> Checkpoint:
    if not weight_map:
        raise Stale(file.path, "lists no tensors in its `weight_map`", "get the index again")
    names = list(dict.fromkeys(weight_map.values()))
    _check_names(file, folder, names)
    if missed := left_out(folder, names):
        fact = (
            "doesn't name "
            f"{missed[0][:200]}{f' and {len(missed) - 1} more' if missed[1:] else ''}, "
            "beside those that it names"
        )
        raise Stale(
            file.path,
            fact,
            "an index names all shards of a set; move the others away, or get the index again",
        )
    shards = open_shards(folder, names, file.path, _headers(weight_map))
    try:
        contents = _join(file, folder, weight_map, shards.contents, total)
    except BaseException:
        shards.close()
        raise
    return checkpoint_of(path, shards, contents, "index", file)


def _headers(weight_map: dict[str, str]) -> Counter[str]:
    """About how many bytes the header of each shard has, by the names that are in it."""
    sizes: Counter[str] = Counter()
    for key, name in weight_map.items():
        sizes[name] += len(key) + BESIDE_A_NAME
    return sizes


def _read_index(file: SourceFile) -> tuple[dict[str, str], object]:
    if file.size > HEADER_BYTES:
        raise FormatError(
            file.path, f"is an index of {file.size} bytes; at most {HEADER_BYTES} are read"
        )
    try:
        index = parse_json(file.read(0, file.size))
    except JsonFault as fault:
        raise FormatError(file.path, str(fault), AGAIN) from None
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not all(
        isinstance(name, str) for name in weight_map.values()
    ):
        raise FormatError(file.path, "has no `weight_map` from tensors to file names")
    metadata = index.get("metadata") if isinstance(index, dict) else None
    return weight_map, metadata.get("total_size") if isinstance(metadata, dict) else None


def _check_names(file: SourceFile, folder: Folder, names: list[str]) -> None:
    """Shards are plain names of files beside the index; what leads elsewhere is refused, and what
    is missing is named.
    """
    for name in names:
        if not _is_plain_name(name):
            raise FormatError(
                file.path,
                f"names the shard `{name[:200]}`, which is not a plain file name",
                "shards lie beside their index",
            )
    missing = [name for name in names if not folder.has(name)]
    if missing:
        some = ", ".join(name[:200] for name in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise Stale(
            file.path,
            f"{len(missing)} of its {len(names)} shards are missing: {some}{more}",
            "download them",
        )


def _is_plain_name(name: str) -> bool:
    """Whether a name can't lead out of the folder on any system."""
    if name in ("", ".", "..") or _DRIVE.match(name):
        return False
    return not any(mark in name for mark in "/\\\0")


def _join(
    file: SourceFile,
    folder: Folder,
    weight_map: dict[str, str],
    shards: dict[str, Contents],
    total: object,
) -> Contents:
    for key, name in weight_map.items():
        if key not in shards[name].catalog and key not in shards[name].catalog.unreadable:
            raise Stale(
                file.path,
                f"says that `{key[:200]}` is in {name}, but it is not",
                "index and shards don't belong together",
            )
    unlisted = _unlisted(file, weight_map, shards)
    if unlisted and complete_set(folder, shards):
        raise Stale(
            file.path,
            f"doesn't list `{unlisted[0].path[:200]}`, {unlisted[0].text.partition(',')[0]}",
        )
    listed = [
        shards[name].catalog[key].nbytes
        for key, name in weight_map.items()
        if key in shards[name].catalog
    ]
    return join_shards(weight_map, shards, [*_size_note(sum(listed), total), *unlisted])


def _unlisted(
    file: SourceFile, weight_map: dict[str, str], shards: dict[str, Contents]
) -> list[Extra]:
    extras = []
    for name, contents in shards.items():
        kinds = {key: info.dtype.value for key, info in contents.catalog.items()}
        for key, kind in (
            kinds | {key: one.kind for key, one in contents.catalog.unreadable.items()}
        ).items():
            owner = weight_map.get(key)
            if owner is not None and owner != name:
                raise FormatError(
                    file.path,
                    f"`{key[:200]}` is in two shards, {owner} and {name}",
                    "which of them counts is not defined",
                )
            if owner is None:
                extras.append(
                    Extra(key, "tensor", f"{kind} in {name}, which the index does not list")
                )
    more = (
        [
            Extra(
                "",
                "note",
                f"{len(extras) - EXTRAS} more tensors of the shards are not in the index",
            )
        ]
        if len(extras) > EXTRAS
        else []
    )
    return extras[:EXTRAS] + more


def _size_note(nbytes: int, total: object) -> list[Extra]:
    """`total_size` is often wrong, or a fraction, and nothing depends on it."""
    if total is None or total == nbytes:
        return []
    stated = total if isinstance(total, int | float) else "no number"
    return [Extra("", "note", f"the index says {stated} bytes; its tensors have {nbytes}")]
