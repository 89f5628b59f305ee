"""Maps onto a file system of 6 MB, for `test_faults.py`; prints what happened as JSON. Runs in a mount namespace of its own.

on_a_small_disk.py FOLDER OLD NEW OUT EARLY     OUT: a file or, without an end to its name, a folder of several files
                                                EARLY `yes`: as it is; `no`: nothing asks for the free room, nothing is claimed
"""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

from ckpt_tool.api import map_checkpoint
from ckpt_tool.engine import atomic, atomic_folder
from ckpt_tool.errors import OutputError


def main(folder: str, old: str, new: str, name: str, early: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", folder], check=True)
    out = os.path.join(folder, name)
    shard_bytes = None if os.path.splitext(name)[1] else 3 << 20
    map_checkpoint(old, old, out, shard_bytes=shard_bytes)
    before = contents(folder)
    if early == "no":
        atomic.check_room = atomic_folder.check_room = lambda *_: None
        os.posix_fallocate = cannot_allocate
    try:
        map_checkpoint(new, new, out, force=True, shard_bytes=shard_bytes)
        error = None
    except OutputError as raised:
        error = str(raised).replace(folder, "")
    print(json.dumps({"error": error, "is_old": contents(folder) == before, "names": os.listdir(folder)}))


def contents(folder: str) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def cannot_allocate(*_: object) -> None:
    raise OSError(errno.EOPNOTSUPP, "")


if __name__ == "__main__":
    main(*sys.argv[1:])
