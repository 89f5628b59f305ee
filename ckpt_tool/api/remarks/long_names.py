"""Names that are too long to look for others like them."""

import re
from collections.abc import Iterable

from ckpt_tool.errors import InputError
from ckpt_tool.wording import plural

LONGEST, MAX_PARTS, MAX_NUMBERS = 10_000, 64, 40
"""Characters of a name, parts of it between dots, and numbers in it, that are compared with others.
"""
_NUMBERS = re.compile("[0-9]+")


def check_names(path: str, names: Iterable[str]) -> None:
    """Raises InputError for names that nothing is known to have: looking for what is like them
    would take very long.
    """
    for name in names:
        if len(name) >= MAX_PARTS and _is_too_long(name):
            fact = (
                f"has a name of {len(name):,} characters in {plural(name.count('.') + 1, 'part')} "
                f"with {plural(len(_NUMBERS.findall(name)), 'number')}, "
                f"`{name[:40]}…`"
            )
            limits = (
                f"names of up to {LONGEST:,} characters in {MAX_PARTS} parts with "
                f"{MAX_NUMBERS} numbers are compared"
            )
            raise InputError(path, fact, f"{limits}; `ckpt map -e` gives others")


def _is_too_long(name: str) -> bool:
    # Between two numbers stands a character at least: hardly any name needs to be looked through
    # for them.
    has_many = len(name) > 2 * MAX_NUMBERS and len(_NUMBERS.findall(name)) > MAX_NUMBERS
    return has_many or len(name) > LONGEST or name.count(".") >= MAX_PARTS
