"""A bar on the terminal for jobs that take longer than a second, a sign where nobody knows how long
they take; and a line for each download.
"""

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
    from rich.status import Status

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

        _stop_signs()

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


@contextmanager
def working(
    is_wanted: bool, text: str = "comparing names and shapes"
) -> Iterator[Callable[[], None]]:
    """A sign on stderr that there is work of unknown length, from a second on, if that is a
    terminal; it goes at the end, or when what this gives is called.
    """
    if not (is_wanted and sys.stderr.isatty()):
        yield lambda: None
        return
    sign = _Sign(text)
    _signs.append(sign)
    try:
        yield sign.stop
    finally:
        sign.stop()
        _signs.remove(sign)


_signs: list[_Sign] = []


def _stop_signs() -> None:
    """Before anything else is shown."""
    for sign in _signs:
        sign.stop()


class _Sign:
    """What turns on the terminal until it is stopped."""

    def __init__(self, text: str) -> None:
        from threading import Lock, Timer

        self._text, self._lock = text, Lock()
        self._status: Status | None = None
        self._is_over = False
        self._timer = Timer(PATIENCE, self._begin)
        self._timer.daemon = True
        self._timer.start()

    def _begin(self) -> None:
        from rich.console import Console

        with self._lock:
            if not self._is_over:
                self._status = Console(stderr=True).status(self._text, spinner="line")
                self._status.start()

    def stop(self) -> None:
        """Takes the sign away; nothing where it is gone."""
        self._timer.cancel()
        with self._lock:
            self._is_over = True
            if self._status is not None:
                self._status.stop()
                self._status = None


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
    _stop_signs()
    with suppress(OSError):
        print(text, file=sys.stderr)
