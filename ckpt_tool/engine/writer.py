"""Writing on a thread of its own while the next tensors are read and computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from ckpt_tool.engine.copying import start_writing, write_at
from ckpt_tool.engine.moving import OpenOutput, move_tensors
from ckpt_tool.formats.placements.crc import crc32

if TYPE_CHECKING:
    from ckpt_tool.engine.sources import ByteSource

MAX_WAITING = 1
"""Tensors that wait to be written, so that memory stays at a few."""


def fill_side_by_side(
    places: Mapping[str, OpenOutput],
    moves: Sequence[tuple[str, ByteSource]],
    computed: Iterable[tuple[str, memoryview]],
    done: Callable[[str], None],
) -> dict[str, int]:
    """Writes what moves, and what is computed meanwhile; gives the checksums. Raises what went
    wrong on either thread.
    """
    checksums: dict[str, int] = {}

    def move_all() -> None:
        checksums.update(move_tensors(places, moves, done))

    def write(key: str, content: memoryview) -> Callable[[], None]:
        def run() -> None:
            place = places[key]
            write_at(place.fd, content, place.layout.offset(key))
            start_writing(place.fd, place.layout.offset(key), len(content))
            checksums[key] = crc32(content) if place.layout.needs_checksums else 0
            done(key)

        return run

    waiting: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1) as thread:
        try:
            waiting.append(thread.submit(move_all))
            for key, content in computed:
                while len(waiting) >= MAX_WAITING:
                    waiting.popleft().result()
                waiting.append(thread.submit(write(key, content)))
            for each in waiting:
                each.result()
        finally:
            thread.shutdown(cancel_futures=True)
    return checksums
