"""Hugging Face's sharded checkpoints: an `*.index.json` whose `weight_map` says which file has which tensor."""

from __future__ import annotations

import os
import re
from codecs import BOM_UTF8
from dataclasses import replace

from ckpt_tool.errors import FormatError, InputError
from ckpt_tool.formats.checkpoint import Checkpoint, Contents, Extra
from ckpt_tool.formats.files import AGAIN, SourceFile
from ckpt_tool.formats.limits import EXTRAS, HEADER_BYTES, OPEN_SHARDS
from ckpt_tool.formats.ordering import are_in_module_order
from ckpt_tool.formats.placement import Placement
from ckpt_tool.formats.strict_json import JsonFault, parse_json
from ckpt_tool.formats.table import FORMATS, HEAD
from ckpt_tool.tensors import Catalog, TensorInfo

_SHARD_FORMATS = ("safetensors", "torch zip", "torch legacy")
_DRIVE = re.compile(r"[A-Za-z]:")


def is_index(file: SourceFile, head: bytes) -> bool:
    if head.removeprefix(BOM_UTF8).lstrip()[:1] != b"{":
        return False
    return file.path.endswith(".index.json") or b'"weight_map"' in file.read(0, min(file.size, 1 << 16))


def open_index(file: SourceFile, path: str, wanted: str) -> Checkpoint:
    """The tensors of all shards, in the order of the `weight_map`. Every shard is opened: only it knows its shapes.

    Raises FormatError for a shard that is missing or lies outside of the index's folder, and for a tensor that is not in the
    shard that the index names, or in two. A tensor that the index does not list is an extra.
    """
    if wanted:
        raise InputError(path, f"no state dict in an index is named `{wanted}`")
    weight_map, total = _read_index(file)
    names = list(dict.fromkeys(weight_map.values()))
    _check_names(file, names)
    shards: dict[str, tuple[SourceFile, Contents]] = {}
    try:
        for name in names:
            shards[name] = _open_shard(file, name)
            if len(shards) > OPEN_SHARDS:
                shards[name][0].release()
        contents = _join(file, weight_map, {name: contents for name, (_, contents) in shards.items()}, total)
    except BaseException:
        for shard, _ in shards.values():
            shard.close()
        raise
    kind = "safetensors index" if names and names[0].endswith(".safetensors") else "torch index"
    return Checkpoint(path, kind, contents, (file, *(shard for shard, _ in shards.values())))


def _read_index(file: SourceFile) -> tuple[dict[str, str], object]:
    if file.size > HEADER_BYTES:
        raise FormatError(file.path, f"is an index of {file.size} bytes; at most {HEADER_BYTES} are read")
    try:
        index = parse_json(file.read(0, file.size))
    except JsonFault as fault:
        raise FormatError(file.path, str(fault), AGAIN) from None
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise FormatError(file.path, "has no `weight_map` from tensors to file names")
    metadata = index.get("metadata") if isinstance(index, dict) else None
    return weight_map, metadata.get("total_size") if isinstance(metadata, dict) else None


def _check_names(file: SourceFile, names: list[str]) -> None:
    """Shards are plain names of files beside the index; what leads elsewhere is refused, and what is missing is named."""
    for name in names:
        if not name or name in (".", "..") or any(mark in name for mark in "/\\\0") or _DRIVE.match(name):
            raise FormatError(file.path, f"names the shard `{name[:200]}`, which is no plain file name", "shards lie beside their index")
    folder = os.path.dirname(file.path)
    missing = [name for name in names if not os.path.lexists(os.path.join(folder, name))]
    if missing:
        some = ", ".join(name[:200] for name in missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise FormatError(file.path, f"{len(missing)} of its {len(names)} shards are missing: {some}", "download them")


def _open_shard(index: SourceFile, name: str) -> tuple[SourceFile, Contents]:
    path = os.path.join(os.path.dirname(index.path), name)
    shard = SourceFile(path)
    try:
        head = shard.read(0, min(shard.size, HEAD))
        format = next((one for one in FORMATS if shard.size and one.recognise(head, shard.size)), None)
        if format is None or format.name not in _SHARD_FORMATS:
            raise _no_shard(shard, head)
        if name.endswith(".safetensors") and format.name != "safetensors":
            raise FormatError(path, f"is named safetensors, but is a {format.name} file", f"it is a shard of {index.path}")
        return shard, format.read(shard, "")
    except BaseException:
        shard.close()
        raise


def _no_shard(shard: SourceFile, head: bytes) -> FormatError:
    from ckpt_tool.formats.foreign import refuse_foreign

    if not shard.size:
        return FormatError(shard.path, "is empty (zero bytes)", AGAIN)
    refuse_foreign(shard, head)
    return FormatError(shard.path, "is a shard of no format that is known here", AGAIN)


def _join(file: SourceFile, weight_map: dict[str, str], shards: dict[str, Contents], total: object) -> Contents:
    infos: list[TensorInfo] = []
    placements: dict[str, Placement] = {}
    tied = {name for name, contents in shards.items() if any(info.shares for info in contents.catalog.values())}
    first: dict[tuple[str, str, str], str] = {}
    for key, name in weight_map.items():
        info = shards[name].catalog.get(key)
        if info is None:
            raise FormatError(file.path, f"says that `{key[:200]}` is in {name}, but it is not", "index and shards don't belong together")
        infos.append(_named_anew(info, name, first) if name in tied else info)
        placements[key] = shards[name].placements[key]
    unlisted = _unlisted(file, weight_map, shards)
    catalog = Catalog(infos, are_in_module_order(list(weight_map)))
    return Contents(catalog, placements, _metadata(shards), {}, (*_size_note(catalog, total), *unlisted))


def _named_anew(info: TensorInfo, shard: str, first: dict[tuple[str, str, str], str]) -> TensorInfo:
    """A tensor that names the first of its like in the index, which may leave out the shard's first one, or list it later."""
    shares = first.setdefault((shard, "storage", info.shares or info.key), info.key)
    same_as = first.setdefault((shard, "tensor", info.same_as or info.key), info.key)
    return replace(info, shares=None if shares == info.key else shares, same_as=None if same_as == info.key else same_as)


def _unlisted(file: SourceFile, weight_map: dict[str, str], shards: dict[str, Contents]) -> list[Extra]:
    extras = []
    for name, contents in shards.items():
        for key, info in contents.catalog.items():
            owner = weight_map.get(key)
            if owner is not None and owner != name:
                raise FormatError(file.path, f"`{key[:200]}` is in two shards, {owner} and {name}", "which of them counts is not defined")
            if owner is None:
                extras.append(Extra(key, "tensor", f"{info.dtype.value} in {name}, which the index does not list"))
    more = [Extra("", "note", f"{len(extras) - EXTRAS} more tensors of the shards are not in the index")] if len(extras) > EXTRAS else []
    return extras[:EXTRAS] + more


def _metadata(shards: dict[str, Contents]) -> dict[str, str]:
    """What the shards' own metadata say alike."""
    each = [contents.metadata for contents in shards.values()]
    return {name: text for name, text in each[0].items() if all(one.get(name) == text for one in each)} if each else {}


def _size_note(catalog: Catalog, total: object) -> list[Extra]:
    """`total_size` is often wrong, or a fraction, and nothing depends on it."""
    if total is None or total == catalog.nbytes:
        return []
    said = total if isinstance(total, int | float) else "no number"
    return [Extra("", "note", f"the index says {said} bytes; its tensors have {catalog.nbytes}")]
