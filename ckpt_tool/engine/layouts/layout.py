"""Where everything lies in an output file, known before its first byte is written."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from ckpt_tool.frozen import frozen
from ckpt_tool.tensors import TensorInfo

Pieces = list[tuple[int, bytes]]
"""Contents with the offsets at which they belong."""


@frozen
class OutputTensor:
    """A tensor of the output; `tied_to` names an earlier key whose tensor it is, where the format
    can say so.
    """

    info: TensorInfo
    tied_to: str | None = None


@frozen
class Labels:
    """What an output says besides its tensors: safetensors' `__metadata__`, and torch's `_metadata`
    by module.
    """

    metadata: Mapping[str, str]
    versions: Mapping[str, Mapping[str, object]]


class Layout(Protocol):
    """The plan of an output file of `size` bytes.

    `head` is known at once; `tail` needs the CRC-32 of each stored tensor, if `needs_checksums`.
    `shares_tensors`: whether members that are one tensor are stored once.
    """

    size: int
    needs_checksums: bool
    shares_tensors: bool

    def offset(self, key: str) -> int:
        """The byte at which a tensor that is stored begins."""

    def head(self) -> Pieces:
        """What is known before any tensor was written."""

    def tail(self, checksums: Mapping[str, int]) -> Pieces:
        """What needs the CRC-32 of each stored tensor."""


class MakesLayout(Protocol):
    """A format's way to lay out a file of this name."""

    def __call__(self, members: Sequence[OutputTensor], labels: Labels, name: str) -> Layout: ...
