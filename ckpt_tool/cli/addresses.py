"""The options of every command that opens paths, which may be addresses; and who is told of
downloads.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import Parameter, Signature, signature
from typing import Annotated

import typer

from ckpt_tool.cli.output import print_note
from ckpt_tool.cli.progress import Progress
from ckpt_tool.formats.remote.access import Access, Silent, accessing

Digests = Annotated[
    list[str] | None,
    typer.Option(
        "--sha256",
        metavar="HEX",
        help="What a downloaded file must be: its SHA-256. Repeatable: one of them.",
    ),
]
Offline = Annotated[
    bool,
    typer.Option("--offline", help="Ask no server: addresses are opened from the caches alone."),
]
Refresh = Annotated[
    bool,
    typer.Option("--refresh", help="Ask whether files in the cache are still what servers have."),
]


def _options(sha256: Digests = None, offline: Offline = False, refresh: Refresh = False) -> None:
    """The options that say how addresses are opened."""


def takes_addresses(command: Callable[..., None]) -> Callable[..., None]:
    """A command that opens addresses as its options say; they stand in its usage behind its own."""
    own = signature(command, eval_str=True).parameters
    shared = signature(_options, eval_str=True).parameters

    def run(**given: object) -> None:
        sha256, offline, refresh = (given.pop(name) for name in shared)
        reporter = Silent() if given.get("quiet") else Downloads()
        digests = tuple(str(one) for one in sha256) if isinstance(sha256, list) else ()
        with accessing(Access(digests, bool(offline), bool(refresh), reporter)):
            command(**given)

    parameters = [*own.values(), *shared.values()]
    asked_for = Signature([each.replace(kind=Parameter.KEYWORD_ONLY) for each in parameters])
    run.__signature__ = asked_for  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    run.__doc__ = command.__doc__
    return run


class Downloads:
    """Tells of downloads on stderr: by a bar on a terminal, elsewhere by a line."""

    def note(self, text: str) -> None:
        """Something that a person should know."""
        print_note(f"note: {text}")

    @contextmanager
    def download(
        self, address: str, path: str, size: int | None
    ) -> Iterator[Callable[[int], object]]:
        """A download begins."""
        print_note(f"Downloading {address} to {path}")
        with Progress(size or 0, sys.stderr.isatty()) as progress:
            yield progress
