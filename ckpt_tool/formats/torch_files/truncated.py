"""How much is missing of one of torch's zip archives that broke off: its pickle comes first and
says how large all storages are.
"""

from collections.abc import Callable

from ckpt_tool.errors import FormatError
from ckpt_tool.formats.archives.zip_local_headers import LOCAL_BYTES, first_member
from ckpt_tool.formats.files import SourceFile, truncated
from ckpt_tool.formats.limits import MiB
from ckpt_tool.formats.pickle.machine import PickleMachine
from ckpt_tool.formats.pickle.values import StorageRef

MAX_BYTES = 16 * MiB
"""What is looked through for the pickle; that of a hundred thousand tensors has so many."""


def with_what_is_missing(
    error: FormatError, file: SourceFile, storage_ids: Callable[[object], StorageRef]
) -> FormatError:
    """The error with the number of missing bytes, as far as the file's beginning shows it; else the
    error as it is.
    """
    name, start = first_member(file)
    if not name.endswith("/data.pkl"):
        return error
    sizes: dict[str, int] = {}

    def note(identity: object) -> object:
        storage = storage_ids(identity)
        sizes[storage.key] = storage.count * storage.itemsize
        return storage

    machine = PickleMachine(file.read(start, min(file.size - start, MAX_BYTES)), persistent=note)
    try:
        machine.load(file.path, name)
    except FormatError:
        return error
    needed = start + machine.pos + sum(LOCAL_BYTES + size for size in sizes.values())
    return truncated(file.path, needed, file.size) if needed > file.size else error
