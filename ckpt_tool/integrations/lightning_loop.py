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
    """Freezes and thaws by a schedule, whose patterns match keys of the LightningModule.

    Let `configure_optimizers` take all parameters: those that are frozen are passed over. A run
    that is resumed is at once what it was. Several processes need
    `strategy="ddp_find_unused_parameters_true"`.
    """

    def on_train_start(self, trainer: Loop, pl_module: nn.Module) -> None:
        """What trains where the run begins, or is resumed."""
        self.begin()
        self._follow_loop(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Loop, pl_module: nn.Module) -> None:
        """What trains from this epoch on."""
        self._follow_loop(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: Loop, pl_module: nn.Module, batch: object, batch_idx: int
    ) -> None:
        """What trains from this step on."""
        self._follow_loop(trainer, pl_module)

    def _follow_loop(self, trainer: Loop, module: nn.Module) -> None:
        from torch.nn.parallel import DistributedDataParallel

        by_step = self.schedule.unit == "step"
        wrapped = trainer.model
        # Other wrappers (FSDP) have other keys than the module.
        model = wrapped if isinstance(wrapped, DistributedDataParallel) else module
        number = trainer.global_step if by_step else trainer.current_epoch
        self.follow(model, trainer.optimizers, number)
