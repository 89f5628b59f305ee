"""Renames in place, and kills itself at the N-th change of the file system, for `test_in_place.py`.

renamer_to_kill.py FILE PREFIX        for each number N it reads, renames once in a child, and prints the child's exit status;
                                      odd steps die before a change, even ones after it
"""

import itertools
import os
import signal
import sys

from ckpt_tool.api import MappingOptions, plan_checkpoint, rename
from ckpt_tool.engine.in_place import journal


def kill_at(step: int) -> None:
    count = itertools.count(1)

    def dying(real):
        def call(*arguments, **options):
            _die_if(next(count) == step)
            made = real(*arguments, **options)
            _die_if(next(count) == step)
            return made

        return call

    for name in ("open", "pwrite", "fsync", "unlink", "ftruncate"):
        setattr(os, name, dying(getattr(os, name)))
    journal._fallocate = dying(journal._fallocate)


def _die_if(is_time: bool) -> None:
    if is_time:
        os.kill(os.getpid(), signal.SIGKILL)


def rename_in_steps(path: str, prefix: str) -> None:
    for line in sys.stdin:
        child = os.fork()
        if not child:
            with plan_checkpoint(path, None, MappingOptions(inline=(f"** -> {prefix}**",)), in_place=True) as work:
                kill_at(int(line))
                rename(work)
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    rename_in_steps(*sys.argv[1:])
