"""What becomes of a plan: written, renamed in place, verified."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar, get_args

from ckpt_tool.api.next_steps.refused import with_next
from ckpt_tool.api.options import Format, MappingOptions
from ckpt_tool.api.planning import Planned, plan_checkpoint
from ckpt_tool.api.remarks.views import views_noted
from ckpt_tool.api.requirements import with_values
from ckpt_tool.api.sides import files_read, path_of
from ckpt_tool.api.whole.folders import changed_folder, is_folder_wanted
from ckpt_tool.api.whole.form import (
    PLAIN,
    Changed,
    Form,
    for_output,
    is_training,
    whole_of,
    why_not_whole,
)
from ckpt_tool.api.whole.refused import with_fresh
from ckpt_tool.errors import InputError, OutputError, RuleError
from ckpt_tool.formats import Checkpoint, open_checkpoint
from ckpt_tool.formats.opening import split_fragment
from ckpt_tool.formats.remote.addresses import is_address, scheme_of
from ckpt_tool.watching import Watch, unwatched

if TYPE_CHECKING:
    from ckpt_tool.api.sides import Given
    from ckpt_tool.engine import Job, Mismatch, Written
    from ckpt_tool.engine.team import Team
    from ckpt_tool.mapping import Plan

FORMATS = get_args(Format)
T = TypeVar("T")


def write(
    planned: Planned,
    output: str | os.PathLike[str] | None,
    force: bool = False,
    checksum: bool = False,
    shard_bytes: int | None = None,
    on_progress: Callable[[int], None] = lambda nbytes: None,
    jobs: int | None = None,
    to: str | None = None,
    team: Team | None = None,
    form: Form = PLAIN,
) -> Written:
    """Writes what a plan says: to a file, or with `shard_bytes` to a folder of files of at most so
    many bytes. `to` is the format (`FORMATS`), where the output's name does not tell it; of `dcp`
    the output is a folder. `form` says whether a training checkpoint is written as a whole.

    `checksum` asks for the SHA-256 of what is written; `on_progress` is called with the
    bytes of each piece; `jobs`
    threads copy at a time; `team` are the processes among which the files of a folder are divided.
    Raises RuleError for the plan's problems, OutputError for what can't be
    written.
    """
    from ckpt_tool.engine import Job, write_whole, write_whole_folder

    plan = planned.checked()
    path = path_of(output) or (planned.rules.output if planned.rules else None)
    if not path:
        raise InputError("-o", "no output is given, and no rule file names one")
    refuse_address(path)
    _check_values(plan, planned)
    _fetch(plan, planned)
    others = tuple(files_read(planned.paths, planned.rules)) if force else ()
    heard = team.summed(on_progress) if team else on_progress
    job = Job(plan, planned.source, planned.target, force, checksum, heard, jobs, others, team)
    if shard_bytes is not None and shard_bytes < 1:
        raise InputError(
            "--max-shard-size",
            f"{shard_bytes} is not a size for a file",
            "give bytes, for example 5_000_000_000",
        )
    alone = replace(job, team=None)
    asked, form = form, for_output(planned, form, path)
    if is_folder_wanted(planned, form, path, bool(to or shard_bytes)):
        with _opened(partial(changed_folder, planned), form) as folder:
            written = _led(team, partial(write_whole_folder, alone, folder.whole, path))
            return replace(written, notes=folder.notes)
    is_torch_file = shard_bytes is None and _is_torch(path, to)
    opens = partial(whole_of, planned, is_torch_file=is_torch_file)
    with _opened(opens, form) as changed:
        if changed is not None:
            return _told(_led(team, partial(write_whole, alone, changed.whole, path)), changed)
        written = _write(job, path, shard_bytes, to)
    notes = _notes_on_form(planned, asked, is_torch_file, form is asked)
    return replace(written, notes=(*notes, *views_noted(plan)))


@contextmanager
def _opened(opens: Callable[[Form], AbstractContextManager[T]], form: Form) -> Iterator[T]:
    """What is to be written. Raises RuleError that says what goes through, where that is known."""
    with ExitStack() as stack:
        try:
            found = stack.enter_context(opens(form))
        except RuleError as error:
            raise with_fresh(error, form, opens) from None
        yield found


def _led(team: Team | None, make: Callable[[], Written]) -> Written:
    """What one process writes for all."""
    return team.lead(make) if team else make()


def _is_torch(path: str, to: str | None) -> bool:
    from ckpt_tool.engine import output_format

    return to not in ("dcp", "safetensors") and output_format(path, to) == "torch"


def _notes_on_form(
    planned: Planned, form: Form, is_torch_file: bool, is_alike: bool
) -> tuple[str, ...]:
    """Why what is beside the weights stays behind, where nobody asked for that."""
    is_file = is_training(planned.source) and not split_fragment(planned.source.path)[1]
    if not (is_file and is_torch_file) or form.whole is not None:
        return ()
    fault = why_not_whole(planned)
    if planned.target is not None:
        is_told = not fault and _has_optimizer(planned.source)
        fault = "the target is bare; --whole writes all, the optimizer too" if is_told else None
    elif not fault and not is_alike:
        ending = os.path.splitext(planned.source.path)[1]
        fault = f"an output named {ending or 'alike'} would keep all; --whole keeps it here"
    return (f"the weights alone are written: {fault}",) if fault else ()


def _has_optimizer(source: object) -> bool:
    left = source.contents.left_behind if isinstance(source, Checkpoint) else ()
    return any(one.kind == "optimizer" for one in left)


def _told(written: Written, changed: Changed) -> Written:
    """What was written, with what is to be said of the training checkpoint."""
    return replace(written, beside=changed.beside, left=changed.left, notes=changed.notes)


def _write(job: Job, path: str, shard_bytes: int | None, to: str | None) -> Written:
    from ckpt_tool.engine import write_checkpoint, write_dcp, write_sharded

    if to is not None and to not in FORMATS:
        raise InputError("--to", f"{to!r} is not a format", f"say {', '.join(FORMATS)}")
    if to == "dcp" or shard_bytes is not None:
        _check_folder_name(path, "--max-shard-size" if shard_bytes is not None else "--to dcp")
    if to == "dcp":
        return write_dcp(job, path, shard_bytes)
    if shard_bytes is None:
        return _led(job.team, partial(write_checkpoint, job, path, to))
    if to == "torch":
        raise InputError(
            "--to",
            "torch files are not written in shards",
            "leave out the size, or write safetensors",
        )
    return write_sharded(job, path, shard_bytes)


def _check_folder_name(path: str, option: str) -> None:
    """Raises OutputError for the name of a file where a new folder is to be written."""
    from ckpt_tool.engine.run import SUFFIXES

    kind = SUFFIXES.get(os.path.splitext(path)[1].lower())
    if kind and not os.path.isdir(path):
        fact = f"has the name of a {kind} file, and {option} writes a folder"
        raise OutputError(path, fact, f"name a folder, or leave out {option}")


def _check_values(plan: Plan, planned: Planned, purpose: str = "to map") -> None:
    """Raises InputError where values are needed of a side that has none; `purpose` says what the
    source's are needed for.
    """
    ops = (op for step in plan.steps for op in step.ops)
    needs_target = plan.kept or any(getattr(op, "needs_target", False) for op in ops)
    if needs_target and planned.target is not None:
        with_values(planned.target, "for the keys that are kept")
    if plan.steps:
        with_values(planned.source, purpose)


def refuse_address(path: str) -> None:
    """Raises OutputError for an output that is no file here."""
    if is_address(path):
        if scheme_of(path) == "file":
            from ckpt_tool.formats.remote.places import path_in

            hint = f"give the path {path_in(path)}"
            raise OutputError(path, "is an address, and outputs are paths", hint)
        raise OutputError(
            path, "is an address, and outputs are files here", "write a file, and copy it there"
        )


def refuse_as_target(path: str | None, has_output: bool) -> None:
    """Raises InputError for what stands in a target's place, is not there, and has the name of an
    output, where no other output is given.
    """
    from ckpt_tool.api.next_steps.commands import SUFFIXES

    if path is None or has_output:
        return
    location = split_fragment(path)[0]
    is_named = os.path.splitext(location)[1].lower() in SUFFIXES
    if is_named and not is_address(path) and not os.path.lexists(location):
        hint = f"a target exists already; an output is given with `-o {path}`"
        raise InputError(path, "no such file", hint)


def _fetch(plan: Plan, planned: Planned) -> None:
    """Brings what the plan reads here, where it lies elsewhere, before anything is written."""
    if isinstance(planned.source, Checkpoint):
        planned.source.fetch(key for step in plan.steps for key in step.inputs)
    if isinstance(planned.target, Checkpoint):
        planned.target.fetch(plan.kept)


def rename(planned: Planned, form: Form = PLAIN) -> Written:
    """Gives the source's tensors their new names in its own file. Raises RuleError and OutputError,
    and leaves the file as it was.
    """
    from ckpt_tool.engine import Job, rename_in_place, rename_whole_in_place

    job, source = Job(planned.checked(), planned.source), planned.source
    if form.whole is False:
        raise InputError("--only-weights", "would lose what else the file holds, in place")
    is_whole = form.whole or bool(form.also) or is_training(source)
    if not is_whole or why_not_whole(planned):
        return rename_in_place(job, source)
    with whole_of(planned, replace(form, whole=True), True) as changed:
        assert changed is not None
        return _told(rename_whole_in_place(job, changed.whole), changed)


def verify(
    planned: Planned, output: str | os.PathLike[str], watch: Watch = unwatched
) -> tuple[Mismatch, ...]:
    """The keys of a written checkpoint that are not what the plan says. Raises RuleError where
    there is no plan.
    """
    from ckpt_tool.engine import verify_output

    plan = planned.checked()
    with open_checkpoint(output) as written:
        with_values(written)
        _check_values(plan, planned, "to compare")
        with watch(written.catalog.nbytes) as on_progress:
            return verify_output(plan, planned.source, planned.target, written, on_progress)


def map_checkpoint(
    source: Given | None,
    target: Given | None,
    output: str | os.PathLike[str] | None,
    options: MappingOptions | None = None,
    force: bool = False,
    shard_bytes: int | None = None,
    to: str | None = None,
) -> Written:
    """Maps `source` onto `target`'s keys and writes `output`: the one-call form of `ckpt map`.

    Raises RuleError, whose `next` are fields of a `How` with which it goes through, where some are
    known; OutputError, InputError.
    """
    with plan_checkpoint(source, target, options or MappingOptions()) as planned:
        if planned.plan is None:
            raise with_next(
                RuleError(planned.problems, planned.tally),
                planned.source,
                planned.target,
                options or MappingOptions(),
            )
        return write(planned, output, force, shard_bytes=shard_bytes, to=to)
