"""A callback for `pytorch_lightning`.

from ckpt_tool.integrations.pytorch_lightning import FreezeCallback

trainer = Trainer(callbacks=[FreezeCallback(ckpt_tool.FreezeSchedule({0: "head.**", 3: "**"}))])
"""

from __future__ import annotations

from pytorch_lightning import Callback, LightningModule, Trainer

from ckpt_tool.integrations.lightning_loop import FollowingLightning


class FreezeCallback(FollowingLightning, Callback):  # type: ignore[misc]
    """Freezes and thaws by a schedule, whose patterns match keys of the LightningModule.

    Let `configure_optimizers` take all parameters: those that are frozen are passed over. A run
    that is resumed is at once what it was. Several processes need
    `strategy="ddp_find_unused_parameters_true"`.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What trains where the run begins, or is resumed."""
        self.begin()
        self.follow_loop(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What trains from this epoch on."""
        self.follow_loop(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int
    ) -> None:
        """What trains from this step on."""
        self.follow_loop(trainer, pl_module)
