"""A step's ops on its tensors; what only the values show to be wrong is a problem of the rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ckpt_tool.errors import Problem, RuleError
from ckpt_tool.mapping.plan import Step
from ckpt_tool.ops import OpError, run_step

if TYPE_CHECKING:
    import torch


def apply_step(
    step: Step, tensors: Sequence[torch.Tensor], own: Callable[[], torch.Tensor] | None = None
) -> list[torch.Tensor]:
    """The step's results; `own` gives the target's tensor to a fit that takes from it what the
    source lacks.

    Raises RuleError for values that the rule forbids, such as two tensors that must be the `same`
    and are not.
    """
    try:
        return run_step(step.ops, tensors, own)
    except OpError as error:
        keys = " and ".join(f"`{key}`" for key in step.inputs[:2])
        more = f" and {len(step.inputs) - 2} more" if len(step.inputs) > 2 else ""
        where = step.origin.rule.where if step.origin.rule else None
        raise RuleError([Problem("values", f"{error}: {keys}{more}", where)]) from None
