"""Problems as GitHub shows them beside a line: its workflow commands, `::error file=…,line=…::…`.

The format is that of docs.github.com, "Workflow commands for GitHub Actions".
"""

import re
from collections.abc import Iterable

from ckpt_tool.errors import (
    CkptError,
    InputError,
    Location,
    Problem,
    RuleError,
    RuleFileError,
)
from ckpt_tool.report.parts.style import safe

_PLACE = re.compile(r"(.*):(\d+):(\d+)", re.DOTALL)
"""The path of an error in a rule file's YAML: its line and column too."""


def problem_annotations(problems: Iterable[Problem]) -> list[str]:
    """A command for each problem, at its place in the rule file if it has one."""
    return [_of_problem(problem) for problem in problems]


def error_annotations(error: CkptError) -> list[str]:
    """Those of an error that ended a command."""
    if isinstance(error, RuleError):
        return problem_annotations(error.problems)
    if isinstance(error, InputError):
        fact = f"{error.fact}; {error.hint}" if error.hint else error.fact
        place = _PLACE.fullmatch(error.path) if isinstance(error, RuleFileError) else None
        if place:
            where = Location(place[1], int(place[2]), int(place[3]))
            return [annotation("ckpt", fact, where.file, where)]
        return [annotation("ckpt", fact, error.path)]
    return [annotation("ckpt", str(error), None)]


def annotation(title: str, message: str, file: str | None, where: Location | None = None) -> str:
    """One command, for a file or a place in it; for neither it stands above all files.

    >>> annotation("ckpt: x", "100 % wrong", "a,b.yaml")
    '::error title=ckpt%3A x,file=a%2Cb.yaml::100 %25 wrong'
    """
    properties: dict[str, object] = {"title": title}
    if file:
        properties["file"] = file
    if where:
        end = where.column + where.length
        properties |= {"line": where.line, "col": where.column, "endColumn": end}
    given = ",".join(f"{name}={_escaped(str(value), ':,')}" for name, value in properties.items())
    return f"::error {given}::{_escaped(message)}"


def _of_problem(problem: Problem) -> str:
    where, title = problem.where, f"ckpt: {problem.code}"
    text = "\n".join([problem.message, *problem.notes])
    if where is None or where.file.startswith("-"):  # the command line
        return annotation(title, text, None)
    return annotation(title, text, where.file, where)


def _escaped(text: str, more: str = "") -> str:
    lines = "\n".join(safe(line) for line in text.split("\n"))
    for one in ("%", "\r", "\n", *more):
        lines = lines.replace(one, f"%{ord(one):02X}")
    return lines
