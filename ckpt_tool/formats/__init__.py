"""Containers of tensors as bytes: what is in them, and where; nothing of them is executed, and no tensor is read on opening.

    opening, table        a path → a format → an open Checkpoint
    folders, index, numbered → shards        folders, and models in several files
    safetensors, strict_json, key_list, npz, npy, gguf
    torch_zip, zip_directory, torchscript, legacy_stream, legacy_tar, plain_pickle
    pickle_machine, pickle_opcodes, pickle_literals, pickle_names, pickle_calls, pickle_arrays, nested_storage → pickle_values
                          a pickle as data
    pickle_states, odd_tensors                            what a pickle may do to a tensor; tensors that can't be read
    pickle_graph, state_dicts, picking, listing, pickled, tensor_layout        which tensors, and which state dict
    layouts                                               what kind of file it is where it is no whole model
    checkpoint, placement, files, journal, crc, digests, limits, ordering, foreign
"""

from collections.abc import Callable

from ckpt_tool.formats.checkpoint import Checkpoint, Contents, Extra, LeftBehind, StateDict
from ckpt_tool.formats.files import SourceFile
from ckpt_tool.formats.opening import open_checkpoint
from ckpt_tool.formats.placement import Extent, View
from ckpt_tool.tensors import Catalog

__all__ = [
    "Checkpoint", "Contents", "Extent", "Extra", "LeftBehind", "SourceFile", "StateDict", "View", "format_key_list", "open_checkpoint",
]  # fmt: skip


def format_key_list(catalog: Catalog, digest: Callable[[str], str] | None = None) -> str:
    """A catalog as text, one tensor a line: key, dtype and shape with tabs between, and where it is asked for a digest."""
    from ckpt_tool.formats.key_list import format_key_list as format_lines

    return format_lines(catalog, digest)
