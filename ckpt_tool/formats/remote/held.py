"""The parts of a file that were fetched, and which more are fetched with what is asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable

KiB = 1 << 10
HEAD = 16 * KiB
"""What is fetched first: it tells the format, and holds the header of most files."""
AHEAD = 4 * KiB
"""What is fetched at least, since a request costs as much as so many bytes."""
SMALL = 1024 * KiB
"""A file of at most this size is fetched as a whole by a request for its end."""
TAIL = 512 * KiB
MAX_TAIL = 1024 * KiB
"""The directory of a zip archive is at its end: 75 to 100 bytes for each of its members."""
OF_THE_REST = 512
"""What a header may have besides its tensors."""

Fetch = Callable[[int, int], bytes]
"""Gets so many bytes from an offset on."""


def head_for(header: int) -> int:
    """What to fetch first of a file whose header should have so many bytes; 0: nobody knows."""
    return header + OF_THE_REST if header else HEAD


class Held:
    """Parts of a file of `size` bytes. `version` tells it from other files of the same address."""

    def __init__(self, size: int, version: object, head: bytes) -> None:
        self.size, self.version = size, version
        self._parts: list[tuple[int, bytes]] = [(0, head)]
        self._lock = threading.Lock()

    def at_hand(self, offset: int) -> int:
        """How many bytes from here on are held."""
        return max(
            (at + len(part) - offset for at, part in self._parts if at <= offset < at + len(part)),
            default=0,
        )

    def read(self, offset: int, length: int, fetch: Fetch) -> bytes:
        """Exactly these bytes, which lie inside of the file."""
        with self._lock:
            if self.at_hand(offset) < length:
                self._fetch(offset, offset + length, fetch)
            return next(
                part[offset - at : offset - at + length]
                for at, part in self._parts
                if at <= offset and offset + length <= at + len(part)
            )

    def _fetch(self, start: int, end: int, fetch: Fetch) -> None:
        """Adds a part with all from `start` to `end`, and what may be asked for next."""
        first, last = self._widened(start, end)
        before = next(
            (one for one in self._parts if one[0] <= first < one[0] + len(one[1])), (first, b"")
        )
        first = before[0] + len(before[1])
        after = next(
            (
                one
                for one in self._parts
                if one[0] < last <= one[0] + len(one[1]) and one[0] > first
            ),
            (last, b""),
        )
        new = before[1] + fetch(first, after[0] - first) + after[1]
        self._parts = [one for one in self._parts if one not in (before, after)]
        self._parts.append((before[0], new))

    def _widened(self, start: int, end: int) -> tuple[int, int]:
        if end == self.size:  # the search for a directory
            tail = max(TAIL, min(self.size // 4, MAX_TAIL))
            return 0 if self.size <= SMALL else min(start, self.size - tail), self.size
        return start, min(self.size, max(end, start + self.at_hand(start) + AHEAD))
