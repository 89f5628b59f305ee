"""The way on where an optimizer's state can't follow: which parameters would begin without one."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

from ckpt_tool.api.next_steps.commands import WayOn, arguments, command
from ckpt_tool.api.options import MappingOptions
from ckpt_tool.api.planning import Planned
from ckpt_tool.api.whole.form import Form
from ckpt_tool.errors import CkptError, RuleError
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


def way_on_from(planned: Planned, options: MappingOptions, error: RuleError, *more: str) -> WayOn:
    """The same command with what the error's `next` adds; `more` are words that it ends with."""
    fresh = error.next.get("fresh_optimizer")
    sides = [planned.source.path, *([planned.target_path] if planned.target_path else [])]
    if not isinstance(fresh, list) or STDIN in sides:
        return WayOn()
    words = [word for pattern in fresh for word in ("--fresh-optimizer", str(pattern))]
    return WayOn(command("map", sides, *arguments(options), *more, *words))
