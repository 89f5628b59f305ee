"""A file that lies elsewhere, read by ranges as long as only its description is asked for."""

from __future__ import annotations

from abc import abstractmethod

from ckpt_tool.formats.files import SourceFile, truncated
from ckpt_tool.formats.remote.held import Held
from ckpt_tool.watching import OnProgress, ignore


class RangedFile(SourceFile):
    """What is asked for is fetched, and held. Values are read from the file that `whole` gives.

    A subclass says how bytes are fetched, and where all of the file is.
    """

    __slots__ = ("_is_described", "held")
    is_here = False
    has_descriptor = False

    def __init__(self, path: str, held: Held) -> None:
        self.path, self.held = path, held
        self.size = held.size
        self.stamp = (0, 0, held.size, hash(held.version))
        self._fd = -1
        self._is_described = False

    @abstractmethod
    def fetch(self, offset: int, length: int) -> bytes:
        """So many bytes from the place where the file lies. Raises InputError."""

    @abstractmethod
    def whole(self) -> SourceFile:
        """The file that values are read from: it is here, or as good as here."""

    def described(self) -> None:
        """What is read from now on is not held, but read from the whole file."""
        self._is_described = True

    def at_hand(self, offset: int) -> int:
        """How many bytes from here on were fetched already."""
        return self.held.at_hand(offset)

    def read(self, offset: int, length: int) -> bytes:
        """Exactly these bytes. Raises FormatError where the file ends before them, InputError where
        they can't be fetched.
        """
        if offset < 0 or length < 0 or offset + length > self.size:
            raise truncated(self.path, offset + length, self.size)
        if self._is_described:
            return self.whole().read(offset, length)
        return self.held.read(offset, length, self.fetch)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fills a buffer with the bytes from `offset` on. Raises what `read` raises."""
        if self._is_described:
            self.whole().read_into(buffer, offset)
        else:
            buffer[:] = self.read(offset, len(buffer))

    def sha256(self, on_progress: OnProgress = ignore) -> str:
        """The SHA-256 of the whole file in hex. Costs fetching it."""
        return self.whole().sha256()

    def has_changed(self) -> bool:
        """False: each fetch checks that it is still the same file."""
        return False

    def release(self) -> None:
        """Nothing: there is no descriptor."""
