"""Opens the parts of a checkpoint as the whole, whatever wrote them."""

from __future__ import annotations

from ckpt_tool.errors import InputError
from ckpt_tool.formats.checkpoint import Checkpoint
from ckpt_tool.formats.folder import LocalFolder
from ckpt_tool.formats.sharded.parts import Parts


def refuse_name(path: str, wanted: str) -> None:
    """Raises InputError for a name where there is one state dict, which has none."""
    if wanted:
        fact = f"no state dict in the folder is named `{wanted}`"
        raise InputError(path, fact, "it holds one, which has no name")


def open_parts(parts: Parts, path: str, wanted: str) -> Checkpoint:
    """The checkpoint that all of these files are; `wanted` is the name of a state dict in it, or
    empty. Raises FormatError where a part is missing, or parts don't belong together.
    """
    match parts.kind:
        case "zero":
            from ckpt_tool.formats.distributed.zero.names import zero_names
            from ckpt_tool.formats.distributed.zero.opening import open_zero

            return open_zero(zero_names(parts.folder, parts.names), path, wanted)
        case "universal":
            from ckpt_tool.formats.distributed.zero.universal import open_universal

            assert isinstance(parts.folder, LocalFolder)
            return open_universal(parts.folder, path, wanted)
        case "safetensors":
            from ckpt_tool.formats.distributed.hf_writer import open_hf_shards

            refuse_name(path, wanted)
            return open_hf_shards(parts.folder, parts.names, path)
        case _:
            from ckpt_tool.formats.distributed.ranks.names import find_family
            from ckpt_tool.formats.distributed.ranks.opening import open_ranks

            family, wanted = find_family(parts.folder, parts.names, path, wanted)
            return open_ranks(family, path, wanted)
