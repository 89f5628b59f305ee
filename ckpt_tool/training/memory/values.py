"""The tensors that a step gives, read from the source and computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ckpt_tool.mapping.apply import apply_step
from ckpt_tool.mapping.plan import Plan, Step
from ckpt_tool.torch_bridge import to_tensor, whole_tensor
from ckpt_tool.training.memory.filling import LiveTensors

if TYPE_CHECKING:
    import torch

    from ckpt_tool.formats import Checkpoint
    from ckpt_tool.training.live import LiveState


def step_values(
    step: Step, source: Checkpoint | LiveState, tensors: LiveTensors
) -> list[torch.Tensor]:
    """One tensor for each of the step's outputs, on the CPU. Checksums are not looked at again:
    `source.check` has done so.
    """
    import torch

    with torch.device("cpu"):  # whatever device new tensors are made on around the call
        inputs = [_read(key, source) for key in step.inputs]
        return apply_step(step, inputs, lambda: whole_tensor(tensors[step.outputs[0]]).cpu())


def key_value(
    plan: Plan, key: str, source: Checkpoint | LiveState, tensors: LiveTensors
) -> torch.Tensor:
    """What one key of the model gets, in its dtype."""
    step = plan.producers[key][0]
    return step_values(step, source, tensors)[step.outputs.index(key)].to(tensors[key].dtype)


def _read(key: str, source: Checkpoint | LiveState) -> torch.Tensor:
    info, extent = source.catalog[key], source.extent(key)
    content = extent.unchecked().read_all() if extent else bytearray().join(source.chunks(key))
    return to_tensor(content, info.dtype, info.shape)
