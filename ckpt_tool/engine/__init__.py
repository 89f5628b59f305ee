"""Runs a plan: byte ranges where nothing changes, torch where ops compute; the output is complete
or absent.
"""

from typing import TYPE_CHECKING

from ckpt_tool.lazy import bind_on_use

if TYPE_CHECKING:
    from ckpt_tool.engine.filling import Job
    from ckpt_tool.engine.folders.dcp import write_dcp
    from ckpt_tool.engine.folders.shards import write_sharded
    from ckpt_tool.engine.in_place.journal import restore
    from ckpt_tool.engine.in_place.rename import rename_in_place, rename_whole_in_place
    from ckpt_tool.engine.run import Written, output_format, write_checkpoint
    from ckpt_tool.engine.sources import output_tensors
    from ckpt_tool.engine.verify import Mismatch, verify_output
    from ckpt_tool.engine.whole.folder import WholeFolder, write_whole_folder
    from ckpt_tool.engine.whole.write import Whole, write_whole

__all__ = [
    "Job", "Mismatch", "Whole", "WholeFolder", "Written", "output_format", "output_tensors",
    "rename_in_place", "rename_whole_in_place", "restore", "verify_output", "write_checkpoint",
    "write_dcp", "write_sharded", "write_whole", "write_whole_folder",
]  # fmt: skip

__getattr__ = bind_on_use(__name__, {
    "folders.dcp": "write_dcp",
    "filling": "Job",
    "in_place.rename": "rename_in_place rename_whole_in_place",
    "in_place.journal": "restore",
    "run": "Written output_format write_checkpoint",
    "folders.shards": "write_sharded",
    "sources": "output_tensors",
    "verify": "Mismatch verify_output",
    "whole.folder": "WholeFolder write_whole_folder",
    "whole.write": "Whole write_whole",
})  # fmt: skip
