"""Paths of modules as names: their numbers, their blocks, what lies above them."""

import re
from functools import cache

from ckpt_tool.align.naming.vocabulary import stem_and_number

Names = tuple[str, ...]
Numbers = tuple[int, ...]
Series = tuple[Names, str]
"""Where numbered modules stand side by side: the path above them, and the stem of their names."""


def paths_above(names: Names) -> list[Names]:
    """The paths of the modules around one, the outermost first."""
    return [names[:depth] for depth in range(1, len(names))]


def is_below(names: Names, path: Names) -> bool:
    """Whether a module is at a path or inside it."""
    return names[: len(path)] == path


def numbers_of(names: Names) -> Numbers:
    """The numbers that names end in, the outermost first."""
    return tuple(found[1] for name in names if (found := stem_and_number(name)))


def numbered_names(names: Names) -> list[tuple[Series, int]]:
    """Each series that a path passes, with its number there."""
    return [
        ((names[:depth], found[0]), found[1])
        for depth, name in enumerate(names)
        if (found := stem_and_number(name))
    ]


def block_of(names: Names) -> Names:
    """A path as far as its last number."""
    numbered = (depth + 1 for depth, name in enumerate(names) if stem_and_number(name))
    return names[: max(numbered, default=0)]


def without_numbers(names: Names) -> Names:
    """Names without their numbers."""
    return tuple(found[0] if (found := stem_and_number(name)) else name for name in names)


def pattern_of(names: Names) -> Names:
    """Names with their numbers left open: a dot, which no name has, stands for each."""
    return tuple(f"{found[0]}." if (found := stem_and_number(name)) else name for name in names)


@cache
def numberless_names(names: Names) -> Names:
    """Names with `#` for each number, also for those inside a name."""
    return tuple(re.sub(r"\d+", "#", name) for name in names)
