"""What a plan leaves of two open sides, as it is judged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ckpt_tool.mapping.plan import Draft

if TYPE_CHECKING:
    from ckpt_tool.advising import Leftovers
    from ckpt_tool.engine.sources import TensorSource
    from ckpt_tool.errors import RuleError
    from ckpt_tool.mapping import Plan


def leftovers_of(
    plan: Plan,
    source: TensorSource,
    target: TensorSource,
    left: Sequence[str] | None = None,
    fresh: Sequence[str] | None = None,
) -> Leftovers:
    """What a plan drops and keeps, or those of it that nobody named: `left` of the source and
    `fresh` of the target.
    """
    from ckpt_tool.advising import Leftovers
    from ckpt_tool.mapping.by_name import name_keys

    def value_of(key: str) -> float:
        return _number(source, key)

    left, fresh = plan.dropped if left is None else left, plan.kept if fresh is None else fresh
    name_of = name_keys(source.catalog, target.catalog).name_of
    has_values = getattr(source, "has_values", True)
    return Leftovers(
        source.catalog,
        target.catalog,
        plan.steps,
        left,
        fresh,
        name_of,
        value_of if has_values else None,
    )


def keys_beyond(error: RuleError, target: TensorSource) -> list[str]:
    """The keys of the source that rules give names that the target lacks, where nothing else is
    wrong.
    """
    steps = error.draft.plan.steps if isinstance(error.draft, Draft) else ()
    if {problem.code for problem in error.problems} != {"unknown-target"}:
        return []
    lost = (step for step in steps if not any(key in target.catalog for key in step.outputs))
    return list(dict.fromkeys(key for step in lost for key in step.inputs))


def _number(source: TensorSource, key: str) -> float:
    """The value of a tensor of one element."""
    from ckpt_tool.comparing.numbers import as_numbers

    return float(as_numbers(b"".join(source.chunks(key)), source.catalog[key].dtype)[0])
