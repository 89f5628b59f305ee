"""What can fail a process whatever it does: its memory, its threads, its folder, its output or a
package. Told as what it is.
"""

import os
import traceback

from ckpt_tool.errors import CkptError, InputError, OutputError


def mishap(error: Exception) -> CkptError | None:
    """The error in words; None for what is a fault of ours."""
    if isinstance(error, MemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(error):
        return InputError(
            "memory",
            "there is not enough of it for this",
            "a process may have less than the machine: ulimit -v",
        )
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return InputError(
            "threads",
            "no more can be started",
            "the system gives this user, or this container, few: ulimit -u",
        )
    if isinstance(error, ImportError) and error.name and not error.name.startswith("ckpt_tool"):
        return InputError("a package", f"can't be imported: {error}", "install it anew")
    if isinstance(error, FileNotFoundError) and _has_no_folder():
        return InputError(
            "the folder that this runs in", "does not exist any more", "cd to another one"
        )
    if isinstance(error, OSError) and _is_of_parser(error):
        return OutputError("standard output", error.strerror or str(error))
    return None


def _has_no_folder() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def _is_of_parser(error: OSError) -> bool:
    """Whether it is the command line's parser that could not print something, a help text."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals.get("__name__", "").partition(".")[0] in ("click", "typer")
