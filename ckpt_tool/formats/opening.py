"""Opens whatever a path means: a file of any format, a folder, an index, a key list, a state dict
inside of a file.
"""

from __future__ import annotations

import gc
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING

from ckpt_tool.errors import FormatError, InputError
from ckpt_tool.formats.checkpoint import Checkpoint
from ckpt_tool.formats.files import AGAIN, SourceFile
from ckpt_tool.formats.folder import Folder, LocalFolder, folder_of
from ckpt_tool.formats.limits import KEY_LIST_BYTES
from ckpt_tool.formats.partial_models import with_layout
from ckpt_tool.formats.registry import FORMATS, HEAD
from ckpt_tool.formats.remote.addresses import is_address, is_named, shown
from ckpt_tool.formats.sharded.journal import refuse_half_changed
from ckpt_tool.formats.sharded.parts import DATA_SUFFIX, METADATA, Parts
from ckpt_tool.frozen import frozen

if TYPE_CHECKING:
    from ckpt_tool.formats.sharded.numbered import Numbered

STDIN = "-"


def open_checkpoint(path: str | os.PathLike[str], like: Checkpoint | None = None) -> Checkpoint:
    """The checkpoint at `path`: `run.pth`, a folder, `model.safetensors.index.json`, a key list,
    `-` for one on stdin.

    `run.pth#ema` takes the state dict of that name inside the file, `run.pth#.` all of the file
    under its full paths. Reads what describes the tensors, not their values; what the open
    checkpoint `like` describes by the same bytes is not read again. Raises InputError
    where there is no such thing, FormatError where it is broken or of no known format.
    """
    path = os.fspath(path)
    if path == STDIN:
        from ckpt_tool.formats.key_list import read_key_list

        return Checkpoint(path, "key list", read_key_list(sys.stdin.buffer, "standard input"))
    location, wanted = split_fragment(path)
    if not is_named(location):
        return _open_at(location, path, wanted, like)
    try:
        return _open_at(location, path, wanted, like)
    except InputError as error:
        if error.path != location:
            error.path = f"{location} ({error.path})"
        raise


def _open_at(location: str, path: str, wanted: str, like: Checkpoint | None) -> Checkpoint:
    path = shown(path) if is_address(location) else path
    folder, name = _place_of(location)
    if name is None:
        from ckpt_tool.formats.sharded.folders import find_checkpoint

        found = find_checkpoint(folder)
        if isinstance(found, Parts):
            return _open_parts(found, path, wanted)
        if not isinstance(found, str):
            return _open_shards(folder, path, wanted, found)
        name = found
    if name == METADATA:
        return _open_dcp(folder, path, wanted)
    if name.endswith(DATA_SUFFIX):
        raise _data_file(folder, name)
    refuse_half_changed(folder.join(name))
    file = folder.open(name)
    try:
        with collector_paused():
            return _open_file(_Found(file, folder, name), path, wanted, like)
    except FormatError as error:
        file.close()
        raise file.refused(error) from None
    except BaseException:
        file.close()
        raise


def _open_dcp(folder: Folder, path: str, wanted: str) -> Checkpoint:
    from ckpt_tool.formats.distributed.dcp.folder import open_dcp

    with collector_paused():
        return open_dcp(folder, path, wanted)


def _data_file(folder: Folder, name: str) -> InputError:
    """The error of a file of a distributed checkpoint, which may look like an archive."""
    folder.open(name).close()
    return FormatError(
        folder.join(name),
        "is a data file of a distributed checkpoint (DCP): "
        "parts of tensors, which the `.metadata` beside it describes",
        f"name the folder: {folder.path or os.curdir}"
        if folder.is_here
        else f"name that one: {folder.join('.metadata')}",
    )


@frozen
class _Found:
    """An open file, and where it lies."""

    file: SourceFile
    folder: Folder
    name: str


def _place_of(location: str) -> tuple[Folder, str | None]:
    """The folder, and the name of the file in it where one is meant."""
    if is_address(location):
        from ckpt_tool.formats.remote.places import find_place

        place = find_place(location)
        if place.folder is not None:
            return place.folder, place.name
        location = place.path
    if _is_folder(location):
        return LocalFolder(location), None
    return folder_of(location), os.path.basename(location)


def _open_shards(folder: Folder, path: str, wanted: str, found: Numbered) -> Checkpoint:
    from ckpt_tool.formats.sharded.numbered import open_numbered

    _refuse_unused(path, wanted)
    with collector_paused():
        return open_numbered(folder, path, found)


def _open_parts(found: Parts, path: str, wanted: str) -> Checkpoint:
    if found.kind == "zero steps":
        from ckpt_tool.formats.distributed.zero.names import latest_step

        checkpoint = open_checkpoint(f"{latest_step(found.folder)}{'#' if wanted else ''}{wanted}")
        checkpoint.path = path
        return checkpoint
    from ckpt_tool.formats.distributed.parts import open_parts

    with collector_paused():
        return open_parts(found, path, wanted)


@contextmanager
def collector_paused() -> Iterator[None]:
    """For work that makes many small objects that stay, and no cycles, as opening a file and
    planning do: looking for cycles among them would double its time.
    """
    was_enabled = gc.isenabled()
    if was_enabled:  # else another thread has paused it, and may go on before this one does
        gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def split_fragment(path: str) -> tuple[str, str]:
    """`run.pth#ema` as `run.pth` and `ema`; a file that really has such a name is meant
    as a whole.
    """
    location, mark, wanted = path.rpartition("#")
    if not mark or not location or os.path.lexists(path):
        return path, ""
    return location, wanted


def _is_folder(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False  # opening it says why


def _open_file(found: _Found, path: str, wanted: str, like: Checkpoint | None) -> Checkpoint:
    file = found.file
    if not file.size:
        raise FormatError(file.path, "is empty (zero bytes)", AGAIN)
    head = file.read(0, min(file.size, HEAD))
    for format in FORMATS:
        if format.recognise(head, file.size):
            if not format.has_names:
                _refuse_unused(path, wanted)
            contents = format.read(file, wanted, like.contents.kept if like else None)
            contents = with_layout(contents, found.folder, found.name)
            return Checkpoint(path, format.name, contents, (file,))
    return _open_text(found, head, path, wanted)


def _open_text(found: _Found, head: bytes, path: str, wanted: str) -> Checkpoint:
    """Key lists and indexes, which no first bytes mark; or the refusal that says what the
    file is.
    """
    from ckpt_tool.formats.key_list import is_key_list, read_key_list
    from ckpt_tool.formats.sharded.index import is_index, open_index
    from ckpt_tool.formats.unsupported import refuse_foreign, unknown_format

    file = found.file
    if is_index(file, head):
        return open_index(file, found.folder, path, wanted)
    try:
        refuse_foreign(file, head)
        if not is_key_list(file.path, head):
            raise unknown_format(file, head)
    except FormatError as error:
        raise file.refused(error, is_known=False) from None
    _refuse_unused(path, wanted)
    contents = read_key_list(BytesIO(file.read(0, min(file.size, KEY_LIST_BYTES + 1))), file.path)
    return Checkpoint(path, "key list", contents, (file,))


def _refuse_unused(path: str, wanted: str) -> None:
    """Formats that hold a single state dict have no names for it."""
    if wanted:
        raise InputError(
            path,
            f"no state dict in the file is named `{wanted}`",
            "it holds one, which has no name",
        )
