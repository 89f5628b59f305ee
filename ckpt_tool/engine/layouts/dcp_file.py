"""A `.distcp` file of torch.distributed.checkpoint: for each tensor what `torch.save` writes, a
whole archive, one behind the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ckpt_tool.engine.layouts.layout import Labels, OutputTensor, Pieces
from ckpt_tool.engine.layouts.pickle_writer import tensor_pickle
from ckpt_tool.engine.layouts.torch_zip import ALIGNMENT, ArchiveLayout, check_type


class DcpFileLayout:
    """The archives in the order of the members. Each key has bytes of its own, as torch writes
    them.
    """

    needs_checksums = True
    shares_tensors = False

    def __init__(self, members: Sequence[OutputTensor], labels: Labels, name: str) -> None:
        self._archives: dict[str, tuple[int, ArchiveLayout]] = {}
        end = 0
        for member in members:
            check_type(member.info, name)
            archive = ArchiveLayout(b"archive", tensor_pickle(member.info), [member.info])
            self._archives[member.info.key] = end, archive
            end += archive.size + -archive.size % ALIGNMENT
        self.size = end

    def place(self, key: str) -> tuple[int, int]:
        """Where a tensor's archive begins, and how long it is."""
        start, archive = self._archives[key]
        return start, archive.size

    def offset(self, key: str) -> int:
        """The byte at which a tensor's own bytes begin."""
        start, archive = self._archives[key]
        return start + archive.offset(key)

    def head(self) -> Pieces:
        """The archives' local headers and small records."""
        return [
            (start + at, content)
            for start, archive in self._archives.values()
            for at, content in archive.head()
        ]

    def tail(self, checksums: Mapping[str, int]) -> Pieces:
        """What ends the archives."""
        return [
            (start + at, content)
            for start, archive in self._archives.values()
            for at, content in archive.tail(checksums)
        ]
