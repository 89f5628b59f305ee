"""What can fail a process whatever it does: its memory, its threads, its folder, its output or a
package. Reported as what it is.
"""

import os
import traceback
from collections.abc import Callable
from importlib.util import find_spec

from ckpt_tool.errors import CkptError, InputError, OutputError, not_installed


def os_error(error: Exception) -> CkptError | None:
    """The error in words; None for what is a fault of ours."""
    for is_kind, described in KINDS:
        if is_kind(error):
            return described(error)
    return None


def _is_out_of_memory(error: Exception) -> bool:
    is_torchs = "DefaultCPUAllocator: can't allocate memory" in str(error)
    return isinstance(error, MemoryError) or is_torchs


def _is_out_of_threads(error: Exception) -> bool:
    return isinstance(error, RuntimeError) and "can't start new thread" in str(error)


def _lacks_a_package(error: Exception) -> bool:
    if not isinstance(error, ImportError) or not error.name:
        return False
    return not error.name.startswith("ckpt_tool")


def _lacks_its_folder(error: Exception) -> bool:
    return isinstance(error, FileNotFoundError) and _has_no_folder()


def _has_no_folder() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def _is_of_parser(error: Exception) -> bool:
    """Whether it is the command line's parser that could not print something, a help text."""
    if not isinstance(error, OSError):
        return False
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals.get("__name__", "").partition(".")[0] in ("click", "typer")


def _memory(error: Exception) -> CkptError:
    hint = "a process may have less than the machine: ulimit -v"
    return InputError("memory", "there is not enough of it for this", hint)


def _threads(error: Exception) -> CkptError:
    hint = "the system gives this user, or this container, few: ulimit -u"
    return InputError("threads", "no more can be started", hint)


def _package(error: Exception) -> CkptError:
    name = (getattr(error, "name", None) or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and name in NEEDED_FOR and find_spec(name) is None:
        return not_installed(name, NEEDED_FOR[name], DISTRIBUTIONS.get(name))
    return InputError("a package", f"can't be imported: {error}", "reinstall it")


NEEDED_FOR = {
    "torch": "tensor arithmetic",
    "numpy": "values that differ",
    "einops": "the op `rearrange`",
    "yaml": "rule files",
    "rich": "progress",
    "blake3": "digests",
    "isal": "checksums",
    "jinja2": "report pages",
    "markupsafe": "report pages",
    "tabulate": "tables",
}
"""What a command imports when it needs it, and for what."""

DISTRIBUTIONS = {"yaml": "pyyaml", "markupsafe": "jinja2"}
"""What packages are installed as, where that isn't their name."""


def _folder(error: Exception) -> CkptError:
    fact = "does not exist any more"
    return InputError("the folder that this runs in", fact, "cd to another one")


def _output(error: Exception) -> CkptError:
    return OutputError("standard output", getattr(error, "strerror", None) or str(error))


KINDS: tuple[tuple[Callable[[Exception], bool], Callable[[Exception], CkptError]], ...] = (
    (_is_out_of_memory, _memory),
    (_is_out_of_threads, _threads),
    (_lacks_a_package, _package),
    (_lacks_its_folder, _folder),
    (_is_of_parser, _output),
)
"""How each kind is recognised, and what is said of it; the first that fits."""
