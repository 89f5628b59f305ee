"""Problems and errors as people read them: the fact, the place in its line, what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from ckpt_tool.errors import CkptError, InputError, Problem, RuleError
from ckpt_tool.report.parts.style import PLAIN, Style, plural, safe
from ckpt_tool.report.parts.table import width_of

if TYPE_CHECKING:
    from ckpt_tool.api import Planned, WayOn

LONG_LINE = 400
"""Columns of a rule file's line that are shown at most."""
MIN_ROOM = 20
"""And at least, however narrow a terminal is."""


def error_text(error: CkptError, style: Style = PLAIN) -> str:
    """Any of our errors: a line for what can't be used, a block for each problem of rules."""
    if isinstance(error, RuleError):
        return problems_text(error.problems, style)
    if isinstance(error, InputError):
        place = f": {safe(error.place)}" if error.place else ""
        hint = f"; {safe(error.hint)}" if error.hint else ""
        return f"{style.paint('error', 'red')}: {safe(error.path)}{place}: {safe(error.fact)}{hint}"
    return f"{style.paint('error', 'red')}: {safe(str(error))}"


def problems_text(problems: Iterable[Problem], style: Style = PLAIN) -> str:
    """A block for each problem, and how many there are."""
    listed = list(problems)
    blocks = [_block(problem, style) for problem in listed]
    if len(listed) > 1:
        blocks.append(f"{len(listed)} problems")
    return "\n\n".join(blocks)


def refusal_text(
    planned: Planned, onwards: WayOn, style: Style = PLAIN, conclusion: str = ""
) -> str:
    """Every problem, what the files are, how far it would have come, what did not happen, and the
    command to go on with.
    """
    closing = "; ".join(
        text for text in (str(planned.tally) if planned.tally else "", conclusion) if text
    )
    about = "\n".join(f"{style.paint('note', 'yellow')}: {safe(line)}" for line in planned.layouts)
    return "\n\n".join(
        text
        for text in (problems_text(planned.problems, style), about, closing, way_on_text(onwards))
        if text
    )


def way_on_text(onwards: WayOn) -> str:
    """What is known of a way on, the command on the last line; nothing where there is none."""
    hint = f"hint: {safe(onwards.hint)}" if onwards.hint else ""
    return "\n".join(
        line for line in (hint, next_line(onwards.command) if onwards.command else "") if line
    )


def next_line(command: str) -> str:
    """The line with the command to go on with."""
    return f"next: {safe(command)}"


def notes_text(notes: Iterable[Problem], style: Style = PLAIN) -> str:
    """What is no fault and still worth a look, like problems but for the word."""
    return "\n\n".join(_block(note, style, "note", "yellow") for note in notes)


def concise_text(problem: Problem, is_note: bool = False) -> str:
    """One line a problem, for editors: `file:line:column: code: message`; a note says so before its
    code.
    """
    where = f"{safe(str(problem.where))}: " if problem.where else ""
    return f"{where}{'note: ' if is_note else ''}{problem.code}: {safe(problem.message)}"


def _block(problem: Problem, style: Style, word: str = "error", color: str = "red") -> str:
    lines = [f"{style.paint(f'{word}[{problem.code}]', color)}: {safe(problem.message)}"]
    where, margin = problem.where, " "
    if where:
        margin = " " * (len(str(where.line)) + 1)
        lines.append(f"{margin[:-1]}{style.paint('-->', 'blue')} {safe(str(where))}")
        if where.text:
            lines += _excerpt(where.line, where.text, where.column, where.length, margin, style)
    lines += [f"{margin}{style.paint('=', 'blue')} {safe(note)}" for note in problem.notes]
    return "\n".join(lines)


def _excerpt(
    line: int, text: str, column: int, length: int, margin: str, style: Style
) -> list[str]:
    room = LONG_LINE if style.width is None else max(style.width - len(margin) - 2, MIN_ROOM)
    signs = [style.text(safe(character)) for character in text]
    signs, begin, end = _clipped(
        signs, column - 1, column - 1 + length, min(room, LONG_LINE), style
    )
    bar = style.paint("|", "blue")
    carets = style.paint("^" * max(_columns(signs[begin:end]), 1), "red")
    number = style.paint(f"{line:>{len(margin) - 1}}", "blue")
    return [
        f"{margin}{bar}",
        f"{number} {bar} {''.join(signs)}",
        f"{margin}{bar} {' ' * _columns(signs[:begin])}{carets}",
    ]


def _columns(signs: Sequence[str]) -> int:
    """The columns of a terminal that characters take, each as it is written."""
    return sum(map(width_of, signs))


def _clipped(
    signs: list[str], begin: int, end: int, room: int, style: Style
) -> tuple[list[str], int, int]:
    """What of a long line is shown, with the place in it: from the line's beginning where the place
    is near it, else a quarter of the room before the place.
    """
    if _columns(signs) <= room:
        return signs, begin, end
    dots, start = style.text("…"), 0
    if _columns(signs[:end]) >= room:
        start = begin - _fitting(signs[:begin][::-1], room // 4)
    before = [dots] if start else []
    room -= _columns(before)
    shown, after = signs[start:], list[str]()
    if _columns(shown) > room:
        shown, after = shown[: _fitting(shown, room - width_of(dots))], [dots]
    begin, end = (at - start + len(before) for at in (begin, end))
    return [*before, *shown, *after], begin, min(end, len(before) + len(shown))


def _fitting(signs: Sequence[str], room: int) -> int:
    """How many of the first characters fit."""
    return sum(reached <= room for reached in accumulate(map(width_of, signs)))


def problem_json(problem: Problem) -> dict[str, object]:
    """A problem as JSON values, with its place."""
    where = problem.where
    return {
        "code": problem.code, "message": problem.message, "file": where.file if where else None,
        "line": where.line if where else None, "column": where.column if where else None,
        "notes": list(problem.notes),
    }  # fmt: skip


def check_json(
    rules: str, problems: Iterable[Problem], notes: Iterable[Problem] = ()
) -> dict[str, object]:
    """What a check found as JSON values."""
    listed = [problem_json(problem) for problem in problems]
    return {
        "schema": 1,
        "rules": rules,
        "sound": not listed,
        "problems": listed,
        "notes": [problem_json(note) for note in notes],
    }


def sound_text(name: str, rules: int, tests: int, source: str | None, target: str | None) -> str:
    """The line for rules without a problem; `source` and `target` are what they were
    checked against.
    """
    against = " and ".join(safe(side) for side in (source, target) if side)
    scope = f" for {against}" if against else "; no keys were given to check them against"
    return f"{safe(name)}: {plural(rules, 'rule')}, {plural(tests, 'test')}: sound{scope}"
