"""Memory for many tensors at once."""

from __future__ import annotations

from mmap import mmap
from typing import TYPE_CHECKING

from ckpt_tool.formats.placements.byte_ranges import room

if TYPE_CHECKING:
    import torch

ALIGNED = 64


class Arena:
    """One allocation for many tensors, each of which is a storage of its own to torch."""

    def __init__(self) -> None:
        self._size = self._used = 0
        self._memory: bytearray | mmap = bytearray()

    def reserve(self, nbytes: int) -> None:
        """Makes room for so many more bytes, before anything is taken."""
        self._size += -(-nbytes // ALIGNED) * ALIGNED

    def take(self, like: torch.Tensor) -> torch.Tensor:
        """A tensor with the dtype and shape of a contiguous one; in memory of its own where no room
        was made for it.
        """
        import torch

        if self._used + like.nbytes > self._size:
            return torch.empty_like(like, device="cpu")
        self._memory = self._memory or room(self._size)
        flat = torch.frombuffer(
            self._memory, dtype=torch.uint8, count=like.nbytes, offset=self._used
        )
        self._used += -(-like.nbytes // ALIGNED) * ALIGNED
        return flat.view(like.dtype).reshape(like.shape)
