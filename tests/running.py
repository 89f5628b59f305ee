"""Runs `ckpt` as a user does: a process of its own, its exit status, what it prints where."""

import os
import subprocess
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Ran:
    status: int
    out: str
    err: str


def ckpt(*arguments, cwd=None, stdin=None, env=None) -> Ran:
    command = [sys.executable, "-m", "ckpt_tool", *map(str, arguments)]
    process = subprocess.run(command, cwd=cwd, input=stdin, capture_output=True, text=True, env={**os.environ, **(env or {})}, check=False)
    return Ran(process.returncode, process.stdout, process.stderr)


def in_shell(line, cwd) -> Ran:
    """Runs a line of the shell, in which `"$0" -m ckpt_tool` is `ckpt`: for its redirections and limits."""
    process = subprocess.run(["sh", "-c", line, sys.executable], cwd=cwd, capture_output=True, text=True, check=False)
    return Ran(process.returncode, process.stdout, process.stderr)
