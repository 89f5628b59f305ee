"""Both sides opened, the plan drafted, and what becomes of it: written, loaded, verified."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckpt_tool.api.drafting import draft_open
from ckpt_tool.api.how import How
from ckpt_tool.api.long_names import check_names
from ckpt_tool.api.next_step import with_next
from ckpt_tool.api.rule_files import read_rules
from ckpt_tool.api.sides import files_read, label_of, open_source, open_target, path_of, refuse_rivals, target_of
from ckpt_tool.errors import InputError, Problem, RuleError, Tally
from ckpt_tool.formats import Checkpoint, LeftBehind, open_checkpoint

if TYPE_CHECKING:
    from ckpt_tool.engine import Mismatch, Written
    from ckpt_tool.engine.sources import TensorSource
    from ckpt_tool.mapping import Plan, RuleSet
    from ckpt_tool.tensors import Catalog


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan with the open checkpoints it is for. `problems` are the reasons why there is none, `tally` how far it would have come."""

    source: Checkpoint
    target: TensorSource | None
    rules: RuleSet | None
    plan: Plan | None
    problems: tuple[Problem, ...] = ()
    tally: Tally | None = None

    @property
    def target_path(self) -> str | None:
        return self.target.path if self.target else None

    @property
    def labels(self) -> tuple[str, str | None]:
        """What the sides are called, with the state dict that was taken where there are several."""
        target = label_of(self.target) if isinstance(self.target, Checkpoint) else self.target_path
        return label_of(self.source), target

    @property
    def target_catalog(self) -> Catalog | None:
        return self.target.catalog if self.target else None

    @property
    def left_behind(self) -> tuple[tuple[LeftBehind, ...], tuple[LeftBehind, ...]]:
        """What of the source's file and of the target's is outside of what is taken."""
        sides = (side.contents.left_behind if isinstance(side, Checkpoint) else () for side in (self.source, self.target))
        ours, theirs = sides
        return ours, theirs

    @property
    def layouts(self) -> tuple[str, ...]:
        """What kind of files the two sides are, where they are no whole models."""
        sides = (side for side in (self.source, self.target) if isinstance(side, Checkpoint) and side.contents.layout)
        return tuple(f"{side.path}: {side.contents.layout}" for side in sides)

    def checked(self) -> Plan:
        """The plan. Raises RuleError where there are problems."""
        if self.plan is None:
            raise RuleError(self.problems, self.tally)
        return self.plan


@contextmanager
def planned(
    source: str | os.PathLike[str] | None, target: str | os.PathLike[str] | None, how: How, in_place: bool = False
) -> Iterator[Planned]:
    """Opens both sides and drafts the plan; the checkpoints stay open inside the block.

    `source` and `target` may be left out where a rule file names them. `in_place` restores a source whose renaming in place was
    stopped before it is opened. Raises InputError for what can't be used, RuleError
    for rules that can't be understood; what doesn't fit is in `problems`.
    """
    rules = read_rules(how)
    source, target = path_of(source), path_of(target)
    if rules:
        source, target = source or rules.source, target or target_of(rules)
    if source is None:
        raise InputError("source", "no source is given, and no rule file names one", "ckpt map SOURCE TARGET, or `source:` in the rules")
    if in_place:
        from ckpt_tool.engine import restore

        restore(source)
    with ExitStack() as stack:
        ours = stack.enter_context(open_source(source, rules.unwrap if rules else ()))
        theirs = stack.enter_context(open_target(target)) if target else None
        if target and theirs:
            check_names(source, ours.catalog)
            check_names(target, theirs.catalog)
        try:
            for side in (ours, theirs):
                refuse_rivals(side)
            plan = draft_open(ours, theirs, rules, how)
        except RuleError as error:
            yield Planned(ours, theirs, rules, None, error.problems, error.tally)
        else:
            yield Planned(ours, theirs, rules, plan)


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
    if needs_target and work.target is not None and not getattr(work.target, "has_values", True):
        raise InputError(work.target.path, "is a key list: it has no values for the keys that are kept", "give a checkpoint")
    if plan.steps and not work.source.has_values:
        raise InputError(work.source.path, "is a key list: it has no values to map", "give a checkpoint")
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
            if not getattr(side, "has_values", True):
                raise InputError(side.path, "is a key list: it has no values to compare", "give a checkpoint")
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
