"""Reads from files into the memory of tensors, by several threads at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from ckpt_tool.formats.files import SourceFile
from ckpt_tool.formats.limits import MiB

MAX_THREADS = 4
"""More don't read faster from memory, and a disk has its own order."""
LITTLE = MiB
"""Less than this is read by the thread that asks: handing it on would cost more."""
TINY = MiB // 16
"""Less than this waits for its neighbours in the file, to be read with them by one call."""
MAX_TINY = 16_384
"""How many wait at most."""
MAX_BUFFERS = 1000
"""What systems fill by one call (IOV_MAX) is 1024."""
GAP = 4096
"""Bytes between two that are read along, rather than ending the call."""
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
        self._tiny: list[Read] = []
        self._size = 0

    def add(self, file: SourceFile, memory: memoryview, offset: int) -> None:
        """Fills memory with the bytes from `offset` on; files that lie elsewhere, and little of
        others, at once.
        """
        if len(memory) < TINY and file.has_descriptor:
            self._tiny.append((file, memory, offset))
            if len(self._tiny) >= MAX_TINY:
                self._read_tiny()
            return
        if self._threads is None or len(memory) < LITTLE or not file.has_descriptor:
            file.read_into(memory, offset)
            return
        for start in range(0, len(memory), PIECE):
            piece = memory[start : start + PIECE]
            self._group.append((file, piece, offset + start))
            self._size += len(piece)
            if self._size >= PIECE:
                self._hand_on()

    def _read_tiny(self) -> None:
        waiting, self._tiny = self._tiny, []
        for file, buffers, offset in _rows(waiting):
            file.read_into_each(buffers, offset)

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
        try:
            if error is None:
                self._read_tiny()
        finally:
            self._end(error is None)

    def _end(self, is_wanted: bool) -> None:
        """Waits for the threads, for what they read or for their end."""
        if self._threads is None:
            return
        if is_wanted:
            self._hand_on()
        self._threads.shutdown(cancel_futures=not is_wanted)
        if is_wanted:
            for read in self._waiting:
                read.result()


def _rows(reads: Sequence[Read]) -> Iterator[tuple[SourceFile, list[memoryview], int]]:
    """Reads of neighbours in a file as one, with where it begins; little between two is read, too,
    into memory that nobody sees.
    """
    unseen = memoryview(bytearray(GAP))
    row: list[memoryview] = []
    now: SourceFile | None = None
    start = end = 0
    for file, memory, offset in sorted(reads, key=lambda read: (id(read[0]), read[2])):
        gap = offset - end
        if now is file and 0 <= gap <= GAP and len(row) < MAX_BUFFERS:
            row += (unseen[:gap], memory) if gap else (memory,)
        else:
            if now is not None:
                yield now, row, start
            now, row, start = file, [memory], offset
        end = offset + len(memory)
    if now is not None:
        yield now, row, start


def _read(group: Sequence[Read]) -> None:
    for file, memory, offset in group:
        file.read_into(memory, offset)
