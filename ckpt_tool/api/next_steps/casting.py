"""Whether a cast is all that is missing, and may be proposed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ckpt_tool.api.drafting import draft_open
from ckpt_tool.api.rule_files import read_rules
from ckpt_tool.errors import InputError, RuleError
from ckpt_tool.formats import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ckpt_tool.api.options import MappingOptions
    from ckpt_tool.engine.sources import TensorSource
    from ckpt_tool.errors import Problem


def casting(
    source: TensorSource, target: TensorSource, options: MappingOptions, problems: Iterable[Problem]
) -> MappingOptions | None:
    """The options with a cast to the target's types, where these are the only problem, and what was
    asked for goes through with it; None where that isn't so.
    """
    cast = replace(options, dtypes="target")
    if not is_strict(problems, options) or not casts_plainly(source, target, cast):
        return None
    try:
        draft_open(source, target, read_rules(cast), cast)
    except (RuleError, InputError):
        return None
    return cast


def is_strict(problems: Iterable[Problem], options: MappingOptions) -> bool:
    """Whether nothing is wrong but types, where nobody said what becomes of them."""
    return {each.code for each in problems} == {"dtype"} and options.dtypes == "strict"


def casts_plainly(source: TensorSource, target: TensorSource, options: MappingOptions) -> bool:
    """Whether all casts are between floating-point types that hold no codes."""
    from ckpt_tool.advising import are_plain_casts

    beside = source.outside().catalog if isinstance(source, Checkpoint) else {}
    asked = replace(options, partial=True)
    try:
        plan = draft_open(source, target, read_rules(asked), asked)
    except RuleError:
        return False
    return are_plain_casts(plan, [*source.catalog, *beside])
