"""What an `hf://` address names: a repository, a revision of it, and a path in it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ckpt_tool.errors import InputError

_REVISION = re.compile(r"(refs/(?:pr|convert|heads|tags)/[^/]+|pr/\d+|[^/]+)(?:/(.*))?", re.S)


@dataclass(frozen=True, slots=True)
class Repository:
    """What an address names: a repository at a revision, and a path in it."""

    kind: str
    id: str
    revision: str
    path: str

    def address(self, path: str) -> str:
        """How a path in it is written."""
        kind = "" if self.kind == "model" else f"{self.kind}s/"
        revision = (
            self.revision.replace("/", "%2F") if _needs_quotes(self.revision) else self.revision
        )
        at = f"@{revision}" if revision else ""
        return f"hf://{kind}{self.id}{at}{f'/{path}' if path else ''}"


def parse(address: str) -> Repository:
    """`hf://owner/name@refs/pr/3/unet` taken apart; `@pr/3` is short for `@refs/pr/3`, and a branch
    whose name has slashes is written with `%2F`. Raises InputError.
    """
    rest = address[len("hf://") :].strip("/")
    kind, found = "model", re.fullmatch(r"(?:(datasets|spaces|models)/)?(.*)", rest, re.S)
    if found and found[1]:
        kind, rest = found[1].removesuffix("s"), found[2]
    parts = rest.split("/", 2)
    if len(parts) < 2 or not all(parts[:2]):
        raise InputError(address, "names no repository", "hf://OWNER/NAME, or hf://OWNER/NAME/FILE")
    name, at, first = parts[1].partition("@")
    after = f"{first}/{parts[2]}" if len(parts) > 2 and at else first
    path = "" if at or len(parts) < 3 else parts[2]
    revision = ""
    if at:
        match = _REVISION.fullmatch(after)
        if match is None:
            raise InputError(address, "names no revision behind its `@`")
        revision, path = match[1].replace("%2F", "/").replace("%2f", "/"), match[2] or ""
    if re.fullmatch(r"pr/\d+", revision):
        revision = f"refs/{revision}"
    return Repository(kind, f"{parts[0]}/{name}", revision, path.strip("/"))


def _needs_quotes(revision: str) -> bool:
    return "/" in revision and not revision.startswith("refs/")
