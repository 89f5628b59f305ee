"""What belongs to what, and the fewest rules that say it."""

from ckpt_tool.align.draft import draft_rules
from ckpt_tool.align.pairs import Pair

__all__ = ["Pair", "draft_rules"]
