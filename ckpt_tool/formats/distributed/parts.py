"""Opens the parts of a checkpoint as the whole, whatever wrote them."""

from __future__ import annotations

from ckpt_tool.formats.checkpoint import Checkpoint
from ckpt_tool.formats.sharded.parts import Parts


def open_parts(parts: Parts, path: str, wanted: str) -> Checkpoint:
    """The checkpoint that all of these files are; `wanted` is the name of a state dict in it, or
    empty. Raises FormatError where a part is missing, or parts don't belong together.
    """
    match parts.kind:
        case "zero":
            from ckpt_tool.formats.distributed.zero import open_zero
            from ckpt_tool.formats.distributed.zero_names import zero_names

            return open_zero(zero_names(parts.folder, parts.names), path, wanted)
        case "safetensors":
            raise NotImplementedError
        case "ranks":
            raise NotImplementedError
