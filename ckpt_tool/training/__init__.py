"""Checkpoints in training scripts: load into a live module, freeze what arrived, group parameters
for the optimizer.
"""

from ckpt_tool.training.factories import build_model
from ckpt_tool.training.freezing import FreezeSchedule, Frozen, Thawed, freeze, thaw
from ckpt_tool.training.live import LiveState, apart_from, state_dict_of, unwrapped
from ckpt_tool.training.live_checkpoint import LiveCheckpoint
from ckpt_tool.training.loading import load_plan
from ckpt_tool.training.report import LoadReport
from ckpt_tool.training.together import together

__all__ = [
    "FreezeSchedule", "Frozen", "LiveCheckpoint", "LiveState", "LoadReport", "Thawed", "apart_from",
    "build_model", "freeze", "load_plan", "state_dict_of", "thaw", "together", "unwrapped",
]  # fmt: skip
