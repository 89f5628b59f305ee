"""Where things are printed: results to stdout, everything said about them to stderr."""

import codecs
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from typing import TextIO

from ckpt_tool.cli.options import Color
from ckpt_tool.cli.parts.locales import is_plain_locale, is_utf8_wished
from ckpt_tool.cli.parts.os_errors import os_error
from ckpt_tool.errors import CkptError, InputError, OutputError, RuleError
from ckpt_tool.formats.remote.addresses import shown, without_secrets
from ckpt_tool.report.parts.problems import error_text, next_line
from ckpt_tool.report.parts.style import PLAIN, Style, in_encoding, safe

YES, NO, NO_ANSWER = 0, 1, 2
MIN_WIDTH = 40
"""Columns that a terminal has at least; a narrower one breaks lines itself."""
USUAL_WIDTH = 80
"""Columns of a terminal that doesn't say how many it has."""


def write_what_can_be_written() -> None:
    """Terminals that are not UTF-8 get the nearest plain characters, and the rest as Python
    escapes.
    """
    codecs.register_error("ckpt_plain", _in_plain_characters)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="ckpt_plain")


def _in_plain_characters(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return in_encoding(error.object[error.start : error.end], error.encoding), error.end


def style_of(color: Color, verbose: bool) -> Style:
    """Whether to colour a result, to fold keys into patterns, and what the terminal has room
    for.
    """
    return _style_on(sys.stdout, color, verbose)


def note_style_of(color: Color, verbose: bool) -> Style:
    """The same for what is said about a result, on stderr: the two may be different terminals, or
    one of them none.
    """
    return _style_on(sys.stderr, color, verbose)


def _style_on(stream: TextIO, color: Color, verbose: bool) -> Style:
    wanted = color is Color.always or (
        color is Color.auto and stream.isatty() and not os.environ.get("NO_COLOR")
    )
    return Style(wanted, not verbose, width_of_terminal(stream), _encoding_of(stream))


def width_of_terminal(stream: TextIO) -> int | None:
    """The columns of a stream's terminal; None for what is none, which gets full lines."""
    if not stream.isatty():
        return None
    asked = os.environ.get("COLUMNS", "")
    try:
        columns = int(asked) if asked.isdecimal() else os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        columns = 0
    return max(columns, MIN_WIDTH) if columns else USUAL_WIDTH


def _encoding_of(stream: TextIO) -> str:
    """What its characters are encoded in: on a terminal plain ones where the locale asks for them,
    though Python writes UTF-8 then; a pipe or a file gets that.
    """
    if stream.isatty() and is_plain_locale() and not is_utf8_wished():
        return "ascii"
    encoding = getattr(stream, "encoding", None) or "ascii"
    try:
        codecs.lookup(encoding)
    except LookupError:
        return "ascii"
    return encoding


def _fitted(text: str, stream: TextIO) -> str:
    """The text as its terminal has room for it."""
    width = width_of_terminal(stream)
    if width is None:
        return text
    from ckpt_tool.report.parts.fitted import fitted

    return fitted(in_encoding(text, _encoding_of(stream)), width)


def print_note(text: str) -> None:
    """Something about the result, for people, on stderr; where that takes no more, there is nobody
    to tell.
    """
    with suppress(OSError):
        shown = _fitted(without_secrets(text), sys.stderr)
        if _are_messages_coloured(sys.argv):
            from ckpt_tool.report.parts.accents import with_words

            shown = with_words(shown)
        print(shown, file=sys.stderr)


def _are_messages_coloured(arguments: Sequence[str]) -> bool:
    """Whether stderr is a terminal that shows colours, and the command line asks for others."""
    asked = [
        word.rpartition("=")[2]
        for option, word in zip(("", *arguments), arguments, strict=False)
        if option == "--color" or word.startswith("--color=")
    ]
    if asked and asked[-1] != Color.auto.value:
        return asked[-1] == Color.always.value
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR")


def print_next(command: str | None) -> None:
    """The command to go on with, on the last line."""
    if command:
        print_note(next_line(command))


def show_report(text: str, style: Style = PLAIN) -> None:
    """Prints a result for people to stdout, as its terminal has room for it; in colours its answer,
    too, and the words before notes.
    """
    if not style.is_coloured:
        show_result(_fitted(text, sys.stdout))
        return
    from ckpt_tool.report.parts.accents import with_answer, with_words

    show_result(with_words(_fitted(with_answer(text), sys.stdout)))


def show_result(text: str) -> None:
    """Prints a result to stdout, as it is."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError("standard output", error.strerror or str(error)) from None


def show_file(text: str) -> None:
    """Prints the content of a file, a key list or rules: UTF-8 whatever the terminal is, so that it
    can be kept and read again.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")
    show_result(text.rstrip("\n"))


def check_options(arguments: Sequence[str]) -> None:
    """Raises InputError for an option with control characters: the command line's parser would
    print it as it is.
    """
    for name in (argument.partition("=")[0] for argument in arguments if argument.startswith("--")):
        if name != safe(name):
            raise InputError(name, "is not an option")


def print_annotations(are_wanted: bool, error: CkptError) -> None:
    """Prints the problems of an error for GitHub, which shows them beside their lines."""
    if are_wanted:
        from ckpt_tool.report.parts.annotations import error_annotations

        for line in error_annotations(error):
            print_note(line)


def _misused(error: Exception, message: str) -> int:
    """Prints what the command line's parser refuses in the words of our own errors, below the
    usage; where nothing was asked, its help.
    """
    if type(error).__name__ == "NoArgsIsHelpError":
        print_note(message)
        return NO_ANSWER
    if (context := getattr(error, "ctx", None)) is not None:
        print_note(f"{context.get_usage()}\nTry '{context.command_path} -h' for help.\n")
    style = Style(_are_messages_coloured(sys.argv))
    fact = (message[:1].lower() + message[1:]).rstrip(".")
    options = [one.name for one in context.command.params] if context else []
    from ckpt_tool.cli.parts.guessing import said_of

    said = said_of(fact, options, list(getattr(context and context.command, "commands", ())))
    print_note(f"{style.paint('error', 'red')}: {said}")
    return NO_ANSWER


def _point_to_traceback(error: CkptError, is_shown: bool) -> None:
    """Where code of the user's own failed: its traceback says more."""
    if isinstance(error, InputError) and error.__cause__ and not (is_shown or error.hint):
        error.hint = "--debug shows its traceback"


_ALIASES = {"--include": "--filter", "--filter": "--include"}
"""Options with two names, each with the other."""


def _as_typed(error: CkptError, arguments: Sequence[str]) -> None:
    """Has an error name an option as the command line did."""
    if not isinstance(error, InputError) or error.path not in _ALIASES:
        return
    typed = {argument.partition("=")[0] for argument in arguments}
    if error.path not in typed and _ALIASES[error.path] in typed:
        error.path = _ALIASES[error.path]


def fail(error: Exception, arguments: Sequence[str]) -> int:
    """Prints an error and gives the exit status: 1 for rules that don't fit, 2 for what can't be
    used.
    """
    if usage := getattr(error, "format_message", None):
        return _misused(error, usage())
    if "--debug" in arguments:
        print_note("".join(traceback.format_exception(error)).rstrip("\n"))
    error_in_words = error if isinstance(error, CkptError) else os_error(error)
    if error_in_words is not None:
        if not error_in_words.is_reported:
            _point_to_traceback(error_in_words, "--debug" in arguments)
            _as_typed(error_in_words, arguments)
            print_annotations("--github" in arguments, error_in_words)
            style = Style(
                _are_messages_coloured(arguments),
                width=width_of_terminal(sys.stderr),
                encoding=_encoding_of(sys.stderr),
            )
            print_note(error_text(error_in_words, style))
        return NO if isinstance(error_in_words, RuleError) else NO_ANSWER
    files = " ".join(
        safe(shown(argument)) for argument in arguments[1:] if not argument.startswith("-")
    )
    print_note(
        f"error: {files}: an internal error ({type(error).__name__}: "
        f"{safe(str(error))[:300]}); please report it with the output of --debug"
    )
    return NO_ANSWER
