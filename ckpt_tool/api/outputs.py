"""What becomes of a plan: written, renamed in place, verified."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from ckpt_tool.api.next_steps.refused import with_next
from ckpt_tool.api.options import How
from ckpt_tool.api.planning import Planned, planned
from ckpt_tool.api.requirements import with_values
from ckpt_tool.api.sides import files_read, path_of
from ckpt_tool.errors import InputError, RuleError
from ckpt_tool.formats import open_checkpoint

if TYPE_CHECKING:
    from ckpt_tool.engine import Mismatch, Written


def write(
    work: Planned,
    output: str | os.PathLike[str] | None,
    force: bool = False,
    checksum: bool = False,
    shard_bytes: int | None = None,
    tell: Callable[[int], None] = lambda nbytes: None,
    jobs: int | None = None,
) -> Written:
    """Writes what a plan says: to a file, or with `shard_bytes` to a folder of files of at most so many bytes.

    `checksum` asks for the SHA-256 of what is written; `tell` hears how many bytes were; `jobs` threads copy at a time.
    Raises RuleError for the plan's problems, OutputError for what can't be written.
    """
    from ckpt_tool.engine import Job, write_checkpoint

    plan = work.checked()
    path = path_of(output) or (work.rules.output if work.rules else None)
    if not path:
        raise InputError("-o", "no output is given, and no rule file names one")
    needs_target = plan.kept or any(getattr(op, "needs_target", False) for step in plan.steps for op in step.ops)
    if needs_target and work.target is not None:
        with_values(work.target, "for the keys that are kept")
    if plan.steps:
        with_values(work.source, "to map")
    others = tuple(files_read([work.source.path, work.target_path], work.rules)) if force else ()
    job = Job(plan, work.source, work.target, force, checksum, tell, jobs, others)
    if shard_bytes is None:
        return write_checkpoint(job, path)
    if shard_bytes < 1:
        raise InputError("shard_bytes", f"{shard_bytes} is no size for a file", "give bytes, 5_000_000_000 say")
    from ckpt_tool.engine import write_sharded

    return write_sharded(job, path, shard_bytes)


def rename(work: Planned) -> Written:
    """Gives the source's tensors their new names in its own file. Raises RuleError and OutputError, and leaves the file as it was."""
    from ckpt_tool.engine import Job, rename_in_place

    return rename_in_place(Job(work.checked(), work.source), work.source)


def verify(work: Planned, output: str) -> tuple[Mismatch, ...]:
    """The keys of a written checkpoint that are not what the plan says. Raises RuleError where there is no plan."""
    from ckpt_tool.engine import verify_output

    plan = work.checked()
    with open_checkpoint(output) as written:
        for side in (written, work.source, *((work.target,) if work.target else ())):
            with_values(side)
        return verify_output(plan, work.source, work.target, written)


def map_checkpoint(
    source: str | os.PathLike[str] | None,
    target: str | os.PathLike[str] | None,
    output: str | os.PathLike[str] | None,
    how: How | None = None,
    force: bool = False,
    shard_bytes: int | None = None,
) -> Written:
    """Maps `source` onto `target`'s keys and writes `output`: the one-call form of `ckpt map`.

    Raises RuleError, whose `next` are fields of a `How` with which it goes through, where some are known; OutputError, InputError.
    """
    with planned(source, target, how or How()) as work:
        if work.plan is None:
            raise with_next(RuleError(work.problems, work.tally), work.source, work.target, how or How())
        return write(work, output, force, shard_bytes=shard_bytes)
