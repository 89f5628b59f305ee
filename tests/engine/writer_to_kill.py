"""A process that writes checkpoints until it is killed, for `test_kills.py`.

writer_to_kill.py loop OUT SOURCE SOURCE …       writes each source to OUT in turn, for ever, after saying `ready`
writer_to_kill.py step N OUT SOURCE              writes once, and kills itself at the N-th change of the file system
"""

import itertools
import os
import signal
import sys

from ckpt_tool.api import map_checkpoint

CHANGES = ("open", "fchmod", "posix_fallocate", "pwrite", "copy_file_range", "fsync", "replace", "link", "unlink")


def kill_at(step: int) -> None:
    """Odd steps die before a change, even ones after it."""
    count = itertools.count(1)
    for name in CHANGES:
        real = getattr(os, name)

        def call(*arguments, real=real, **options):
            _die_if(next(count) == step)
            made = real(*arguments, **options)
            _die_if(next(count) == step)
            return made

        setattr(os, name, call)


def _die_if(is_time: bool) -> None:
    if is_time:
        os.kill(os.getpid(), signal.SIGKILL)


def write(source: str, out: str) -> None:
    map_checkpoint(source, source, out, force=True)


def main(mode: str, *arguments: str) -> None:
    if mode == "step":
        step, out, source = arguments
        kill_at(int(step))
        write(source, out)
    else:
        out, *sources = arguments
        write(sources[0], out)
        print("ready", flush=True)
        for source in itertools.cycle(sources):
            write(source, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
