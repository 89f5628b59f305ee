"""A callback for transformers' Trainer.

from ckpt_tool.integrations.transformers import FreezeCallback

schedule = ckpt_tool.FreezeSchedule({0: "classifier.**", 1: "**"})
trainer = Trainer(model, args, callbacks=[FreezeCallback(schedule)], …)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers.trainer_callback import TrainerCallback

from ckpt_tool.errors import InputError
from ckpt_tool.integrations.following import Following

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import TrainerControl, TrainerState, TrainingArguments


class FreezeCallback(Following, TrainerCallback):
    """Freezes and thaws by a schedule, whose patterns match keys of the model.

    The Trainer makes its optimizer before, of all parameters that take gradients: freeze nothing
    yourself. A run that is resumed is at once what it was. Several processes need
    `TrainingArguments(ddp_find_unused_parameters=True)`.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """What trains where the run begins, or is resumed. Raises InputError where
        DistributedDataParallel would wait for gradients of what is frozen.
        """
        _check_processes(args)
        self.begin()
        self._follow(state, **given)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """What trains from this epoch on."""
        self._follow(state, **given)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **given: Any
    ) -> None:
        """What trains from this step on."""
        self._follow(state, **given)

    def _follow(
        self,
        state: TrainerState,
        model: nn.Module | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        **others: object,
    ) -> None:
        if model is None:
            raise InputError("FreezeCallback", "gets no model from its Trainer")
        by_step = self.schedule.unit == "step"
        # The epoch has a fraction within it: steps done, over steps of an epoch.
        number = state.global_step if by_step else int((state.epoch or 0) + 1e-9)
        self.follow(model, [optimizer] if optimizer is not None else [], number)


def _check_processes(args: TrainingArguments) -> None:
    is_plain = not (args.fsdp or args.deepspeed)
    if args.world_size > 1 and is_plain and not args.ddp_find_unused_parameters:
        raise InputError(
            "Trainer",
            "trains in several processes, which would wait for gradients of what is frozen",
            "TrainingArguments(ddp_find_unused_parameters=True)",
        )
