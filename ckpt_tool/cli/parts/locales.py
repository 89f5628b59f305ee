"""Whether the locale that a user has asked for is C, with plain characters alone: Python writes
UTF-8 there, and hides it.
"""

import os
import sys

_PLAIN = ("", "C", "POSIX")
_OWN = ("C.UTF-8", "C.utf8", "UTF-8")
"""What Python puts into `LC_CTYPE` where it finds the C locale (PEP 538)."""


def is_utf8_wished() -> bool:
    """Whether Python was told which characters to write, whatever the locale is."""
    names = ("PYTHONIOENCODING", "PYTHONUTF8")
    return "utf8" in sys._xoptions or any(os.environ.get(name) for name in names)


def is_plain_locale() -> bool:
    """Whether the first of `LC_ALL`, `LC_CTYPE` and `LANG` that is set says C or POSIX, or none is
    set.
    """
    everything, characters, language = map(_set, ("LC_ALL", "LC_CTYPE", "LANG"))
    if everything:
        return everything in _PLAIN
    if characters in _OWN and _has_found_c():
        # It was unset, and `LANG` is C or names no locale of this system; or it was C itself.
        return language in _PLAIN or _is_installed(language)
    return (characters or language) in _PLAIN


def _set(name: str) -> str:
    return os.environ.get(name, "")


def _has_found_c() -> bool:
    """Whether Python has taken UTF-8 by itself, in place of C; since 3.15 it always takes it."""
    return bool(sys.flags.utf8_mode) and sys.version_info < (3, 15)


def _is_installed(name: str) -> bool:
    import locale

    before = locale.setlocale(locale.LC_CTYPE)
    try:
        locale.setlocale(locale.LC_CTYPE, name)
    except locale.Error:
        return False
    locale.setlocale(locale.LC_CTYPE, before)
    return True
