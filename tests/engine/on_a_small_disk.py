"""Maps onto a file system of 6 MB, for `test_faults.py`; prints what happened as JSON. Runs in a mount namespace of its own.

on_a_small_disk.py FOLDER OLD NEW OUT EARLY     OUT: a file or, without an end to its name, a folder of several files
                                                EARLY `yes`: as it is; `no`: nothing asks for the free room, nothing is claimed;
                                                `in place`: OLD's copy gets longer names, without room for them or for a journal
"""

import contextlib
import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from ckpt_tool.api import MappingOptions, map_checkpoint, plan_checkpoint, rename
from ckpt_tool.engine.durable import file as atomic
from ckpt_tool.engine.durable import folder as atomic_folder
from ckpt_tool.errors import OutputError


def main(folder: str, old: str, new: str, name: str, early: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", folder], check=True)
    out = os.path.join(folder, name)
    shard_bytes = None if os.path.splitext(name)[1] else 3 << 20
    map_checkpoint(old, old, out, shard_bytes=shard_bytes)
    before = contents(folder)
    if early == "in place":
        return report(folder, before, lambda: fill_and_rename(folder, out))
    if early == "no":
        atomic.check_room = atomic_folder.check_room = lambda *_: None  # type: ignore[attr-defined]
        os.posix_fallocate = cannot_allocate
    return report(folder, before, lambda: map_checkpoint(new, new, out, force=True, shard_bytes=shard_bytes))


def report(folder: str, before: dict[str, bytes], work: Callable[[], object]) -> None:
    try:
        work()
        error = None
    except OutputError as raised:
        error = str(raised).replace(folder, "")
    there = {name: content for name, content in contents(folder).items() if not name.endswith("/filler")}
    print(json.dumps({"error": error, "is_old": there == before, "names": sorted({*os.listdir(folder)} - {"filler"})}))


def fill_and_rename(folder: str, out: str) -> None:
    """A disk with room for a journal, not for the change itself; then with room for nothing."""
    for left in (3, 0):
        size = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
        with open(os.path.join(folder, "filler"), "ab") as filler:
            os.posix_fallocate(filler.fileno(), filler.tell(), max(0, size - left * 4096))
        with contextlib.suppress(OutputError) if left else contextlib.nullcontext():
            with plan_checkpoint(out, None, MappingOptions(inline=(f"** -> {'x' * 400}.**",)), in_place=True) as work:
                rename(work)
            raise AssertionError("there was room")


def contents(folder: str) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def cannot_allocate(*_: object) -> None:
    raise OSError(errno.EOPNOTSUPP, "")


if __name__ == "__main__":
    main(*sys.argv[1:])
