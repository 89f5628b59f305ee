"""A folder of a repository of the hub, at one commit."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass

from ckpt_tool.formats.files import SourceFile, sha256_at
from ckpt_tool.formats.remote.access import Access
from ckpt_tool.formats.remote.held import Held, head_for
from ckpt_tool.formats.remote.hub.cache import keep_revision
from ckpt_tool.formats.remote.hub.errors import in_words
from ckpt_tool.formats.remote.hub.file import (
    NOTHING,
    HubFile,
    PartOf,
    Stored,
    WithoutRanges,
    check_digest,
    download,
    request_part,
)
from ckpt_tool.formats.remote.hub.repository import Repository

KEPT = 32 << 20
"""Files up to this size (indexes, configs) are fetched as a whole, into the cache."""
_TEXTS = (".json", ".txt", ".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Listing:
    """What a repository holds at a commit: each file with its size and its digest, as far as the
    hub says.
    """

    commit: str
    files: Mapping[str, Stored]


class HubFolder:
    """A folder of a repository at one commit."""

    __slots__ = ("_access", "_folder", "_listing", "_repository", "path")
    is_here = False

    def __init__(
        self, repository: Repository, listing: Listing, folder: str, access: Access
    ) -> None:
        self._repository, self._listing = repository, listing
        self._folder, self._access = folder, access
        self.path = repository.address(folder)

    @property
    def name(self) -> str:
        """The last part of its path."""
        return posixpath.basename(self._folder or self._repository.id)

    def names(self) -> list[str]:
        """The names in it, of its files and folders."""
        start = f"{self._folder}/" if self._folder else ""
        rest = (name[len(start) :] for name in self._listing.files if name.startswith(start))
        return list(dict.fromkeys(name.partition("/")[0] for name in rest))

    def has(self, name: str) -> bool:
        """Whether this file is in it."""
        return self._inside(name) in self._listing.files

    def join(self, name: str) -> str:
        """The address of what is in it."""
        return self._repository.address(self._inside(name))

    def parent(self) -> HubFolder:
        """The folder above."""
        above = posixpath.dirname(self._folder)
        return HubFolder(self._repository, self._listing, above, self._access)

    def open(self, name: str, header: int = 0) -> SourceFile:
        """A file in it: from the cache where it is there. Raises InputError."""
        path, address = self._inside(name), self.join(name)
        with in_words(address):
            if local := self._checked(path, address):
                return SourceFile(local)
            self._check_listed(path, address)
            stored = self._listing.files.get(path, NOTHING)
            if name.endswith(_TEXTS) and (stored.size or 0) <= KEPT:
                return SourceFile(self._downloaded(path, address, stored.size))
            try:
                held = self._held(path, stored, head_for(header))
            except WithoutRanges:
                self._note_once("the hub's server doesn't support range requests; all is fetched")
                return SourceFile(self._downloaded(path, address, stored.size))
        return HubFile(
            address, held, stored, self._part_of(path), lambda: self._whole(path, address)
        )

    def _check_listed(self, path: str, address: str) -> None:
        """Raises InputError where a digest was asked for, and the hub lists another one; a file
        that has none there, as it is a small one, is downloaded to be looked at.
        """
        if not self._access.sha256 or path.endswith(_TEXTS):
            return
        digest = self._listing.files.get(path, NOTHING).sha256
        if not digest:
            digest = sha256_at(self._downloaded(path, address, 0))
        self._access.check_digest(address, digest)

    def _checked(self, path: str, address: str) -> str | None:
        """The path in the cache of a file that is as it was asked for; None where it is not there.
        With `refresh`, one that is damaged is downloaded again. Raises InputError.
        """
        local = self._cached(path)
        if local is None or path.endswith(_TEXTS):
            return local
        stored, access = self._listing.files.get(path, NOTHING), self._access
        if access.refresh and local not in access.memory.refreshed:
            is_cut = stored.size is not None and os.path.getsize(local) != stored.size
            if is_cut or (access.sha256 and stored.sha256 not in ("", sha256_at(local))):
                local = self._downloaded(path, address, stored.size, again=True)
            access.memory.refreshed.add(local)
        if access.sha256:
            digests = access.memory.digests
            if local not in digests:
                digests[local] = sha256_at(local)
            hint = f"{access.option('refresh')} downloads it again" if not access.refresh else None
            access.check_digest(address, digests[local], hint)
        return local

    def _note_once(self, fact: str) -> None:
        text, memory = f"{self._repository.address('')}: {fact}", self._access.memory.listings
        if text not in memory:
            memory[text] = True
            self._access.reporter.note(text)

    def _held(self, path: str, stored: Stored, first: int) -> Held:
        """The start of the file; two files of one digest are the same."""
        memory = self._access.memory.held
        key = f"sha256:{stored.sha256}" if stored.sha256 else f"{self._listing.commit}/{path}"
        held = memory.get(key)
        if held is None:
            head, size = self._part_of(path)(0, first)
            held = memory[key] = Held(size, key, head)
        return held

    def _part_of(self, path: str) -> PartOf:
        from huggingface_hub import hf_hub_url

        repository = self._repository
        url = hf_hub_url(
            repository.id, path, repo_type=repository.kind, revision=self._listing.commit
        )
        address = repository.address(path)
        return lambda offset, length: request_part(url, address, offset, length)

    def _whole(self, path: str, address: str) -> SourceFile:
        stored = self._listing.files.get(path, NOTHING)
        with in_words(address):
            found = self._checked(path, address)
            return SourceFile(found or self._downloaded(path, address, stored.size))

    def _cached(self, path: str) -> str | None:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(
            self._repository.id,
            path,
            revision=self._listing.commit,
            repo_type=self._repository.kind,
        )
        return found if isinstance(found, str) else None

    def _downloaded(self, path: str, address: str, size: int | None, again: bool = False) -> str:
        repository, commit = self._repository, self._listing.commit
        local = download(repository, path, commit, address, size, self._access, again)
        if digest := self._listing.files.get(path, NOTHING).sha256:
            check_digest(local, address, digest)
        keep_revision(repository, self._listing.commit)
        return local

    def _inside(self, name: str) -> str:
        return f"{self._folder}/{name}" if self._folder else name
