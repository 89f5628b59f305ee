"""One pass over all tensors of a checkpoint, on two processors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from ckpt_tool.errors import FormatError
from ckpt_tool.examining.findings import Finding
from ckpt_tool.examining.scales import is_scale_name
from ckpt_tool.examining.statistics import Statistics, piece_size, statistics_of
from ckpt_tool.tensors import TensorInfo

if TYPE_CHECKING:
    from ckpt_tool.formats import Checkpoint

WORKERS = 2


def measure(
    checkpoint: Checkpoint, keys: Sequence[str], on_progress: Callable[[int], None]
) -> tuple[dict[str, Statistics], list[Finding]]:
    """The statistics of each key, and a finding for each whose bytes are damaged."""
    from concurrent.futures import ThreadPoolExecutor

    def read(key: str) -> Statistics | Finding:
        info = checkpoint.catalog[key]
        try:
            found = statistics_of(info, _pieces(checkpoint, info), is_scale_name(key))
        except FormatError as error:
            return Finding("damaged", key, error.fact)
        on_progress(info.nbytes)
        return found

    measured: dict[str, Statistics] = {}
    damaged: list[Finding] = []
    in_order = sorted(keys, key=lambda key: _place(checkpoint, key))
    with ThreadPoolExecutor(WORKERS) as workers:
        for key, found in zip(in_order, workers.map(read, in_order), strict=True):
            if isinstance(found, Finding):
                damaged.append(found)
            else:
                measured[key] = found
    return measured, damaged


def _pieces(checkpoint: Checkpoint, info: TensorInfo) -> Iterator[bytes | memoryview]:
    extent = checkpoint.extent(info.key)
    return extent.pieces(piece_size(info)) if extent else checkpoint.chunks(info.key)


def _place(checkpoint: Checkpoint, key: str) -> tuple[str, int]:
    extents = checkpoint.extents(key)
    return (extents[0].file.path, extents[0].offset) if extents else ("", 0)
