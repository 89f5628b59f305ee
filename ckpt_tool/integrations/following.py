"""What the callbacks have in common: a schedule that is followed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ckpt_tool.errors import InputError
from ckpt_tool.training.freezing import Applied, FreezeSchedule, Group

if TYPE_CHECKING:
    import torch
    from torch import nn


class Following:
    """Follows a schedule; `applied` is what its last change was."""

    schedule: FreezeSchedule
    group: Group | None
    applied: Applied | None = None
    _stage: int | None = None

    def __init__(self, schedule: FreezeSchedule, group: Group | None = None) -> None:
        super().__init__()
        self.schedule = schedule
        self.group = group

    def begin(self) -> None:
        """A run begins, or is resumed: whatever is next is applied."""
        self._stage = None

    def follow(
        self, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], number: int
    ) -> None:
        """Applies the schedule where another entry of it is in force than before.

        Raises InputError where what trains is in none of several optimizers.
        """
        stage = self.schedule.stage(number)
        if stage == self._stage:
            return
        one = optimizers[0] if len(optimizers) == 1 else None
        self.applied = self.schedule.apply(model, number, one, group=self.group)
        self._stage = stage
        if len(optimizers) > 1:
            _check_held(self.applied, model, optimizers)


def _check_held(
    applied: Applied, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]
) -> None:
    held = {id(p) for each in optimizers for group in each.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and id(parameter) not in held:
            fact = f"train from {applied.unit} {applied.number} on, and none has `{name}`"
            hint = "make them of all parameters before any is frozen"
            raise InputError(f"{len(optimizers)} optimizers", fact, hint)
