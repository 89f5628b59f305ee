"""A way of mapping that was tried, and how good it is."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from ckpt_tool.api.options import MappingOptions
from ckpt_tool.frozen import frozen

if TYPE_CHECKING:
    from ckpt_tool.mapping import Plan


@frozen
class Attempt:
    """A way of mapping that goes through: how many tensors it maps, the numbers in tensors that
    stay fresh, the keys that it names.
    """

    options: MappingOptions
    mapped: int
    fresh: int
    named: int


def rank(attempt: Attempt) -> tuple[int, bool, int]:
    """The fewest fresh values first; then equal names before what a mapping or an alignment says;
    then the fewest keys to name.
    """
    return (
        attempt.fresh,
        bool(attempt.options.rules) or attempt.options.by in ("auto", "position"),
        attempt.named,
    )


def fresh_values(plan: Plan) -> int:
    """The numbers in the tensors that stay fresh."""
    return sum(prod(plan.target[key].shape) for key in plan.kept) if plan.target else 0
