"""Maps onto a file system of 6 MB, for `test_faults.py`; prints what happened as JSON. Runs in a mount namespace of its own.

on_a_small_disk.py FOLDER OLD NEW EARLY     EARLY `yes`: as it is; `no`: nothing asks for the free room, nothing is claimed
"""

import errno
import json
import os
import shutil
import subprocess
import sys

from ckpt_tool.api import map_checkpoint
from ckpt_tool.engine import atomic
from ckpt_tool.errors import OutputError


def main(folder: str, old: str, new: str, early: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", folder], check=True)
    out = os.path.join(folder, "out.safetensors")
    shutil.copy(old, out)
    if early == "no":
        atomic.check_room = lambda *_: None
        os.posix_fallocate = cannot_allocate
    try:
        map_checkpoint(new, new, out, force=True)
        error = None
    except OutputError as raised:
        error = str(raised).replace(folder, "")
    with open(out, "rb") as left, open(old, "rb") as before:
        print(json.dumps({"error": error, "is_old": left.read() == before.read(), "names": os.listdir(folder)}))


def cannot_allocate(*_: object) -> None:
    raise OSError(errno.EOPNOTSUPP, "")


if __name__ == "__main__":
    main(*sys.argv[1:])
