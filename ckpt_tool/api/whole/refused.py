"""The way on where an optimizer's state can't follow: which parameters would begin without one."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

from ckpt_tool.api.next_steps.commands import WayOn, arguments, command
from ckpt_tool.api.options import MappingOptions
from ckpt_tool.api.planning import Planned
from ckpt_tool.api.whole.folders import is_folder_wanted
from ckpt_tool.api.whole.form import Form, for_output, refuse_alone
from ckpt_tool.errors import CkptError, Problem, RuleError
from ckpt_tool.formats.opening import STDIN

_PATTERN = re.compile("--fresh-optimizer '([^']+)'")


def with_fresh(
    error: RuleError, form: Form, opens: Callable[[Form], AbstractContextManager[object]]
) -> RuleError:
    """The error with what to add, where the state of all else can follow then; `opens` tries it."""
    codes = {problem.code for problem in error.problems}
    notes = [note for problem in error.problems for note in problem.notes]
    patterns = dict.fromkeys(found for note in notes for found in _PATTERN.findall(note))
    if codes != {"optimizer-state"} or not patterns:
        return error
    fresh = (*form.fresh_optimizer, *patterns)
    try:
        with opens(replace(form, fresh_optimizer=fresh)):
            return RuleError(error.problems, error.tally, {"fresh_optimizer": list(fresh)})
    except CkptError:
        return error


def asked_again(
    planned: Planned, form: Form, output: str | None, has_format: bool
) -> tuple[Form, tuple[Problem, ...]]:
    """What of a form another command can ask for, where there is no plan yet; and the problems of
    patterns that match no key of the target. Raises InputError for what the output can't have.
    """
    from ckpt_tool.optimizers.refusals import matching_any

    path = output or (planned.rules.output if planned.rules else None) or ""
    asked = for_output(planned, form, path)
    if path and not is_folder_wanted(planned, asked, path, has_format):
        refuse_alone(planned, asked, is_torch_file=not path.endswith(".safetensors"))
    keys = list(planned.target.catalog) if planned.target else []
    problems: dict[str, tuple[Problem, ...]] = {}
    for pattern in form.fresh_optimizer if keys else ():
        try:
            matching_any((pattern,), keys)
        except RuleError as error:
            problems[pattern] = error.problems
    known = tuple(each for each in form.fresh_optimizer if each not in problems)
    found = (problem for each in problems.values() for problem in each)
    return replace(form, fresh_optimizer=known), tuple(found)


def way_on_from(planned: Planned, options: MappingOptions, error: RuleError, *more: str) -> WayOn:
    """The same command with what the error's `next` adds; `more` are words that it ends with."""
    fresh = error.next.get("fresh_optimizer")
    sides = [planned.source.path, *([planned.target_path] if planned.target_path else [])]
    if not isinstance(fresh, list) or STDIN in sides:
        return WayOn()
    words = [word for pattern in fresh for word in ("--fresh-optimizer", str(pattern))]
    return WayOn(command("map", sides, *arguments(options), *more, *words))
