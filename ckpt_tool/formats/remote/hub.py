"""Repositories of the Hugging Face hub, through huggingface_hub: `hf://owner/name[@revision][/path]`.

The hub is asked once what a repository holds; headers come by ranges, small files and values
through the library's own cache.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckpt_tool.errors import CkptError, InputError
from ckpt_tool.formats.files import SourceFile
from ckpt_tool.formats.folder import Folder, LocalFolder
from ckpt_tool.formats.remote.access import Access
from ckpt_tool.formats.remote.held import HEAD, Held
from ckpt_tool.formats.remote.hub_file import (
    NOTHING,
    HubFile,
    Stored,
    check_digest,
    download,
    request_part,
)

_REVISION = re.compile(r"(refs/(?:pr|convert|heads|tags)/[^/]+|pr/\d+|[^/]+)(?:/(.*))?", re.S)
_STEMS = ("model", "diffusion_pytorch_model", "adapter_model")
USUAL_SAFE = tuple(
    f"{stem}{suffix}" for suffix in (".safetensors.index.json", ".safetensors") for stem in _STEMS
)
USUAL_PICKLED = tuple(
    f"{stem}.bin{suffix}" for suffix in (".index.json", "") for stem in (*_STEMS, "pytorch_model")
)
KEPT = 32 << 20
"""Files up to this size (indexes, configs) are fetched as a whole, into the cache."""
_TEXTS = (".json", ".txt", ".yaml", ".yml")


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


def find_in_hub(address: str, access: Access) -> tuple[Folder, str | None]:
    """The folder of the repository, and the file in it where one is meant. Raises InputError."""
    repository = parse(address)
    with in_words(repository.address("")):
        import_hub(address)
        if access.is_offline:
            return _find_cached(repository, address, access)
        listing = _listing(repository, access)
    path = repository.path
    if path in listing.files:
        folder, name = posixpath.split(path)
        return HubFolder(repository, listing, folder, access), name
    if not path or any(name.startswith(f"{path}/") for name in listing.files):
        whole = HubFolder(repository, listing, path, access)
        return whole, _preferred(whole.names(), whole.path, access)
    raise _no_such_path(repository, listing.files)


def _preferred(names: Collection[str], path: str, access: Access) -> str | None:
    """The weights in safetensors, where the same are there as pickles too: transformers, diffusers
    and timm take these as well. None where a folder is to be looked at as any other.
    """
    safe = [name for name in USUAL_SAFE if name in names]
    pickled = [name for name in USUAL_PICKLED if name in names]
    if not (safe and pickled):
        return None
    access.reporter.note(f"{path}: {safe[0]} is taken; {', '.join(pickled)} is there too")
    return safe[0]


def import_hub(address: str) -> None:
    """Raises InputError where the library is not installed."""
    try:
        import huggingface_hub  # noqa: F401
    except ImportError:
        raise InputError(
            address, "needs huggingface_hub, which is not installed", "pip install huggingface_hub"
        ) from None


def _no_such_path(repository: Repository, files: Mapping[str, object]) -> InputError:
    from difflib import get_close_matches

    near = get_close_matches(repository.path, list(files), 1)
    at = f" at {repository.revision}" if repository.revision else ""
    return InputError(
        repository.address(repository.path),
        f"{repository.id}{at} has no such file or folder",
        f"did you mean {repository.address(near[0])}?" if near else None,
    )


def _find_cached(repository: Repository, address: str, access: Access) -> tuple[Folder, str | None]:
    """The same out of the library's cache alone. Raises InputError."""
    place = _snapshot(repository)
    if place is None:
        raise _not_cached(address)
    path = os.path.join(place, *repository.path.split("/")) if repository.path else place
    if not os.path.lexists(path):
        raise _not_cached(address)
    if os.path.isdir(path):
        folder = LocalFolder(path)
        return folder, _preferred(folder.names(), address, access)
    return LocalFolder(os.path.dirname(path)), os.path.basename(path)


def _snapshot(repository: Repository) -> str | None:
    """The folder of the revision in the library's cache, whose files may be some of all."""
    commit = repository.revision or "main"
    with suppress(OSError), open(_reference(repository), encoding="utf-8") as file:
        commit = file.read().strip()
    found = os.path.join(_cache(repository), "snapshots", commit)
    return found if os.path.isdir(found) else None


def _cache(repository: Repository) -> str:
    from huggingface_hub.constants import HF_HUB_CACHE, REPO_ID_SEPARATOR

    parts = [f"{repository.kind}s", *repository.id.split("/")]
    return os.path.join(HF_HUB_CACHE, REPO_ID_SEPARATOR.join(parts))


def _reference(repository: Repository) -> str:
    """The file that says which commit a revision was when it was last asked for."""
    return os.path.join(_cache(repository), "refs", repository.revision or "main")


def _keep_revision(repository: Repository, commit: str) -> None:
    """Keeps which commit a revision is, so that it is found offline: the library does so only when it
    is asked for the revision itself, which may be another commit by then.
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


def _not_cached(address: str) -> InputError:
    return InputError(
        address,
        "is not in the cache of huggingface_hub",
        "without --offline (CKPT_OFFLINE, HF_HUB_OFFLINE) it is fetched",
    )


@dataclass(frozen=True, slots=True)
class Listing:
    """What a repository holds at a commit: each file with its size and its digest, as far as the
    hub says.
    """

    commit: str
    files: Mapping[str, Stored]


def _listing(repository: Repository, access: Access) -> Listing:
    """Asked for once; `access` remembers it."""
    from huggingface_hub import HfApi

    key = repository.address("")
    known = access.memory.listings.get(key)
    if isinstance(known, Listing):
        return known
    info = HfApi().repo_info(
        repository.id,
        repo_type=repository.kind,
        revision=repository.revision or None,
        files_metadata=True,
    )
    files = {one.rfilename: _stored(one) for one in getattr(info, "siblings", None) or ()}
    listing = Listing(str(info.sha), files)
    access.memory.listings[key] = listing
    return listing


def _stored(sibling: object) -> Stored:
    lfs = getattr(sibling, "lfs", None)
    return Stored(
        getattr(sibling, "size", None),
        getattr(lfs, "sha256", None) or "",
        getattr(sibling, "blob_id", None) or "",
    )


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

    def open(self, name: str) -> SourceFile:
        """A file in it: from the cache where it is there. Raises InputError."""
        path, address = self._inside(name), self.join(name)
        with in_words(address):
            if local := self._cached(path):
                return SourceFile(local)
            stored = self._listing.files.get(path, NOTHING)
            if name.endswith(_TEXTS) and (stored.size or 0) <= KEPT:
                return SourceFile(self._downloaded(path, address, stored.size))
            held = self._held(path, stored)
        return HubFile(
            address, held, stored, self._part_of(path), lambda: self._whole(path, address)
        )

    def _held(self, path: str, stored: Stored) -> Held:
        """The start of the file; two files of one digest are the same."""
        memory = self._access.memory.held
        key = f"sha256:{stored.sha256}" if stored.sha256 else f"{self._listing.commit}/{path}"
        held = memory.get(key)
        if held is None:
            head, size = self._part_of(path)(0, HEAD)
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
            return SourceFile(self._cached(path) or self._downloaded(path, address, stored.size))

    def _cached(self, path: str) -> str | None:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(
            self._repository.id,
            path,
            revision=self._listing.commit,
            repo_type=self._repository.kind,
        )
        return found if isinstance(found, str) else None

    def _downloaded(self, path: str, address: str, size: int | None) -> str:
        repository = self._repository
        local = download(
            repository.id, path, repository.kind, self._listing.commit, address, size, self._access
        )
        if digest := self._listing.files.get(path, NOTHING).sha256:
            check_digest(local, address, digest)
        _keep_revision(repository, self._listing.commit)
        return local

    def _inside(self, name: str) -> str:
        return f"{self._folder}/{name}" if self._folder else name


@contextmanager
def in_words(address: str) -> Iterator[None]:
    """Turns what huggingface_hub raises into an InputError that says it."""
    try:
        yield
    except CkptError:
        raise
    except Exception as error:
        from ckpt_tool.formats.remote.hub_errors import in_plain_words

        found = in_plain_words(error, address)
        if found is None:
            raise
        raise found from None


if TYPE_CHECKING:
    from ckpt_tool.formats.remote.hub_file import PartOf
