"""Repositories of the Hugging Face hub, through huggingface_hub: `hf://owner/name[@revision][/path]`.

The hub is asked once what a repository holds; headers come by ranges, small files and values
through the library's own cache.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Collection, Mapping

from ckpt_tool.errors import InputError
from ckpt_tool.formats.folder import Folder, LocalFolder
from ckpt_tool.formats.remote.access import Access
from ckpt_tool.formats.remote.hub.cache import snapshot
from ckpt_tool.formats.remote.hub.errors import in_words
from ckpt_tool.formats.remote.hub.file import Stored
from ckpt_tool.formats.remote.hub.folder import HubFolder, Listing
from ckpt_tool.formats.remote.hub.repository import Repository, parse

_STEMS = ("model", "diffusion_pytorch_model", "adapter_model")
USUAL_SAFE = tuple(
    f"{stem}{suffix}" for suffix in (".safetensors.index.json", ".safetensors") for stem in _STEMS
)
USUAL_PICKLED = tuple(
    f"{stem}.bin{suffix}" for suffix in (".index.json", "") for stem in (*_STEMS, "pytorch_model")
)


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
    if not pickled or len({name.partition(".")[0] for name in safe}) != 1:
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
    place = snapshot(repository)
    if place is None:
        raise _not_cached(address, access)
    path = os.path.join(place, *repository.path.split("/")) if repository.path else place
    if not os.path.lexists(path):
        raise _not_cached(address, access)
    access.check_file(path, address)
    if os.path.isdir(path):
        folder = LocalFolder(path)
        return folder, _preferred(folder.names(), address, access)
    return LocalFolder(os.path.dirname(path)), os.path.basename(path)


def _not_cached(address: str, access: Access) -> InputError:
    return InputError(
        address,
        "is not in the cache of huggingface_hub",
        f"without {access.option('offline')} (CKPT_OFFLINE, HF_HUB_OFFLINE) it is fetched",
    )


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
    if outside := next((name for name in files if _is_outside(name)), None):
        raise InputError(
            key, f"the hub lists `{outside[:200]}`, which is not a path in a repository"
        )
    listing = Listing(str(info.sha), files)
    access.memory.listings[key] = listing
    return listing


def _is_outside(name: str) -> bool:
    return name.startswith("/") or ".." in name.split("/")


def _stored(sibling: object) -> Stored:
    lfs = getattr(sibling, "lfs", None)
    return Stored(
        getattr(sibling, "size", None),
        getattr(lfs, "sha256", None) or "",
        getattr(sibling, "blob_id", None) or "",
    )
