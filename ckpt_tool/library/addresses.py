"""`ckpt_tool.addresses`: how the addresses inside of a block are opened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ckpt_tool.errors import InputError
from ckpt_tool.formats.remote.access import Access, accessing


@contextmanager
def addresses(
    *, sha256: str | Sequence[str] = (), offline: bool = False, refresh: bool = False
) -> Iterator[None]:
    """Inside of the block, addresses are opened in this way, by whatever function: as `--sha256`,
    `--offline` and `--refresh` say it on the command line. What was read once is not asked for
    again.

    `sha256` is the digest that a downloaded file must have, or several of which it must have one;
    `offline` asks no server, `refresh` asks whether the cached file is still the server's. Paths
    are opened as usual. Raises InputError for an invalid SHA-256, if `refresh` and `offline` are
    both given, and at the end of a block with digests in which no address was opened.

    >>> import ckpt_tool
    >>> with ckpt_tool.addresses(offline=True):
    ...     ckpt_tool.open("https://example.org/resnet50-0676ba61.pth")
    Traceback (most recent call last):
    ckpt_tool.errors.InputError: https://example.org/resnet50-0676ba61.pth: is not in the cache, ...
    """
    digests = (sha256,) if isinstance(sha256, str) else tuple(sha256)
    with accessing(Access(digests, offline, refresh)) as access:
        yield
        if digests and not access.memory.has_opened:
            fact = "is for addresses, and none was opened in the block"
            raise InputError("`sha256`", fact, "ckpt_tool.open(path, sha256=…) checks a file here")
