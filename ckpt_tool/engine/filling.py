"""One pass over the source that fills the output's files, as many as there are."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ckpt_tool.engine.copying import write_at
from ckpt_tool.engine.layouts.layout import Layout, OutputTensor
from ckpt_tool.engine.moving import OpenOutput, move_tensors
from ckpt_tool.engine.sources import ByteSource, TensorSource, computed_tensors
from ckpt_tool.frozen import frozen

if TYPE_CHECKING:
    from ckpt_tool.engine.team import Team
    from ckpt_tool.mapping.plan import Plan

Progress = Callable[[int], None]
"""Hears how many bytes more have been written, maybe from another thread."""
Computes = Callable[[Collection[str]], Iterable[tuple[str, memoryview]]]
"""Gives the bytes of those among some tensors that are computed."""


@frozen
class Job:
    """A plan with what it reads, and how its output is to be written.

    `replace` allows to replace a file that exists; `checksum` asks for the SHA-256 of what was
    written, which is read again for it; `on_progress` hears of each tensor that was written. `jobs`
    threads copy at a time, by default one for each processor, and at most four. `others` are files
    that were read besides the two checkpoints, such as rules. `team` are the processes that write
    the output's files together.
    """

    plan: Plan
    source: TensorSource
    target: TensorSource | None = None
    replace: bool = False
    checksum: bool = False
    on_progress: Progress = lambda nbytes: None
    jobs: int | None = None
    others: tuple[str, ...] = ()
    team: Team | None = None


@frozen
class OutputFile:
    """What lies where in a file that is to be written."""

    format: str
    members: Sequence[OutputTensor]
    layout: Layout

    @property
    def ties(self) -> tuple[tuple[str, str], ...]:
        """The keys that share a tensor, with the key that they share it with."""
        return tuple((member.info.key, member.tied_to) for member in self.members if member.tied_to)

    @property
    def stored(self) -> list[str]:
        """The keys whose tensors take bytes of their own, in the order of the members."""
        return [
            member.info.key
            for member in self.members
            if member.tied_to is None or not self.layout.shares_tensors
        ]


def fill(
    job: Job,
    origins: Mapping[str, ByteSource],
    files: Sequence[tuple[int, OutputFile]],
    computes: Computes | None = None,
) -> None:
    """Fills open files: what moves in the order in which it lies in the source, what is computed
    meanwhile, by the job's plan where nothing else `computes`.

    Raises what reading, the ops and writing raise.
    """
    places = {key: OpenOutput(fd, file.layout) for fd, file in files for key in file.stored}
    sizes = {member.info.key: member.info.nbytes for _, file in files for member in file.members}
    for fd, file in files:
        for offset, content in file.layout.head():
            write_at(fd, content, offset)
    computes = computes or (
        lambda wanted: computed_tensors(job.plan, job.source, job.target, wanted)
    )
    checksums = _fill_tensors(
        job, origins, places, computes, lambda key: job.on_progress(sizes[key])
    )
    for fd, file in files:
        for offset, content in file.layout.tail(checksums):
            write_at(fd, content, offset)


def _fill_tensors(
    job: Job,
    origins: Mapping[str, ByteSource],
    places: Mapping[str, OpenOutput],
    computes: Computes,
    done: Callable[[str], None],
) -> dict[str, int]:
    moves = sorted(
        [(key, origin) for key, origin in origins.items() if key in places],
        key=lambda move: _order(move[1]),
    )
    left = places.keys() - origins.keys()
    if not left:
        return move_tensors(places, moves, done, job.jobs or min(_processors(), 4))
    from ckpt_tool.engine.writer import fill_side_by_side

    return fill_side_by_side(places, moves, computes(left), done)


def _processors() -> int:
    """Those that this process may use; macOS can't give a process a part of them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _order(origin: ByteSource) -> tuple[str, int]:
    extents = origin.checkpoint.extents(origin.key)
    return (extents[0].file.path, extents[0].offset) if extents else (origin.checkpoint.path, -1)
