"""What stands in a `.metadata` once for each part of a tensor, as small values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class SavedChunk:
    """A `ChunkStorageMetadata`: a part of a tensor. Unchecked, as are the others."""

    offsets: object
    sizes: object


@dataclass(slots=True, eq=False)
class SavedIndex:
    """A `MetadataIndex`: the name of a part, which is its tensor's and where it begins in it."""

    key: object
    offsets: object


@dataclass(slots=True, eq=False)
class SavedRange:
    """A `_StorageInfo`: the bytes of a part, `length` from `offset` on in the file `name`."""

    name: object
    offset: object
    length: object
