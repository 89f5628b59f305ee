"""A `.metadata` as values: each tensor with its parts, and where their bytes are said to lie.

It is a pickle of a `Metadata` (torch/distributed/checkpoint/metadata.py), which torch itself
unpickles; here it is read as data. Classes are known by their attributes alone: those of other
versions, and of other libraries that derive from them, have the same.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.distributed.dcp.saved import SavedChunk, SavedIndex, SavedRange
from ckpt_tool.formats.distributed.dcp.shortcuts import ChunkReader
from ckpt_tool.formats.files import AGAIN
from ckpt_tool.formats.limits import DIMENSIONS, PickleLimits
from ckpt_tool.formats.pickle.machine import PickleMachine
from ckpt_tool.formats.pickle.names import is_listed
from ckpt_tool.formats.pickle.values import Asked, Global, Opaque
from ckpt_tool.formats.sharded.parts import METADATA
from ckpt_tool.regions import Region
from ckpt_tool.tensors import Shape
from ckpt_tool.torch_bridge import DTYPES

MAX_NUMBER = 1 << 62
_HARMLESS = (
    "torch.distributed.checkpoint.",
    "torch.distributed._shard.",
    "torch.distributed.tensor.",
    "torch.distributed._tensor.",
    "pathlib.",
)
"""What a `.metadata` names besides torch's types: its own classes, and the path that it was saved
to.
"""
_CALLING = frozenset(("torch", "numpy", *sys.stdlib_module_names))
"""Packages with functions that do anything: what they would be called for stands in no
`.metadata`.
"""


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Where an item lies: `length` bytes from `offset` on in the file `name`."""

    name: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class SavedTensor:
    """A tensor: torch's name of its element type, its shape as torch counts it, its parts and
    where each lies. Empty parts are left out.
    """

    key: str
    type_name: str
    shape: Shape
    regions: tuple[Region, ...]
    ranges: tuple[ByteRange, ...]


@dataclass(frozen=True, slots=True)
class Metadata:
    """All that a `.metadata` says. `paths` lead to the items in the nested dict that was saved;
    empty where it was flat.
    """

    tensors: tuple[SavedTensor, ...]
    objects: Mapping[str, ByteRange]
    paths: Mapping[str, tuple[str | int, ...]]
    asked: Asked
    version: str = ""

    @property
    def parts(self) -> int:
        """The number of all tensors' parts."""
        return sum(len(tensor.regions) for tensor in self.tensors)


def read_metadata(data: bytes, path: str, in_steps: bool = True) -> Metadata:
    """What the bytes of a `.metadata` say; the same `in_steps` and by single opcodes. Raises
    FormatError for what is no such pickle, and for one that asks for calls that none needs.
    """
    machine = PickleMachine(
        data,
        limits=PickleLimits.of_size(len(data)),
        shortcuts=ChunkReader if in_steps else None,
    )
    root = machine.load(path, METADATA)
    if machine.pos != len(data):
        fact = f"has {len(data) - machine.pos} bytes behind its pickle"
        raise FormatError(path, fact, AGAIN)
    asked = _reported(machine, path)
    return _Reading(path).read(root, asked)


def _reported(machine: PickleMachine, path: str) -> Asked:
    """What is asked for besides torch's own classes. Raises FormatError for calls of what is no
    class of a library for training.
    """
    asked = machine.asked
    calls = tuple(name for name in asked.calls if not name.startswith(_HARMLESS))
    imports = tuple(name for name in asked.imports if not name.startswith(_HARMLESS))
    for name in (*calls, *imports):
        if name.partition(".")[0] in _CALLING and not _is_known(name):
            raise FormatError(
                path,
                f"its pickle would call or import {name[:100]}, which no `.metadata` needs",
                "nothing was executed; torch.distributed.checkpoint would: don't load it",
            )
    return Asked(calls, imports)


def _is_known(name: str) -> bool:
    module, _, last = name.rpartition(".")
    return is_listed(Global(module, last))


class _Reading:
    """The reading of one `.metadata`; `path` is for messages."""

    def __init__(self, path: str) -> None:
        self.path = path

    def read(self, root: object, asked: Asked) -> Metadata:
        """What a `Metadata` says. Raises FormatError."""
        fields = _fields(root)
        items = fields.get("state_dict_metadata")
        if not isinstance(items, dict):
            raise self._no_metadata(root)
        ranges = self._ranges(fields.get("storage_data"))
        tensors, objects = [], {}
        for key, item in items.items():
            if type(key) is not str:
                raise self._fault("has a key that is not a string")
            inner = _fields(item)
            if "chunks" in inner:
                tensors.append(self._tensor(key, inner, ranges.pop(key, {})))
            elif _class_name(item) == "BytesStorageMetadata":
                objects[key] = self._object(key, ranges.pop(key, {}))
            else:
                raise self._fault("is neither a tensor nor an object", key)
        if ranges:
            some = next(iter(ranges))
            raise self._fault("has bytes, and no description", some)
        version = fields.get("version")
        return Metadata(
            tuple(tensors),
            objects,
            self._paths(fields.get("planner_data"), items),
            asked,
            version if type(version) is str else "",
        )

    def _no_metadata(self, root: object) -> FormatError:
        what = _class_name(root) or type(root).__name__
        return FormatError(
            self.path, f"is a pickle of {what[:80]}, not a distributed checkpoint's `Metadata`"
        )

    def _fault(self, fact: str, key: str | None = None) -> FormatError:
        return FormatError(self.path, fact, AGAIN, f"`{key[:200]}`" if key is not None else None)

    def _ranges(self, data: object) -> dict[str, dict[bytes | None, ByteRange]]:
        """Where each item lies, by its key, and by where it begins in its tensor."""
        if not isinstance(data, dict):
            raise self._fault("does not say where its items are (`storage_data`)")
        names: dict[str, str] = {}
        ranges: dict[str, dict[bytes | None, ByteRange]] = {}
        for index, given in data.items():
            key, offsets = self._index(index)
            places = ranges.setdefault(key, {})
            if offsets in places:
                raise self._fault(f"has two places for the part at {_text(offsets)}", key)
            places[offsets] = self._range(key, given, names)
        return ranges

    def _index(self, index: object) -> tuple[str, bytes | None]:
        if type(index) is SavedIndex:
            key, offsets = index.key, index.offsets
        else:
            fields = _fields(index)
            key, offsets = fields.get("fqn"), fields.get("offset")
        if type(key) is not str:
            raise self._fault("names an item by what is not a string")
        return key, None if offsets is None else _hashable(self._numbers(offsets, "offset", key))

    def _range(self, key: str, given: object, names: dict[str, str]) -> ByteRange:
        if type(given) is SavedRange:
            name, offset, length = given.name, given.offset, given.length
        else:
            fields = _fields(given)
            name, offset, length = (
                fields.get(one) for one in ("relative_path", "offset", "length")
            )
            if transforms := fields.get("transform_descriptors"):
                raise self._transformed(key, transforms)
        if type(name) is not str:
            raise self._fault("is in a file whose name is not a string", key)
        if not (_is_number(offset) and _is_number(length)):
            raise self._fault("is at an impossible place in its file", key)
        return ByteRange(names.setdefault(name, name), offset, length)  # type: ignore[arg-type]

    def _transformed(self, key: str, transforms: object) -> FormatError:
        named = transforms if isinstance(transforms, list | tuple) else [transforms]
        text = ", ".join(str(one)[:40] for one in named[:3])
        return FormatError(
            self.path,
            f"its bytes went through {text} when it was saved, which is not read",
            "save it without stream extensions",
            f"`{key[:200]}`",
        )

    def _tensor(
        self, key: str, fields: Mapping[object, object], places: dict[bytes | None, ByteRange]
    ) -> SavedTensor:
        shape = self._numbers(fields.get("size"), "shape", key)
        chunks = fields.get("chunks")
        if not isinstance(chunks, list):
            raise self._fault("has parts that are not a list", key)
        regions, ranges = [], []
        for region in self._regions(key, chunks):
            found = places.pop(_hashable(region.offsets), None)
            if found is None and len(chunks) == 1:
                found = places.pop(None, None)
            if 0 in region.shape:
                continue
            if found is None:
                raise self._fault(f"has a part {region.text} whose place is not given", key)
            regions.append(region)
            ranges.append(found)
        if places:
            at = _text(next(iter(places)))
            raise self._fault(f"has bytes for a part at {at} that it does not have", key)
        name = _type_name(fields.get("properties"))
        return SavedTensor(key, name, shape, tuple(regions), tuple(ranges))

    def _regions(self, key: str, chunks: Iterable[object]) -> Iterator[Region]:
        for chunk in chunks:
            if type(chunk) is SavedChunk:
                offsets, sizes = chunk.offsets, chunk.sizes
            else:
                fields = _fields(chunk)
                offsets, sizes = fields.get("offsets"), fields.get("sizes")
            yield Region(self._numbers(offsets, "offset", key), self._numbers(sizes, "shape", key))

    def _numbers(self, value: object, what: str, key: str) -> Shape:
        """A `torch.Size` whose numbers are no traps."""
        if type(value) is not tuple or len(value) > DIMENSIONS or not all(map(_is_number, value)):
            raise self._fault(f"has a part or a tensor with an impossible {what}", key)
        return value

    def _object(self, key: str, places: dict[bytes | None, ByteRange]) -> ByteRange:
        if len(places) != 1:
            raise self._fault(f"is an object with {len(places)} places", key)
        return next(iter(places.values()))

    def _paths(
        self, data: object, items: Mapping[object, object]
    ) -> dict[str, tuple[str | int, ...]]:
        """The default planner's way back to nested dicts; other planners keep other data. Raises
        FormatError where it is known of some items, and not of others.
        """
        if not isinstance(data, dict):
            return {}
        paths = {}
        for key, path in data.items():
            if key in items and type(key) is str and isinstance(path, list | tuple) and path:
                if not all(type(part) in (str, int) for part in path):
                    raise self._fault("stood under what is neither a name nor a number", key)
                paths[key] = tuple(path)
        lost = [key for key in items if key not in paths] if paths else []
        if lost:
            fact = (
                f"has no place in the dict that was saved: `planner_data` has those of "
                f"{len(paths)} of {len(items)} items"
            )
            raise self._fault(fact, str(lost[0]))
        return paths


def _fields(value: object) -> Mapping[object, object]:
    """The attributes of an object; none where it was given no dict of them."""
    return value.state if type(value) is Opaque and isinstance(value.state, dict) else {}


def _class_name(value: object) -> str:
    return value.type_name.rpartition(".")[2] if type(value) is Opaque else ""


def _type_name(properties: object) -> str:
    """torch's name of the element type, in a `TensorProperties` of any version; empty where it has
    none.
    """
    state = properties.state if type(properties) is Opaque else None
    kind: object = None
    if isinstance(state, dict):
        kind = state.get("dtype")
    elif isinstance(state, tuple) and state:
        kind = state[0]
    return kind.name if type(kind) is Global and kind.module == "torch" else ""


def _is_number(value: object) -> bool:
    return type(value) is int and 0 <= value < MAX_NUMBER


def _hashable(offsets: Shape) -> bytes:
    """A part's offsets as a key of a dict: a file could choose numbers whose hashes are equal."""
    return array("q", offsets).tobytes()


def _text(offsets: bytes | None) -> str:
    return "no offset" if offsets is None else str(list(array("q", offsets)))


def is_readable(tensor: SavedTensor) -> bool:
    """Whether its elements are of a type that is read."""
    return tensor.type_name in DTYPES
