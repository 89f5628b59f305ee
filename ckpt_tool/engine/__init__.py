"""Runs a plan: byte ranges where nothing changes, torch where ops compute; the output is complete or absent."""

from ckpt_tool.engine.run import Written, output_format, write_checkpoint

__all__ = ["Written", "output_format", "write_checkpoint"]
