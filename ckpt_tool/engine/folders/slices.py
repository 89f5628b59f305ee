"""Tensors that are stored in slices, each in another file perhaps: rows of an output tensor, as the
engine moves or computes tensors of their own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ckpt_tool.engine.sources import ByteSource, computed_tensors
from ckpt_tool.frozen import frozen
from ckpt_tool.regions import Region
from ckpt_tool.tensors import Catalog, TensorInfo

if TYPE_CHECKING:
    from ckpt_tool.engine.filling import Computes, Job
    from ckpt_tool.engine.sources import TensorSource
    from ckpt_tool.formats import Extent


@frozen
class Slice:
    """A box of the output tensor `whole` whose bytes lie side by side, `start` bytes after its
    first; `number` counts those of one tensor. `info` describes it under a name of its own, which
    for a whole tensor is its key.
    """

    whole: TensorInfo
    info: TensorInfo
    region: Region
    number: int
    start: int


def slices_of(outputs: Catalog, most: int) -> Iterator[Slice]:
    """The tensors in their order; one of more than `most` bytes in slices of at most so many. Of
    elements below a byte all tensors are whole.
    """
    for info in outputs.values():
        size = info.dtype.itemsize
        if info.nbytes <= most or not size:
            yield Slice(info, info, Region.whole(info.shape), 0, 0)
            continue
        start = 0
        for number, region in enumerate(Region.whole(info.shape).bands(max(most // size, 1))):
            name = f"{info.key}\0{number}"
            one = TensorInfo(name, info.dtype, region.shape)
            yield Slice(info, one, region, number, start)
            start += one.nbytes


def origins_of(slices: Iterable[Slice], origins: Mapping[str, ByteSource]) -> dict[str, ByteSource]:
    """Where the bytes of each slice come from, where its tensor moves unchanged."""
    found = {}
    for one in slices:
        origin = origins.get(one.whole.key)
        if origin is None:
            continue
        is_whole = one.info.key == one.whole.key
        found[one.info.key] = origin if is_whole else ByteSource(_Rows(origin, one), one.info.key)
    return found


def computes_of(job: Job, slices: Iterable[Slice]) -> Computes:
    """What gives the bytes of those among some slices that are computed, a whole tensor at a
    time.
    """
    by_tensor: dict[str, list[Slice]] = {}
    for one in slices:
        by_tensor.setdefault(one.whole.key, []).append(one)

    def computes(wanted: Collection[str]) -> Iterator[tuple[str, memoryview]]:
        keys = {key for key, some in by_tensor.items() if any(s.info.key in wanted for s in some)}
        for key, content in computed_tensors(job.plan, job.source, job.target, keys):
            for one in by_tensor[key]:
                if one.info.key in wanted:
                    yield one.info.key, content[one.start : one.start + one.info.nbytes]

    return computes


class _Rows:
    """A slice of a tensor that moves, as a checkpoint of one tensor."""

    def __init__(self, origin: ByteSource, one: Slice) -> None:
        self.origin, self.one = origin, one
        self.path, self.files = origin.checkpoint.path, origin.checkpoint.files
        self.catalog = Catalog([one.info])
        self.metadata: Mapping[str, str] = {}
        self.versions: Mapping[str, Mapping[str, object]] = {}

    def check(self, keys: Iterable[str]) -> None:
        """That of the whole tensor."""
        self.origin.checkpoint.check((self.origin.key,))

    def extent(self, key: str) -> Extent | None:
        found = self.extents(key)
        return found[0] if len(found) == 1 else None

    def extents(self, key: str) -> tuple[Extent, ...]:
        """Those of the tensor, cut; what was a checksum of all of it is one of these no more."""
        begin, end = self.one.start, self.one.start + self.one.info.nbytes
        found, offset = [], 0
        for extent in self.origin.checkpoint.extents(self.origin.key):
            first, last = max(begin - offset, 0), min(end - offset, extent.length)
            if first < last:
                is_all = (first, last) == (0, extent.length)
                cut = replace(extent, offset=extent.offset + first, length=last - first, crc32=None)
                found.append(extent if is_all else cut)
            offset += extent.length
        return tuple(found)

    def chunks(self, key: str) -> Iterator[bytes]:
        begin, end = self.one.start, self.one.start + self.one.info.nbytes
        offset = 0
        for chunk in self.origin.checkpoint.chunks(self.origin.key):
            if offset < end and offset + len(chunk) > begin:
                yield chunk[max(begin - offset, 0) : end - offset]
            offset += len(chunk)


def check_sliced(slices: Iterable[Slice], origins: Mapping[str, ByteSource]) -> None:
    """Raises FormatError where the bytes of a tensor that is cut are not those of its checksum,
    which no slice has.
    """
    cut = {one.whole.key for one in slices if one.number}
    by_source: dict[int, tuple[TensorSource, list[str]]] = {}
    for key in cut & origins.keys():
        origin = origins[key]
        by_source.setdefault(id(origin.checkpoint), (origin.checkpoint, []))[1].append(origin.key)
    for checkpoint, keys in by_source.values():
        checkpoint.check(keys)
