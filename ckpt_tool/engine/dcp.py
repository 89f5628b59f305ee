"""An output that torch.distributed.checkpoint reads: `.distcp` files, and the `.metadata` that
describes them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from ckpt_tool.engine.filling import Job, OutputFile
from ckpt_tool.engine.layouts.dcp_file import DcpFileLayout
from ckpt_tool.engine.layouts.dcp_metadata import Placed, dcp_metadata
from ckpt_tool.engine.run import Written, lay_out_file
from ckpt_tool.engine.shards import (
    check_folder,
    output_of,
    parts_of,
    write_files,
    write_last,
)
from ckpt_tool.engine.sources import moved_tensors
from ckpt_tool.formats.sharded.parts import DATA_SUFFIX, METADATA
from ckpt_tool.tensors import Catalog

OWN = re.compile(r"(?:__[0-9]+)?\.metadata|__[0-9]+_[0-9]+\.distcp")
"""The names of the files that are such a checkpoint's, and that one in their place replaces."""


def write_dcp(job: Job, folder: str, most: int | None = None) -> Written:
    """Writes what the plan says to `.distcp` files in a folder, of at most `most` bytes of tensors
    each.

    Every tensor is stored whole; `dcp.load` gives each process its part. The folder gets all files
    at once, or stays as it is. Raises OutputError, and what `write_checkpoint` raises.
    """
    check_folder(folder, job, OWN)
    origins = moved_tensors(job.plan, job.source, job.target)
    limit = most if most is not None else max(job.plan.outputs.nbytes, 1)
    files = {}
    for number, part in enumerate(parts_of(job.plan.outputs, limit)):
        name = f"__0_{number}{DATA_SUFFIX}"
        path = os.path.join(folder, name)
        files[name] = lay_out_file(job, path, "dcp", Catalog(part), origins)
    described = dcp_metadata(_places(files))
    size = sum(file.layout.size for file in files.values()) + len(described)
    with output_of(job, folder, size, OWN) as stage:
        sums = write_files(job, stage, files, origins)
        write_last(job, os.path.join(stage, METADATA), described)
    ties = tuple(tie for file in files.values() for tie in file.ties)
    return Written(folder, "dcp", len(job.plan.outputs), size, ties, sums, tuple(files))


def _places(files: Mapping[str, OutputFile]) -> dict[str, Placed]:
    """Where each tensor's archive lies."""
    places = {}
    for name, file in files.items():
        layout = file.layout
        assert isinstance(layout, DcpFileLayout)
        for member in file.members:
            places[member.info.key] = Placed(member.info, name, *layout.place(member.info.key))
    return places
