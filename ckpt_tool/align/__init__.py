"""What belongs to what, and the fewest rules for it."""

from ckpt_tool.align.alignment import align
from ckpt_tool.align.drafting.draft import draft_rules
from ckpt_tool.align.findings import Aligned, Alignment, Ambiguous
from ckpt_tool.align.pairs import Pair
from ckpt_tool.align.suggest import (
    MIN_CONFIDENCE,
    plan_by_alignment,
    suggest,
    suggest_by_values,
)
from ckpt_tool.align.suggestion import Suggested, Suggestion

__all__ = [
    "MIN_CONFIDENCE",
    "Aligned",
    "Alignment",
    "Ambiguous",
    "Pair",
    "Suggested",
    "Suggestion",
    "align",
    "draft_rules",
    "plan_by_alignment",
    "suggest",
    "suggest_by_values",
]
