"""Renaming the tensors of a file in the file itself: its header or its pickle is written anew, its
tensors stay where they are.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from ckpt_tool.engine.durable.file import plain_errors
from ckpt_tool.engine.filling import Job
from ckpt_tool.engine.in_place.changes import renamed_archive, renamed_header, with_pickle
from ckpt_tool.engine.in_place.journal import Change, change_in_place
from ckpt_tool.engine.run import Written, check_unchanged, labels
from ckpt_tool.engine.sources import moved_tensors
from ckpt_tool.engine.whole.archive import root_of
from ckpt_tool.engine.whole.write import Whole, new_pickle
from ckpt_tool.errors import FormatError, OutputError
from ckpt_tool.formats.archives.zip_directory import read_directory

if TYPE_CHECKING:
    from ckpt_tool.formats import Checkpoint

CHANGERS = {"safetensors": ("safetensors", renamed_header), "torch zip": ("torch", renamed_archive)}


def rename_in_place(job: Job, source: Checkpoint) -> Written:
    """Gives the tensors of a safetensors file or a torch zip their new names, at a cost that
    doesn't depend on their size.

    A process that is killed leaves the old names or the new ones, or a journal beside the file, by
    which the next rename restores it. Raises OutputError where the plan does more than to rename,
    and where the file can't be changed in place.
    """
    origins = {key: origin.key for key, origin in moved_tensors(job.plan, source, None).items()}
    _check_plan(job, source, origins)
    _check_file(source)
    lost = _lost(source)
    if lost is not None:
        raise OutputError(
            source.path,
            f"holds more than one state dict's tensors, and `{lost}` would be lost",
            "write a new file with -o",
        )
    kind, changed = CHANGERS[source.format]
    change = changed(source, {origins[key]: key for key in job.plan.outputs}, labels(job, kind))
    return _changed(job, source, kind, change)


def rename_whole_in_place(job: Job, whole: Whole) -> Written:
    """The same for a training checkpoint, in which everything else stays as it is."""
    source = whole.source
    for part in whole.parts:
        if part.shares_tensors:
            _check_plan(replace(job, plan=part.plan), source, part.moved)
        elif part.plan.steps:
            raise OutputError(
                source.path,
                f"in place tensors are only renamed, and those of `{'.'.join(part.names)}` would "
                "be others",
                "write a new file with -o",
            )
    if whole.removed:
        raise OutputError(
            source.path,
            f"would lose `{'.'.join(whole.removed[0])}`, which does not fit the new names",
            "write a new file with -o",
        )
    _check_file(source)
    archive = read_directory(source.files[0])
    change = with_pickle(source, root_of(archive), new_pickle(whole, source.path).content)
    return replace(_changed(job, source, "torch", change), is_whole=True)


def _changed(job: Job, source: Checkpoint, kind: str, change: Change) -> Written:
    size = change_in_place(
        source.files[0].path, change, lambda status: _check_is_read(job, source, status)
    )
    renamed = sum(step.inputs != step.outputs for step in job.plan.steps)
    count = len(job.plan.outputs)
    return Written(source.path, kind, count, size, (), in_place=True, renamed=renamed)


def _check_is_read(job: Job, source: Checkpoint, status: os.stat_result) -> None:
    """Raises FormatError where the file is another than the one that was read, or has changed since
    then.
    """
    check_unchanged(job)
    if (status.st_dev, status.st_ino) != source.files[0].stamp[:2]:
        raise FormatError(
            source.path,
            "was replaced by another one while it was read",
            "nothing was written; try again",
        )


def _check_plan(job: Job, source: Checkpoint, origins: dict[str, str]) -> None:
    plan, path = job.plan, source.path
    for keys, what in ((plan.dropped, "is dropped"), (plan.kept, "is kept from the target")):
        if keys:
            raise OutputError(
                path,
                f"in place tensors are only renamed, and `{keys[0]}` {what}",
                "write a new file with -o",
            )
    for key in plan.outputs:
        if key not in origins:
            raise OutputError(
                path,
                f"in place tensors are only renamed, and `{key}` is computed",
                "write a new file with -o",
            )
    twice = [key for key, count in Counter(origins.values()).items() if count > 1]
    if twice:
        raise OutputError(
            path,
            f"in place tensors are only renamed, and `{twice[0]}` is copied",
            "write a new file with -o",
        )


def _check_file(source: Checkpoint) -> None:
    """Raises OutputError for a file that can't be renamed in place, or would lose something."""
    path = source.path
    if source.format not in CHANGERS or len(source.files) != 1:
        raise OutputError(
            path, f"is {source.format}, which can't be renamed in place", "write a new file with -o"
        )
    with plain_errors(path, 0):
        names = os.stat(source.files[0].path).st_nlink
    if names > 1:
        raise OutputError(
            path,
            "has a second name, a hard link, that would change too",
            "write a new file with -o",
        )


def _lost(source: Checkpoint) -> str | None:
    """The first thing that a file holds beside the whole of one state dict."""
    for extra in source.extras:
        if extra.kind != "note":
            return extra.path or "what else the file holds"
    if source.contents.elsewhere:
        return source.contents.elsewhere[0].key
    return source.contents.taken or None
