"""Reads from files into the memory of tensors, by several threads at once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from ckpt_tool.formats.files import SourceFile
from ckpt_tool.formats.limits import MiB

MAX_THREADS = 4
"""More don't read faster from memory, and a disk has its own order."""
LITTLE = MiB
"""Less than this is read at once: handing it on would cost more."""
PIECE = 32 * MiB
"""What a thread gets to read: parts of a large tensor, several small ones."""
Read = tuple[SourceFile, memoryview, int]


def reading_threads() -> int:
    """As many as torch may use for a copy."""
    import torch

    return min(torch.get_num_threads(), MAX_THREADS)


class Reads:
    """What is being read. All of it is there, or FormatError or InputError raised, when the `with`
    block is left.
    """

    def __init__(self) -> None:
        threads = reading_threads()
        self._threads = ThreadPoolExecutor(threads) if threads > 1 else None
        self._waiting: list[Future[None]] = []
        self._group: list[Read] = []
        self._size = 0

    def add(self, file: SourceFile, memory: memoryview, offset: int) -> None:
        """Fills memory with the bytes from `offset` on; files that lie elsewhere, and little of
        others, at once.
        """
        if self._threads is None or len(memory) < LITTLE or not file.has_descriptor:
            file.read_into(memory, offset)
            return
        for start in range(0, len(memory), PIECE):
            piece = memory[start : start + PIECE]
            self._group.append((file, piece, offset + start))
            self._size += len(piece)
            if self._size >= PIECE:
                self._hand_on()

    def _hand_on(self) -> None:
        assert self._threads is not None
        self._waiting.append(self._threads.submit(_read, self._group))
        self._group, self._size = [], 0

    def __enter__(self) -> Reads:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._threads is None:
            return
        if error is None:
            self._hand_on()
        self._threads.shutdown(cancel_futures=error is not None)
        if error is None:
            for read in self._waiting:
                read.result()


def _read(group: Sequence[Read]) -> None:
    for file, memory, offset in group:
        file.read_into(memory, offset)
