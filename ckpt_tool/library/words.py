"""Errors in the words of Python: what the command line calls `--drop` is `drop=` here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from typing import ParamSpec, TypeVar

from ckpt_tool.errors import CkptError, InputError, Location, Problem, RuleError

P = ParamSpec("P")
R = TypeVar("R")

_SWITCHES = "force|partial|force-order|whole|only-weights|values|renames|checksum|offline|refresh"
_VALUED = (
    "drop|keep|include|exclude|sha256|min-confidence|expect|rtol|atol|also|fresh-optimizer|"
    "optimizer-order|max-shard-size|to|by|rules"
)
_OTHERS = {"dtype": "dtypes", "filter": "include", "set": "params", "hint": "hints", "jobs": "jobs"}
_BEFORE, _AFTER = r"(?<![\w-])`?", r"(?![\w-])`?"
_WORDS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"`--(drop|keep) PATTERN`, or `\1=` in Python,"), lambda m: f"`{m[1]}=`"),
    (re.compile(r"`?(?<![\w-])-e '([^']*)'`?"), lambda m: f'`rules=["{m[1]}"]`'),
    (
        re.compile(rf"(?:ckpt suggest )?{_BEFORE}--hint '([^']*)'`?"),
        lambda m: f'`hints=["{m[1]}"]`',
    ),
    (re.compile(r"`--rules ([^`]*[^`A-Z][^`]*)`"), lambda m: f'`rules="{m[1]}"`'),
    (re.compile(rf"{_BEFORE}--dtype (target|source)`?"), lambda m: f'`dtypes="{m[1]}"`'),
    (re.compile(rf"{_BEFORE}--by (name|position|auto)`?"), lambda m: f'`by="{m[1]}"`'),
    (re.compile(rf"{_BEFORE}--set (\w+)(?:=…)?`?"), lambda m: f'`params={{"{m[1]}": …}}`'),
    (
        re.compile(rf"{_BEFORE}--({_SWITCHES}){_AFTER}"),
        lambda m: f"`{m[1].replace('-', '_')}=True`",
    ),
    (
        re.compile(rf"{_BEFORE}--({_VALUED})(?: [A-Z]+(?=`))?{_AFTER}"),
        lambda m: f"`{m[1].replace('-', '_')}=`",
    ),
    (re.compile(rf"{_BEFORE}--({'|'.join(_OTHERS)}){_AFTER}"), lambda m: f"`{_OTHERS[m[1]]}=`"),
    (re.compile(r"(?<![\w-])-e(?=:\d)"), lambda m: "rules"),
)
"""Options as they stand in texts, and what is said for them; the first that fits."""


SHORT = {"-e": "rules", "-o": "output"}
"""Options of one letter that an error may be about."""


def in_python(text: str) -> str:
    """The text with keyword arguments where it names options.

    >>> in_python("`--force` replaces it; try `--by position`, or --drop")
    '`force=True` replaces it; try `by="position"`, or `drop=`'
    """
    if "-" not in text:
        return text
    for pattern, said in _WORDS:
        text = pattern.sub(said, text)
    return text


def speaks_python(function: Callable[P, R]) -> Callable[P, R]:
    """The function, whose errors name arguments instead of options, and come without those of
    ours that led to them: a cause that says something to a user is the error's `__cause__`.
    """

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with _translated():
            return function(*args, **kwargs)

    return run


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except CkptError as error:
        _translate(error)
        error.__suppress_context__ = True
        raise


def _translate(error: CkptError) -> None:
    if isinstance(error, RuleError):
        error.problems = tuple([_in_python(problem) for problem in error.problems])
        error.args = (error.problems,)
    elif isinstance(error, InputError):
        error.path = SHORT.get(error.path) or in_python(error.path)
        error.fact = in_python(error.fact)
        error.hint = None if error.hint is None else in_python(error.hint)
        error.args = (error.path, error.fact, error.hint, error.place)


def _in_python(problem: Problem) -> Problem:
    where = problem.where
    return replace(
        problem,
        message=in_python(problem.message),
        notes=tuple(map(in_python, problem.notes)),
        where=None if where is None else _place(where),
    )


def _place(where: Location) -> Location:
    names = {"-e": "rules", "--drop": "drop", "--keep": "keep"}
    return replace(where, file=names.get(where.file, where.file))
