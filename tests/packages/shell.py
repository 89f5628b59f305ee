"""`ckpt` of this checkout as a program on the path, and repositories of git to use it in."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
WHO = {f"GIT_{who}_{what}": text for who in ("AUTHOR", "COMMITTER") for what, text in (("NAME", "a"), ("EMAIL", "a@b.c"))}


def environment(folder, **more):
    """The environment of a shell whose `ckpt` is this checkout's; the programs lie in `folder`."""
    folder.mkdir(exist_ok=True)
    program = folder / "ckpt"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m ckpt_tool "$@"\n')
    program.chmod(0o755)
    quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_PAGER": "cat"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GITHUB_", "CKPT_"))}
    return {**kept, "PATH": f"{folder}:{os.environ['PATH']}", **WHO, **quiet, **more}


class Repository:
    """A repository of git."""

    def __init__(self, folder, programs):
        self.folder = folder
        self.environment = environment(programs)
        folder.mkdir(exist_ok=True)
        self.git("init", "-q", "-b", "main")

    def run(self, *command, **more):
        return subprocess.run([*map(str, command)], cwd=self.folder, env={**self.environment, **more}, capture_output=True, text=True, check=False)

    def git(self, *arguments):
        ran = self.run("git", *arguments)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def commit(self, message="x"):
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)
        return self.git("rev-parse", "HEAD").strip()
