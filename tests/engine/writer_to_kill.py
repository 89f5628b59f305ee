"""A process that writes checkpoints until it is killed, for `test_kills.py` and `test_folder_kills.py`.

writer_to_kill.py loop OUT SOURCE SOURCE …       writes each source to OUT in turn, for ever, after saying `ready`
writer_to_kill.py steps OUT SOURCE               for each number N it reads: writes once, in a child that kills itself at the N-th
                                                 change of the file system, and prints the child's exit status

An OUT whose name has no end is a folder of several files.
"""

import itertools
import os
import signal
import sys

from ckpt_tool.api import map_checkpoint
from ckpt_tool.engine.durable import folder as atomic_folder

CHANGES = (
    "open",
    "mkdir",
    "chmod",
    "fchmod",
    "posix_fallocate",
    "pwrite",
    "copy_file_range",
    "fsync",
    "replace",
    "rename",
    "link",
    "unlink",
    "rmdir",
)
SHARD_BYTES = 5 << 20


def kill_at(step: int) -> None:
    """Odd steps die before a change, even ones after it."""
    count = itertools.count(1)
    for owner, name in [*((os, name) for name in CHANGES), (atomic_folder, "_exchange")]:
        real = getattr(owner, name)

        def call(*arguments, real=real, **options):
            _die_if(next(count) == step)
            made = real(*arguments, **options)
            _die_if(next(count) == step)
            return made

        setattr(owner, name, call)


def _die_if(is_time: bool) -> None:
    if is_time:
        os.kill(os.getpid(), signal.SIGKILL)


def write(source: str, out: str) -> None:
    is_folder = not os.path.splitext(out)[1]
    map_checkpoint(source, source, out, force=True, shard_bytes=SHARD_BYTES if is_folder else None)


def write_in_steps(out: str, source: str) -> None:
    for line in sys.stdin:
        child = os.fork()
        if not child:
            kill_at(int(line))
            write(source, out)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def write_for_ever(out: str, *sources: str) -> None:
    write(sources[0], out)
    print("ready", flush=True)
    for source in itertools.cycle(sources):
        write(source, out)


if __name__ == "__main__":
    {"loop": write_for_ever, "steps": write_in_steps}[sys.argv[1]](*sys.argv[2:])
