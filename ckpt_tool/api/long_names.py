"""Names that are too long to look for others like them."""

from collections.abc import Iterable

from ckpt_tool.errors import InputError

LONGEST, MOST_PARTS = 10_000, 200
"""Characters of a name, and parts of it between dots, that are compared with others."""


def check_names(path: str, names: Iterable[str]) -> None:
    """Raises InputError for names that nothing is known to have: looking for what is like them would take very long."""
    for name in names:
        if len(name) > LONGEST or (len(name) > MOST_PARTS and name.count(".") >= MOST_PARTS):
            fact = f"has a name of {len(name):,} characters in {name.count('.') + 1:,} parts, `{name[:40]}…`"
            raise InputError(
                path, fact, f"names of up to {LONGEST:,} characters in {MOST_PARTS} parts are compared; `ckpt map -e` gives others"
            )
