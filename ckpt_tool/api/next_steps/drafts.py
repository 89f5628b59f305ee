"""Rule files that `ckpt suggest` has written, and what is left in them to a person."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ckpt_tool.api.next_steps.commands import command

if TYPE_CHECKING:
    from ckpt_tool.api.options import MappingOptions
    from ckpt_tool.engine.sources import TensorSource
    from ckpt_tool.errors import Problem

DRAFTED = "# Drafted from"
"""How a rule file begins that `ckpt suggest` has written."""

MAX_ASKED = 20_000
"""Keys of a side up to which it is tried whether a draft asks for pairs."""
MAX_BYTES = 1 << 20
_WAITING = re.compile(r"# (  - |(drop|keep|fit):)")
"""A rule, a section or a line of one, as a comment."""
_ASKING = re.compile(r"# ambiguous: .*; --hint '")
"""A line that asks for a pair that a person knows."""
_OPEN = ("unmapped-source", "unmapped-target", "unknown-target", "shape")


def is_draft(options: MappingOptions) -> bool:
    """Whether the rules are what `ckpt suggest` has written: what is left is to be decided there,
    and another draft says the same.
    """
    return any(_text_of(path).startswith(DRAFTED) for path in options.rules)


def to_decide(options: MappingOptions, problems: Sequence[Problem]) -> str:
    """Which lines of a draft ask for a pair, and which say, as comments, what may become of keys
    that nothing names, and of other shapes; nothing where it has none.
    """
    if not any(problem.code in _OPEN for problem in problems):
        return ""
    return "; ".join(filter(None, map(_to_decide, options.rules)))


def _to_decide(path: str) -> str:
    text = _text_of(path)
    lines = text.splitlines() if text.startswith(DRAFTED) else []
    waiting = [number for number, line in enumerate(lines, 1) if _WAITING.match(line)]
    asked = [number for number, line in enumerate(lines, 1) if _ASKING.match(line)]
    said = (_to_draft_again(lines, asked), _to_uncomment(lines, waiting))
    steps = "; else, of its comments, ".join(filter(None, said))
    how = steps if asked else f"of its comments, {steps}"
    return f"{path} leaves this to you: {how}" if steps else ""


def _to_draft_again(lines: Sequence[str], asked: Sequence[int]) -> str:
    """The pair that makes a better draft; what is ambiguous comes first, as less is left then."""
    if not asked:
        return ""
    hint = lines[asked[0] - 1].rpartition("; ")[2]
    which = f"line{'s' if len(asked) > 1 else ''} {', '.join(_spans(asked))}"
    return f"draft it again with the pairs that you know: {which} (`{hint}`)"


def _to_uncomment(lines: Sequence[str], waiting: Sequence[int]) -> str:
    if not waiting:
        return ""
    first = lines[waiting[0] - 1].removeprefix("# ").strip()
    which = f"line{'s' if len(waiting) > 1 else ''} {', '.join(_spans(waiting))}"
    shown = f"`{first}`{', …' if len(waiting) > 1 else ''}"
    return f"uncomment what is right: {which} ({shown})"


def _spans(numbers: Sequence[int]) -> Iterator[str]:
    """Numbers that rise, those that follow each other as one: `4`, `17-22`."""
    first = last = numbers[0]
    for number in (*numbers[1:], 0):
        if number != last + 1:
            yield f"{first}" if first == last else f"{first}-{last}"
            first = number
        last = number


def _text_of(path: str) -> str:
    """The text of a rule file; nothing where there is none."""
    try:
        with open(path, "rb") as file:
            return file.read(MAX_BYTES).decode(errors="replace")
    except OSError:
        return ""


def look(aligns: bool, sides: Sequence[str], options: MappingOptions) -> str | None:
    """A look at what stands in the way: a draft where that shows something, else what differs,
    which needs files on both sides.
    """
    drafted = None if is_draft(options) else command("suggest", sides)
    compared = command("diff", sides)
    return drafted or compared if aligns else compared or drafted


def asks_for_pairs(source: TensorSource, target: TensorSource) -> bool:
    """Whether a draft for two sides of which nothing aligns names what a person could pair. Costs
    an alignment.
    """
    catalogs = source.catalog, target.catalog
    if max(map(len, catalogs)) > MAX_ASKED:
        return False
    from ckpt_tool.align import suggest

    found = suggest(*catalogs)
    return bool(found.alignment.questions or found.shape_mismatches)
