"""The journal of a change in place: while it lies beside a file, the file may be half changed and
is not to be read.
"""

import os

from ckpt_tool.errors import InputError


def journal_of(path: str) -> str:
    """Where the journal of a file is: `.NAME.ckpt-journal` beside what its name leads to."""
    folder, name = os.path.split(os.path.realpath(path))
    return os.path.join(folder, f".{name}.ckpt-journal")


def refuse_half_changed(path: str) -> None:
    """Raises InputError for a file that is being renamed in place, or was when that was stopped."""
    if "\0" not in path and "://" not in path and os.path.lexists(journal_of(path)):
        hint = "`ckpt map --in-place` on it, once again, first restores what it was"
        raise InputError(path, "is being renamed in place, or was when that was stopped", hint)
