"""Where huggingface_hub keeps what it has downloaded, and which commit a revision was."""

from __future__ import annotations

import os
from contextlib import suppress

from ckpt_tool.formats.remote.hub.repository import Repository


def snapshot(repository: Repository) -> str | None:
    """The folder of the revision in the library's cache, whose files may be some of all."""
    commit = repository.revision or "main"
    with suppress(OSError), open(_reference(repository), encoding="utf-8") as file:
        commit = file.read().strip()
    found = os.path.join(_cache(repository), "snapshots", commit)
    return found if os.path.isdir(found) else None


def keep_revision(repository: Repository, commit: str) -> None:
    """Keeps which commit a revision is, so that it is found offline: the library does so only when
    it is asked for the revision itself, which may be another commit by then.
    """
    path = _reference(repository)
    if repository.revision == commit:
        return
    with suppress(OSError):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        temporary = f"{path}.{os.getpid()}"
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(commit)
        os.replace(temporary, path)


def _cache(repository: Repository) -> str:
    from huggingface_hub.constants import HF_HUB_CACHE, REPO_ID_SEPARATOR

    parts = [f"{repository.kind}s", *repository.id.split("/")]
    return os.path.join(HF_HUB_CACHE, REPO_ID_SEPARATOR.join(parts))


def _reference(repository: Repository) -> str:
    """The file that says which commit a revision was when it was last asked for."""
    return os.path.join(_cache(repository), "refs", repository.revision or "main")
