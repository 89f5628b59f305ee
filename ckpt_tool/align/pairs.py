"""What belongs to what: source keys that become target keys, through ops."""

from dataclasses import dataclass

from ckpt_tool.align.sides import Side
from ckpt_tool.ops import Op

Slot = tuple[str, ...]
"""Keys that one pattern stands for, in order: mostly one; several where they are collected, or
produced, by their number.
"""


@dataclass(frozen=True, slots=True)
class Pair:
    """Source keys that become target keys. The words of an `each` among the ops are keys of the
    pair.
    """

    sources: tuple[Slot, ...]
    targets: tuple[Slot, ...]
    ops: tuple[Op, ...] = ()

    def of(self, side: Side) -> tuple[Slot, ...]:
        """The slots of one side."""
        return self.sources if side == "source" else self.targets

    @property
    def is_rename(self) -> bool:
        """Whether one key becomes one key, as it is."""
        return (
            not self.ops
            and len(self.sources) == len(self.targets) == 1
            and len(self.sources[0]) == len(self.targets[0]) == 1
        )
