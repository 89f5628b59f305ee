"""`ckpt` and `python -m ckpt_tool`: runs the command line, and turns errors into one clear text and
an exit status.
"""

import gc
import os
import resource
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from ckpt_tool import __version__

if TYPE_CHECKING:
    from types import FrameType

MAX_FILES = 10_240
"""Descriptors that are asked for: what macOS gives at most, and several times the shards of the
largest models.
"""


def run() -> NoReturn:
    """The process `ckpt`. It ends without taking apart what the command made, which can take longer
    than making it.
    """
    status = 0
    _open_closed_streams()
    _allow_many_files()
    try:
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except KeyboardInterrupt:  # before the command has begun
        status = 130
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            status = status or 2
    os._exit(status)


def _allow_many_files() -> None:
    """Raises the process's own limit of open files towards the system's, as Go's runtime does: two
    sharded models have hundreds.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _open_closed_streams() -> None:
    """Gives standard streams that are closed their numbers back, before the first file that is
    opened gets one of them.

    As GNU's tools do: there is nothing to read, a result can't be printed and is told so, and
    messages go nowhere.
    """
    for name, mode in (("stdin", os.O_RDONLY), ("stdout", os.O_RDONLY), ("stderr", os.O_WRONLY)):
        if getattr(sys, name) is None:
            # The lowest number that is free, which is the stream's own.
            setattr(sys, name, open(os.open(os.devnull, mode), "r" if name == "stdin" else "w"))  # noqa: SIM115


def main() -> None:
    """Exit status 0: the answer is yes, 1: the answer is no, 2: there is no answer."""
    # A command makes many values and no cycles to speak of; it ends before collecting would pay.
    gc.disable()
    if sys.argv[1:] == ["--version"]:
        with suppress(OSError):  # said in our words by what follows
            print(f"ckpt {__version__}", flush=True)
            return
    from ckpt_tool.cli.app import app
    from ckpt_tool.cli.output import check_options, fail, write_what_can_be_written
    from ckpt_tool.cli.parts.addresses import without_passwords
    from ckpt_tool.cli.parts.completing import with_shell
    from ckpt_tool.errors import CkptError

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup has it ignored
            signal.signal(number, _stop)
    write_what_can_be_written()
    if os.environ.get("_CKPT_COMPLETE"):
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()
    try:
        check_options(sys.argv[1:])
        arguments = with_shell(without_passwords(sys.argv[1:]))
        status = app(args=arguments, prog_name="ckpt", standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except CkptError as error:
        sys.exit(fail(error, sys.argv))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has gone; what is left unwritten must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if isinstance(error, MemoryError) and "--debug" not in sys.argv:
            error.__traceback__ = None  # with it goes what has filled the memory
        sys.exit(fail(error, sys.argv))


def _stop(number: int, frame: "FrameType | None") -> None:
    """Ends as an exception does, so that what is half written is removed."""
    sys.exit(128 + number)


if __name__ == "__main__":
    run()
