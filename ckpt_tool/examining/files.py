"""What a checkpoint's files contradict: the digest in their own name, the index beside them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from hashlib import sha1
from typing import TYPE_CHECKING

from ckpt_tool.examining.findings import Finding

if TYPE_CHECKING:
    from ckpt_tool.formats import Checkpoint, SourceFile

_SHA256 = re.compile(r"[0-9a-f]{64}")
_GIT = re.compile(r"[0-9a-f]{40}")
MAX_GIT_BYTES = 100 << 20
"""The hub's cache names small files by git's SHA-1 of them, and large ones by their SHA-256."""


def digest_findings(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Files in the hub's cache whose bytes are not those of the digest that is their name there.

    The layout is huggingface_hub's: `snapshots/COMMIT/NAME` is a link to `blobs/DIGEST`.
    """
    for file in checkpoint.files:
        blob = blob_of(file.path)
        if blob is None:
            continue
        found = _digest(file, blob)
        if found and found != blob:
            kind = "SHA-256" if len(blob) == 64 else "SHA-1"
            fact = f"its {kind} is {found[:16]}…; its name in the hub's cache says {blob[:16]}…"
            yield Finding("digest", file.path, fact)


def blob_of(path: str) -> str | None:
    """The digest that is the file's name in the hub's cache, None for other files."""
    folder, name = os.path.split(os.path.realpath(path))
    is_digest = _SHA256.fullmatch(name) or _GIT.fullmatch(name)
    return name if is_digest and os.path.basename(folder) == "blobs" else None


def _digest(file: SourceFile, blob: str) -> str:
    if len(blob) == 64:
        return file.sha256()
    if file.size > MAX_GIT_BYTES:
        return ""
    git = sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    git.update(file.read(0, file.size))
    return git.hexdigest()


def index_findings(checkpoint: Checkpoint) -> Iterator[Finding]:
    """An index that is another's, and tensors of shards that no index lists."""
    contents = checkpoint.contents
    if contents.stale_index:
        yield Finding("index", checkpoint.path, contents.stale_index)
    for extra in contents.extras:
        if extra.kind == "tensor" and extra.text.endswith("which the index does not list"):
            yield Finding("index", extra.path, extra.text)
