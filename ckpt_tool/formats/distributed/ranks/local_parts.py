"""Where a process's part stands in a tensor that is spread over several: how dimensions are cut.

The laws are those of torch/distributed/tensor/placement_types.py: `Shard` cuts as torch.chunk does,
so that the last parts are smaller or empty; `_StridedShard` stands for another mesh dimension that
has cut the same one before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, product
from math import prod

from ckpt_tool.formats.distributed.rank_files import MAX_RANKS
from ckpt_tool.regions import Region
from ckpt_tool.tensors import Shape, shape_text

MAX_BOXES = 512
"""Pieces that one process's part of a tensor may have: as many as the other mesh dimensions have
processes.
"""


class PartFault(Exception):
    """Why a part can't be placed, in words that follow the tensor's name."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What one mesh dimension does to one of the tensor's: into `count` parts, of which this is
    number `index`; in each of `factor` pieces by itself, where another one has cut before.
    """

    dim: int
    count: int
    index: int
    factor: int = 1


Run = tuple[int, int]
"""Indexes that stand one after the other: the first, and how many."""
Boxes = tuple[tuple[Region, Region], ...]
"""Boxes of the whole, each with its box in the local part."""
_Order = Callable[[list[Run], list[Cut]], list[Run]]


def boxes_by_law(
    shape: Shape, cuts: Sequence[Cut], local: Shape
) -> tuple[Boxes | None, Boxes | None]:
    """The boxes of the whole that a local part of this shape holds: by the law of torch's
    placements, and by that of FSDP2 over tensor parallelism; None for one by which it had another
    shape.

    The laws differ where sizes are uneven, and then in the shape of some process's part: of all
    parts together one law is true. Raises PartFault where none is.
    """
    first = _by_dimension(shape, cuts, _in_order)
    boxes = _boxes(first) if _shape(first) == local else None
    others = boxes
    if any(cut.factor > 1 for cut in cuts):
        second = _by_dimension(shape, cuts, _inner_first)
        if second != first:
            others = _boxes(second) if _shape(second) == local else None
    if boxes is others is None:
        raise PartFault(
            f"has a local part of {shape_text(local)}, where its mesh and placements give "
            f"{shape_text(_shape(first))} of {shape_text(shape)}"
        )
    return boxes, others


def _boxes(by_dim: list[list[Run]]) -> Boxes:
    """All combinations of the runs, each with its box in the part."""
    if not all(by_dim):
        return ()
    if prod(map(len, by_dim)) > MAX_BOXES:
        raise PartFault(f"has a local part in more than {MAX_BOXES:,} boxes")
    starts = [[0, *accumulate(count for _, count in runs)] for runs in by_dim]
    found = []
    for picked in product(*(range(len(runs)) for runs in by_dim)):
        chosen = [by_dim[dim][at] for dim, at in enumerate(picked)]
        size = tuple(count for _, count in chosen)
        inside = tuple(starts[dim][at] for dim, at in enumerate(picked))
        found.append((Region(tuple(start for start, _ in chosen), size), Region(inside, size)))
    return tuple(found)


def _shape(by_dim: list[list[Run]]) -> Shape:
    return tuple(sum(count for _, count in runs) for runs in by_dim)


def _by_dimension(shape: Shape, cuts: Sequence[Cut], order: _Order) -> list[list[Run]]:
    if prod(cut.factor for cut in cuts) > MAX_BOXES:
        raise PartFault(f"is cut in more than {MAX_BOXES:,} pieces by each process")
    found = [[(0, extent)] if extent else [] for extent in shape]
    for dim in {cut.dim for cut in cuts}:
        own = [cut for cut in cuts if cut.dim == dim]
        found[dim] = _merged(order([(0, shape[dim])], own))
    return found


def _in_order(runs: list[Run], cuts: list[Cut]) -> list[Run]:
    """torch's own law: the mesh dimensions from left to right."""
    for cut in cuts:
        pieces = _chunks(runs, cut.factor)
        runs = [run for piece in pieces for run in _chunk(piece, cut.count, cut.index)]
    return runs


def _inner_first(runs: list[Run], cuts: list[Cut]) -> list[Run]:
    """What FSDP2 does over tensor parallelism: the right mesh dimension has cut first."""
    first, last = cuts[0], cuts[1:]
    if not last or first.factor != prod(cut.count for cut in last):
        return _in_order(runs, cuts)
    return _chunk(_inner_first(runs, last), first.count, first.index)


def _chunks(runs: list[Run], count: int) -> list[list[Run]]:
    return [_chunk(runs, count, index) for index in range(count)]


def _chunk(runs: list[Run], count: int, index: int) -> list[Run]:
    """One of the parts of torch.chunk, behind which empty ones follow."""
    total = sum(size for _, size in runs)
    size = -(-total // count)
    return list(_taken(runs, min(index * size, total), min((index + 1) * size, total)))


def _taken(runs: Iterable[Run], start: int, end: int) -> Iterator[Run]:
    at = 0
    for first, count in runs:
        low, high = max(start, at), min(end, at + count)
        if low < high:
            yield first + low - at, high - low
        at += count


def _merged(runs: Iterable[Run]) -> list[Run]:
    found: list[Run] = []
    for first, count in runs:
        if found and sum(found[-1]) == first:
            found[-1] = (found[-1][0], found[-1][1] + count)
        else:
            found.append((first, count))
    return found


def check_factor(factor: object) -> int:
    """A split factor. Raises PartFault for what is none."""
    if type(factor) is not int or not 1 <= factor <= MAX_RANKS:
        raise PartFault(f"has a _StridedShard with the split factor {factor!r}"[:120])
    return factor
