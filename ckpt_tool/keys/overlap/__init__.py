"""What two patterns have in common, found from the patterns alone."""

from ckpt_tool.keys.overlap.comparing import can_match, common_key, covers

__all__ = ["can_match", "common_key", "covers"]
