"""Which place an address leads to: a file in a folder, or a folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit
from urllib.request import url2pathname

from ckpt_tool.errors import InputError
from ckpt_tool.formats.folder import Folder, folder_of, names_in
from ckpt_tool.formats.remote.access import Access, current_access
from ckpt_tool.formats.remote.addresses import is_named, scheme_of, shown


@dataclass(frozen=True, slots=True)
class Place:
    """A folder, and the name of the file in it where one is meant; or a path here."""

    folder: Folder | None
    name: str | None = None
    path: str = ""


def find_place(address: str) -> Place:
    """Where an address leads to. Raises InputError where there is nothing."""
    try:
        return _find(address, current_access())
    except ValueError as error:  # of urlsplit
        raise InputError(shown(address), f"is not an address: {error}") from None


def _find(address: str, access: Access) -> Place:
    if is_named(address):
        from ckpt_tool.formats.remote.named_weights import address_of

        address = address_of(address)
    memory = access.memory
    memory.has_opened = True
    address = memory.with_secret(memory.without_secret(address))
    match scheme_of(address):
        case "http" | "https":
            from ckpt_tool.formats.remote.web.folder import NamedInUrl

            folder = NamedInUrl(address, access)
            return Place(folder, folder.file_name)
        case "hf":
            from ckpt_tool.formats.remote.hub.find import find_in_hub

            return Place(*find_in_hub(address, access))
        case "file":
            path = path_in(address)
            access.check_file(path, address)
            return Place(None, path=path)
        case _:
            from ckpt_tool.formats.remote.filesystems import find_in_filesystem

            return Place(*find_in_filesystem(address, access))


def path_in(address: str) -> str:
    """The path here that `file:///data/a%20b.pth` names. Raises InputError where it names none."""
    parts = urlsplit(address)
    if parts.netloc not in ("", "localhost"):
        raise InputError(
            shown(address),
            f"names a host, `{shown(address)[7:].partition('/')[0]}`, and files are opened here",
            "an absolute path has three slashes: file:///data/model.pth",
        )
    if not parts.path:
        raise InputError(address, "names no file", "file:///data/model.pth does")
    return url2pathname(parts.path)


def read_beside(address: str, names: Iterable[str], limit: int) -> tuple[str, bytes]:
    """The first of these files that lies beside a checkpoint, or in its folder, and its content;
    nothing where there is none, or nobody can tell. Raises InputError for one beyond `limit` bytes.
    """
    place = find_place(address)
    folder = place.folder or folder_of(place.path)
    known = names_in(folder)
    name = next((name for name in names if name in known), None)
    if name is None:
        return "", b""
    with folder.open(name) as file:
        if file.size > limit:
            raise InputError(file.path, f"is larger than {limit:,} bytes")
        return folder.join(name), file.read(0, file.size)
