"""Work over many bytes, watched: how much is to be done, and each piece that was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ckpt_tool.tensors import Catalog

OnProgress = Callable[[int], None]
"""Hears how many more bytes are done."""
Watch = Callable[[int], AbstractContextManager[OnProgress]]
"""Of so many bytes, what hears of them while they are worked on."""


@contextmanager
def unwatched(nbytes: int) -> Iterator[OnProgress]:
    """For whoever doesn't want to know."""
    yield ignore


def ignore(nbytes: int) -> None:
    """Hears, and says nothing."""


class HasChunks(Protocol):
    """A side whose tensors are read in pieces."""

    catalog: Catalog

    def chunks(self, key: str) -> Iterator[bytes]:
        """The bytes of a tensor, in pieces."""
        ...


class WatchedTensors:
    """A side whose tensors are read from the first to the last; each counts once, by its bytes."""

    def __init__(self, tensors: HasChunks, on_progress: OnProgress) -> None:
        self._tensors, self._on_progress = tensors, on_progress
        self._seen: set[str] = set()
        self.catalog = tensors.catalog

    def chunks(self, key: str) -> Iterator[bytes]:
        """The bytes of a tensor, in pieces."""
        is_new = key not in self._seen
        self._seen.add(key)
        for chunk in self._tensors.chunks(key):
            yield chunk
            if is_new:
                self._on_progress(len(chunk))
