"""Code of the user's own, run because the user named it: what fails in it is reported as theirs."""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from ckpt_tool.errors import CkptError, InputError

MAX_TEXT = 300
"""Characters of an error's own text that are shown."""
_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@contextmanager
def running(code: str) -> Iterator[None]:
    """What the user's code raises here, and `sys.exit` in it, is an InputError that names the code
    and the line of the file; a signal, an interrupt and memory that is used up pass.
    """
    try:
        yield
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:
        if _raised_by_us(error):
            raise
        raise InputError(code, f"raised {raised(error)}") from error


def raised(error: BaseException) -> str:
    """What was raised, where in the user's own files, and its text on one line."""
    place = place_of(error)
    text = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split()).rstrip(".")
    shown = f"{text[:MAX_TEXT]}…" if len(text) > MAX_TEXT else text
    where = f" at {place}" if place else ""
    return f"{type(error).__name__}{where}{': ' if shown else ''}{shown}"


def place_of(error: BaseException) -> str | None:
    """`file:line` of the user's code that raised an error or called what did; where there is none,
    of the library's.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return f"{_from_here(error.filename)}:{error.lineno}"
    frames = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if not frame.f_code.co_filename.startswith(("<", _OURS))
    ]
    own = [(file, line) for file, line in frames if _is_own(file)]
    found = own or [(file, line) for file, line in frames if not _is_of_python(file)]
    return f"{_from_here(found[-1][0])}:{found[-1][1]}" if found else None


def _raised_by_us(error: BaseException) -> bool:
    """Whether it's an error of ours with its own words, or the end that a signal asked for."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    is_ours = frame.f_code.co_filename.startswith(_OURS)
    return is_ours and isinstance(error, CkptError | SystemExit)


def _from_here(file: str) -> str:
    """A file's path, from the working directory where it is below that."""
    path = os.path.abspath(file)
    return os.path.relpath(path) if path.startswith(os.getcwd() + os.sep) else path


def _is_own(file: str) -> bool:
    """Whether a file is neither Python's nor a package's that was installed."""
    return not os.path.abspath(file).startswith(_installed())


def _is_of_python(file: str) -> bool:
    path = os.path.abspath(file)
    return path.startswith(_standard()) and "-packages" + os.sep not in path


@cache
def _installed() -> tuple[str, ...]:
    names = "purelib", "platlib", "stdlib", "platstdlib"
    return tuple(sysconfig.get_path(name) + os.sep for name in names)


@cache
def _standard() -> tuple[str, ...]:
    return tuple(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib"))
