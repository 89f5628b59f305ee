"""A bar on the terminal for jobs that take longer than a second; and a line for each download."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import Progress as Bar
    from rich.progress import TaskID

PATIENCE = 1.0
"""Seconds before there is a bar."""


class Progress:
    """Told of the bytes that are done, it shows them on stderr, if that is a terminal; the bar goes
    when the job ends.
    """

    def __init__(self, total: int, is_wanted: bool = True) -> None:
        self._total, self._done, self._start = total, 0, time.monotonic()
        self._is_wanted = is_wanted and sys.stderr.isatty()
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def __call__(self, nbytes: int) -> None:
        self._done += nbytes
        if self._bar is None and self._is_wanted and time.monotonic() - self._start > PATIENCE:
            self._begin()
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done)

    def _begin(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.progress import Progress as RichProgress

        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        self._bar = RichProgress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task("", total=self._total)
        self._bar.start()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def watching(is_wanted: bool) -> Callable[[int], Progress]:
    """What shows how far a job of so many bytes is."""
    return lambda total: Progress(total, is_wanted)


class Downloads:
    """Tells of downloads on stderr, by a line, and by a bar on a terminal; of a note once."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def note(self, text: str) -> None:
        """Something that a person should know."""
        if text not in self._told:
            self._told.add(text)
            _print(f"note: {text}")

    @contextmanager
    def download(
        self, address: str, path: str, size: int | None
    ) -> Iterator[Callable[[int], object]]:
        """A download begins."""
        _print(f"Downloading {address} to {path}")
        with Progress(size or 0, True) as progress:
            yield progress


def _print(text: str) -> None:
    with suppress(OSError):
        print(text, file=sys.stderr)
