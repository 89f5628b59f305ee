"""Whether the problems of a refusal say themselves what is to be done, and hints beside them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ckpt_tool.api.options import MappingOptions
from ckpt_tool.errors import Problem
from ckpt_tool.formats import Checkpoint

if TYPE_CHECKING:
    from ckpt_tool.api.shipped import ShippedMapping
    from ckpt_tool.engine.sources import TensorSource

_LEFT = ("unmapped-source", "unmapped-target")
_NEAR = re.compile(r"nearest (key|path): |` matches [0-9,]+ keys?: ")
"""How a note names the pattern that was probably meant."""

NUMBERS = ("unset-param", "unknown-param", "param-mismatch", "bad-param")
"""Problems with the numbers of parameters, which no look at a checkpoint shows."""


def is_part_alone(source: TensorSource, problems: Sequence[Problem]) -> bool:
    """Whether nothing pairs because the source is no whole model, which is said of it already."""
    is_part = isinstance(source, Checkpoint) and not source.contents.is_whole
    return is_part and {problem.code for problem in problems} == {"nothing-pairs"}


def numbers_hint(lacking: Sequence[ShippedMapping]) -> str:
    """The numbers with which a shipped mapping fits; nothing where none lacks any."""
    if not lacking:
        return ""
    numbers = " and ".join(f"--set {name}=…" for name in lacking[0].needs)
    return f"{lacking[0].name} maps these two as soon as it has its numbers: `{numbers}`"


def are_to_be_corrected(problems: Sequence[Problem]) -> bool:
    """Whether all that is wrong says itself what to change, an option's pattern that matches
    nothing or everything, a number that was expected or that is missing, a type, or a shape that a
    `fit:` adapts: no draft says more.
    """
    return bool(problems) and all(
        problem.code in ("expect", "dtype", *NUMBERS)
        or (problem.code == "shape" and "`fit: " in "".join(problem.notes))
        or (problem.code in ("dead-rule", "nothing-pairs") and _is_option(problem))
        for problem in problems
    )


def says_enough(problems: Sequence[Problem], options: MappingOptions) -> bool:
    """Whether the problems say what is to be done, and no look says more."""
    return (
        are_to_be_corrected(problems) or are_misspelt(problems) or lack_nothing(problems, options)
    )


def more_hint(problems: Sequence[Problem], options: MappingOptions) -> str:
    """What to do beside what the problems say."""
    return _fit_hint(problems, options) or _lack_hint(problems, options)


def _fit_hint(problems: Sequence[Problem], options: MappingOptions) -> str:
    """Where a `fit:` that a problem names can stand beside rule files, which need no change."""
    is_named = any(
        problem.code == "shape" and "`fit: " in "".join(problem.notes) for problem in problems
    )
    if not (is_named and options.rules):
        return ""
    named = " ".join(f"--rules {shlex.quote(name)}" for name in options.rules)
    return f"`fit:` can stand in a rule file of its own: `{named} --rules fit.yaml`"


def are_misspelt(problems: Sequence[Problem]) -> bool:
    """Whether patterns that match no key are all that is wrong, but for the keys that they leave,
    and a note on each says which key or pattern is near: that is what there is to correct.
    """
    dead = [problem for problem in problems if problem.code == "dead-rule"]
    return (
        bool(dead)
        and all(_NEAR.search(" ".join(problem.notes)) for problem in dead)
        and {problem.code for problem in problems} <= {"dead-rule", *_LEFT}
    )


def lack_nothing(problems: Sequence[Problem], options: MappingOptions) -> bool:
    """Whether rules or names use or drop every key of the source, and keys of the target are left
    to be kept: nothing of the source is there for them.
    """
    is_by_names = options.by in (None, "name")
    return is_by_names and {problem.code for problem in problems} == {"unmapped-target"}


def says_it_all(problem: Problem) -> bool:
    """Whether a look at the source says no more than a problem of a plan without a target."""
    said = ("unmapped-source", "collision", "dtype", "expect", *NUMBERS)
    is_cast = problem.code == "bad-op" and problem.message.startswith("`cast`")
    return problem.code in said or is_cast


def _lack_hint(problems: Sequence[Problem], options: MappingOptions) -> str:
    """What to do where the source has nothing for keys of the target."""
    if not lack_nothing(problems, options):
        return ""
    return (
        "no key of the source is left over for them: map a source that has them, or keep those "
        "that may stay fresh"
    )


def _is_option(problem: Problem) -> bool:
    return problem.where is not None and problem.where.file.startswith(("--drop", "--keep"))
