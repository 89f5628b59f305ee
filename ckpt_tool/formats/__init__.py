"""Containers of tensors as bytes: what is in them, and where; nothing of them is executed, and no
tensor is read on opening.

opening, registry     a path → a format → an open Checkpoint flat_files            a header, then
bytes: safetensors, GGUF, numpy's npy and npz torch_files           torch.save's containers, the
state dicts in them, where their tensors lie pickle                a pickle as data archives
zip and tar archives sharded               folders, and models in several files layouts, unsupported
what kind of file it is where it is no whole model, or nothing that is read here checkpoint,
byte_ranges, files, key_list, digests, limits, strict_json, key_order
"""

from collections.abc import Callable

from ckpt_tool.formats.checkpoint import Checkpoint, Contents, Extra, LeftBehind, StateDict
from ckpt_tool.formats.files import SourceFile
from ckpt_tool.formats.opening import open_checkpoint
from ckpt_tool.formats.placements.byte_ranges import Extent
from ckpt_tool.formats.placements.views import View
from ckpt_tool.tensors import Catalog

__all__ = [
    "Checkpoint", "Contents", "Extent", "Extra", "LeftBehind", "SourceFile", "StateDict", "View",
    "format_key_list", "open_checkpoint",
]  # fmt: skip


def format_key_list(catalog: Catalog, digest: Callable[[str], str] | None = None) -> str:
    """A catalog as text, one tensor a line: key, dtype and shape with tabs between, and where it is
    asked for a digest.
    """
    from ckpt_tool.formats.key_list import format_key_list as format_lines

    return format_lines(catalog, digest)
