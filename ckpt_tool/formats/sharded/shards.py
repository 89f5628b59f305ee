"""Several files that are one checkpoint: each is opened, and what they hold is joined. Their files
are known by their names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.checkpoint import Checkpoint, Contents, Extra, LeftBehind
from ckpt_tool.formats.files import AGAIN, SourceFile
from ckpt_tool.formats.folder import Folder
from ckpt_tool.formats.key_order import are_in_module_order
from ckpt_tool.formats.limits import EXTRAS, OPEN_SHARDS
from ckpt_tool.formats.partial_models import layout_of
from ckpt_tool.formats.placements.assembled import Placement
from ckpt_tool.formats.registry import FORMATS, HEAD
from ckpt_tool.formats.sharded.journal import refuse_half_changed
from ckpt_tool.tensors import Catalog, TensorInfo, UnreadableTensor

_SHARD_FORMATS = ("safetensors", "torch zip", "torch legacy")
SHARDS_AT_ONCE = 16
"""Files that are opened at a time where each costs requests."""
Opened = dict[str, tuple[SourceFile, Contents]]


@dataclass(frozen=True, slots=True)
class Shards:
    """Open files by name. Whoever can't use them closes them."""

    folder: Folder
    opened: Opened

    @property
    def contents(self) -> dict[str, Contents]:
        """What each file holds, by its name."""
        return {name: contents for name, (_, contents) in self.opened.items()}

    @property
    def files(self) -> tuple[SourceFile, ...]:
        """The files in their order."""
        return tuple(file for file, _ in self.opened.values())

    def close(self) -> None:
        """Closes all of them."""
        for file in self.files:
            file.close()


def open_shards(
    folder: Folder, names: Sequence[str], whole: str, headers: Mapping[str, int] | None = None
) -> Shards:
    """The files of these names, whose headers should have so many bytes. `whole` is the path of
    what they are shards of. Raises FormatError for one that can't be read.
    """
    opened: Opened = {}
    try:
        for name, shard in _open_each(folder, names, whole, headers or {}):
            opened[name] = shard
            if len(opened) > OPEN_SHARDS:
                opened[name][0].release()
    except BaseException:
        Shards(folder, opened).close()
        raise
    return Shards(folder, opened)


def _open_each(
    folder: Folder, names: Sequence[str], whole: str, headers: Mapping[str, int]
) -> Iterator[tuple[str, tuple[SourceFile, Contents]]]:
    """The shards in their order; many at a time where each costs a request."""
    if folder.is_here or len(names) < 2:
        for name in names:
            yield name, _open_shard(folder, whole, name)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(SHARDS_AT_ONCE) as pool:
        try:
            sizes = [headers.get(name, 0) for name in names]
            shards = pool.map(partial(_open_shard, folder, whole), names, sizes)
            yield from zip(names, shards, strict=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _open_shard(
    folder: Folder, whole: str, name: str, header: int = 0
) -> tuple[SourceFile, Contents]:
    path = folder.join(name)
    refuse_half_changed(path)
    shard = folder.open(name, header)
    format = None
    try:
        head = shard.read(0, min(shard.size, HEAD))
        format = next(
            (one for one in FORMATS if shard.size and one.recognise(head, shard.size)), None
        )
        if format is None or format.name not in _SHARD_FORMATS:
            raise _no_shard(shard, head)
        if name.endswith(".safetensors") and format.name != "safetensors":
            raise FormatError(
                path,
                f"is named safetensors, but is a {format.name} file",
                f"it is a shard of {whole}",
            )
        return shard, replace(format.read(shard, ""), kept=None)
    except FormatError as error:
        shard.close()
        raise shard.refused(error, is_known=format is not None) from None
    except BaseException:
        shard.close()
        raise


def _no_shard(shard: SourceFile, head: bytes) -> FormatError:
    from ckpt_tool.formats.unsupported import refuse_foreign

    if not shard.size:
        return FormatError(shard.path, "is empty (zero bytes)", AGAIN)
    refuse_foreign(shard, head)
    return FormatError(shard.path, "is a shard of no format that is known here", AGAIN)


def checkpoint_of(
    path: str, shards: Shards, contents: Contents, kind: str, index: SourceFile | None = None
) -> Checkpoint:
    """The open checkpoint; `kind` is what follows the name of its shards' format."""
    is_safe = bool(shards.opened) and next(iter(shards.opened)).endswith(".safetensors")
    files = (*((index,) if index else ()), *shards.files)
    if shards.opened:
        name, (_, first) = next(iter(shards.opened.items()))
        sentence = layout_of(
            replace(contents, metadata={**first.metadata, **contents.metadata}), shards.folder, name
        )
        contents = replace(contents, layout=sentence, is_whole=not sentence)
    return Checkpoint(path, f"{'safetensors' if is_safe else 'torch'} {kind}", contents, files)


def join_shards(
    places: Mapping[str, str], shards: Mapping[str, Contents], notes: list[Extra]
) -> Contents:
    """The tensors of `places`, in this order, each from the shard that it names; and what the
    shards hold besides.
    """
    infos: list[TensorInfo] = []
    unreadable: list[UnreadableTensor] = []
    owners: dict[str, str] = {}
    tied = {name for name, contents in shards.items() if _has_ties(contents)}
    first: dict[tuple[str, str, str], str] = {}
    for key, name in places.items():
        catalog = shards[name].catalog
        info = catalog.get(key)
        if info is None:
            unreadable.append(catalog.unreadable[key])
        else:
            infos.append(_named_anew(info, name, first) if name in tied else info)
            owners[key] = name
    is_ordered = are_in_module_order([info.key for info in infos]) and not _have_sorted(
        infos, owners, shards
    )
    catalog = Catalog(infos, is_ordered, unreadable)
    return Contents(
        catalog,
        _Owned(owners, shards),
        _metadata(shards),
        extras=_bounded([*_asked(shards), *notes, *_extras(shards)]),
        elsewhere=tuple(_elsewhere(shards, places)),
        left_behind=_left_behind(places, shards),
        beside=_Beside(shards),
        unreadable_elsewhere=tuple(_odd_elsewhere(shards, places)),
    )


def _have_sorted(
    infos: Iterable[TensorInfo], owners: Mapping[str, str], shards: Mapping[str, Contents]
) -> bool:
    """Whether the keys of some shard stand as its writer sorted them."""
    own: dict[str, list[str]] = {}
    for info in infos:
        own.setdefault(owners[info.key], []).append(info.key)
    return any(
        not shards[name].catalog.is_ordered
        and keys == [key for key in shards[name].catalog if owners.get(key) == name]
        for name, keys in own.items()
    )


def _has_ties(contents: Contents) -> bool:
    return any(info.shared_storage_with for info in contents.catalog.values())


def _elsewhere(shards: Mapping[str, Contents], places: Mapping[str, str]) -> Iterator[TensorInfo]:
    """The shards' tensors outside of the whole: outside of their state dicts, or not listed by the
    index.
    """
    for name, contents in shards.items():
        unlisted = (info for key, info in contents.catalog.items() if key not in places)
        for info in (*contents.elsewhere, *unlisted):
            yield replace(info, key=f"{name}#{info.key}")


def _odd_elsewhere(
    shards: Mapping[str, Contents], places: Mapping[str, str]
) -> Iterator[UnreadableTensor]:
    for name, contents in shards.items():
        odd = contents.catalog.unreadable
        unlisted = (tensor for key, tensor in odd.items() if key not in places)
        for tensor in (*contents.unreadable_elsewhere, *unlisted):
            yield replace(tensor, key=f"{name}#{tensor.key}")


@dataclass(frozen=True)
class _Owned(Mapping[str, Placement]):
    """Where the tensors of the whole lie; each is located when it is asked for."""

    owners: Mapping[str, str]
    shards: Mapping[str, Contents]

    def __getitem__(self, key: str) -> Placement:
        return self.shards[self.owners[key]].placements[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.owners)

    def __len__(self) -> int:
        return len(self.owners)

    def __contains__(self, key: object) -> bool:
        return key in self.owners


@dataclass(frozen=True)
class _Beside(Mapping[str, Placement]):
    """Where the tensors outside of the whole lie, `SHARD#PATH`; each is located when it is asked
    for.
    """

    shards: Mapping[str, Contents]

    def __getitem__(self, key: str) -> Placement:
        name, mark, path = key.partition("#")
        if not mark or name not in self.shards:
            raise KeyError(key)
        contents = self.shards[name]
        return contents.beside[path] if path in contents.beside else contents.placements[path]

    def __iter__(self) -> Iterator[str]:
        return (
            f"{name}#{path}"
            for name, one in self.shards.items()
            for path in (*one.beside, *one.placements)
        )

    def __len__(self) -> int:
        return sum(len(one.beside) + len(one.placements) for one in self.shards.values())

    def __contains__(self, key: object) -> bool:
        name, mark, path = key.partition("#") if isinstance(key, str) else ("", "", "")
        return (
            bool(mark)
            and name in self.shards
            and (path in self.shards[name].beside or path in self.shards[name].placements)
        )


def _named_anew(info: TensorInfo, shard: str, first: dict[tuple[str, str, str], str]) -> TensorInfo:
    """A tensor that names the first of its like in the whole, which may leave out the shard's first
    one, or list it later.
    """
    shared_storage_with = first.setdefault(
        (shard, "storage", info.shared_storage_with or info.key), info.key
    )
    tied_to = first.setdefault((shard, "tensor", info.tied_to or info.key), info.key)
    return replace(
        info,
        shared_storage_with=None if shared_storage_with == info.key else shared_storage_with,
        tied_to=None if tied_to == info.key else tied_to,
    )


def _asked(shards: Mapping[str, Contents]) -> Iterator[Extra]:
    """What unpickling the shards would call or import, each once, with the first shard that asks
    for it.
    """
    listed: set[tuple[str, str]] = set()
    for name, contents in shards.items():
        for extra in contents.extras:
            if extra.kind in ("call", "import") and (extra.kind, extra.text) not in listed:
                listed.add((extra.kind, extra.text))
                yield replace(extra, path=name)


def _extras(shards: Mapping[str, Contents]) -> Iterator[Extra]:
    for name, contents in shards.items():
        for extra in contents.extras:
            if extra.kind not in ("call", "import"):
                yield replace(extra, path=f"{name}#{extra.path}" if extra.path else name)


def _bounded(extras: list[Extra]) -> tuple[Extra, ...]:
    more = len(extras) - EXTRAS
    return (
        *extras[:EXTRAS],
        *(
            (Extra("", "note", f"{more} more things of the shards are not listed"),)
            if more > 0
            else ()
        ),
    )


def _left_behind(
    places: Mapping[str, str], shards: Mapping[str, Contents]
) -> tuple[LeftBehind, ...]:
    """What the shards hold outside of their state dicts, and the tensors of these that the whole
    doesn't list.
    """
    found = []
    for name, contents in shards.items():
        unlisted = [info for key, info in contents.catalog.items() if key not in places]
        count = len(unlisted) + sum(key not in places for key in contents.catalog.unreadable)
        if count:
            found.append(LeftBehind(name, "tensors", count, sum(info.nbytes for info in unlisted)))
        found += [replace(one, path=f"{name}#{one.path}") for one in contents.left_behind]
    return tuple(found)


def _metadata(shards: Mapping[str, Contents]) -> dict[str, str]:
    """What the shards' own metadata say alike."""
    each = [contents.metadata for contents in shards.values()]
    return (
        {name: text for name, text in each[0].items() if all(one.get(name) == text for one in each)}
        if each
        else {}
    )
