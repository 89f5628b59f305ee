"""A schedule in Lightning's loop, under either of the names that Lightning has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ckpt_tool.integrations.following import Following

if TYPE_CHECKING:
    import torch
    from torch import nn


class Loop(Protocol):
    """What of a Lightning Trainer is looked at."""

    current_epoch: int
    global_step: int
    optimizers: list[torch.optim.Optimizer]
    model: nn.Module | None


class FollowingLightning(Following):
    """Follows a schedule by the epochs or optimizer steps of a Lightning Trainer."""

    def follow_loop(self, trainer: Loop, module: nn.Module) -> None:
        """Applies what the Trainer's epoch or step asks for."""
        from torch.nn.parallel import DistributedDataParallel

        by_step = self.schedule.unit == "step"
        wrapped = trainer.model
        # Other wrappers (FSDP) have other keys than the module.
        model = wrapped if isinstance(wrapped, DistributedDataParallel) else module
        number = trainer.global_step if by_step else trainer.current_epoch
        self.follow(model, trainer.optimizers, number)
