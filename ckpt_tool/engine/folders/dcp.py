"""An output that torch.distributed.checkpoint reads: `.distcp` files, and the `.metadata` that
describes them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from ckpt_tool.engine.filling import Job, OutputFile
from ckpt_tool.engine.folders.shards import (
    check_folder,
    output_of,
    parts_of,
    write_files,
    write_last,
)
from ckpt_tool.engine.folders.slices import (
    Slice,
    check_sliced,
    computes_of,
    origins_of,
    slices_of,
)
from ckpt_tool.engine.layouts.dcp_file import DcpFileLayout
from ckpt_tool.engine.layouts.dcp_metadata import Placed, dcp_metadata
from ckpt_tool.engine.run import Written, lay_out_file
from ckpt_tool.engine.sharing import members_of
from ckpt_tool.engine.sources import moved_tensors
from ckpt_tool.formats.sharded.parts import DATA_SUFFIX, METADATA
from ckpt_tool.tensors import Catalog, TensorInfo

OWN = re.compile(r"(?:__[0-9]+)?\.metadata|__[0-9]+_[0-9]+\.distcp")
"""The names of the files that are such a checkpoint's, and that one in their place replaces."""


def write_dcp(job: Job, folder: str, most: int | None = None) -> Written:
    """Writes what the plan says to `.distcp` files in a folder, of at most `most` bytes of tensors
    each, or without that one for each process that writes.

    A tensor that is larger is stored in slices; `dcp.load` gives each process its part whatever the
    slices are. The folder gets all files at once, or stays as it is. Raises OutputError, and what
    `write_checkpoint` raises.
    """
    check_folder(folder, job, OWN)
    moved = moved_tensors(job.plan, job.source, job.target)
    outputs, writers = job.plan.outputs, job.team.size if job.team else 1
    limit = max(1, -(-outputs.nbytes // writers)) if most is None else most
    slices = list(slices_of(outputs, limit))
    check_sliced(slices, moved)
    origins = origins_of(slices, moved)
    files = {}
    for number, part in enumerate(parts_of(Catalog(one.info for one in slices), limit)):
        name = f"__0_{number}{DATA_SUFFIX}"
        path = os.path.join(folder, name)
        files[name] = lay_out_file(job, path, "dcp", Catalog(part), origins)
    described = dcp_metadata(_places(slices, files))
    size = sum(file.layout.size for file in files.values()) + len(described)
    with output_of(job, folder, size, OWN) as stage:
        sums = write_files(job, stage, files, origins, computes_of(job, slices))
        write_last(job, os.path.join(stage, METADATA), described)
    members = members_of(job, outputs, moved)
    ties = tuple((member.info.key, member.tied_to) for member in members if member.tied_to)
    return Written(folder, "dcp", len(job.plan.outputs), size, ties, sums, tuple(files))


def _places(
    slices: Sequence[Slice], files: Mapping[str, OutputFile]
) -> dict[TensorInfo, list[Placed]]:
    """Where the archives of each tensor lie."""
    archives = {}
    for name, file in files.items():
        layout = file.layout
        assert isinstance(layout, DcpFileLayout)
        for member in file.members:
            archives[member.info.key] = name, *layout.place(member.info.key)
    places: dict[TensorInfo, list[Placed]] = {}
    for one in slices:
        places.setdefault(one.whole, []).append(Placed(one.region, *archives[one.info.key]))
    return places
