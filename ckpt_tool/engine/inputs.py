"""What a command reads is never what it writes, and what it writes is no more public than what it
has read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress

from ckpt_tool.errors import OutputError

ANYBODY = 0o666
_OWNER = 0o600


def refuse_input(path: str, inputs: Iterable[str]) -> None:
    """Raises OutputError where `path` is one of the files that are read, under whatever name.
    Nothing replaces these, whoever asks.
    """
    try:
        output = os.stat(path)
    except (OSError, ValueError):
        return
    for each in inputs:
        with suppress(OSError, ValueError):
            if os.path.samestat(output, os.stat(each)):
                raise OutputError(path, "is one of the inputs", "give the output another name")


def mode_for(inputs: Iterable[str]) -> int:
    """The permissions of a new file, before the umask: no one may read it who may not read all
    inputs, as with `cp`.
    """
    mode = ANYBODY
    for each in inputs:
        with suppress(OSError, ValueError):
            mode &= os.stat(each).st_mode | _OWNER
    return mode


def keep_owner(fd: int, status: os.stat_result) -> None:
    """Gives what replaces a file its owner and group, where that is allowed."""
    with suppress(OSError):
        os.fchown(fd, status.st_uid, status.st_gid)
