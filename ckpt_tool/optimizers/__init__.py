"""What becomes of an optimizer's state when its parameters are renamed, split, joined and
reordered: plain values in, plain values out; torch is needed only to run the ops.
"""

from ckpt_tool.optimizers.groups import MovedGroup
from ckpt_tool.optimizers.kinds import KINDS, Kind, UnknownKind, kind_of_class, recognise
from ckpt_tool.optimizers.moving import MovedState, SlotStep, move_state
from ckpt_tool.optimizers.saved import SavedOptimizer, read_optimizer, with_names
from ckpt_tool.optimizers.targets import TargetOptimizer, TargetParameter

__all__ = [
    "KINDS", "Kind", "MovedGroup", "MovedState", "SavedOptimizer", "SlotStep", "TargetOptimizer",
    "TargetParameter", "UnknownKind", "kind_of_class", "move_state", "read_optimizer", "recognise",
    "with_names",
]  # fmt: skip
