"""What of a model trains: freezing and thawing by key, by a schedule, and what an optimizer and
DistributedDataParallel have to know of it.
"""

from ckpt_tool.training.freezing.freeze import Frozen, Thawed, freeze, freeze_keys, thaw
from ckpt_tool.training.freezing.optimizer import Group, Mended
from ckpt_tool.training.freezing.schedule import Applied, FreezeSchedule

__all__ = [
    "Applied", "FreezeSchedule", "Frozen", "Group", "Mended", "Thawed", "freeze", "freeze_keys",
    "thaw",
]  # fmt: skip
