"""One job and its yardstick, run by turns as whole processes: seconds, and the peak memory of ours."""

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

PYTHON = sys.executable
CKPT = [PYTHON, "-m", "ckpt_tool"]
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""Python keeps compiled modules, as it does wherever a package was installed."""


@dataclass(frozen=True)
class Row:
    """A job: our command, its yardstick, the most that their ratio may be, and the most memory in MB."""

    name: str
    ours: list[str]
    yardstick: list[str]
    limit: float
    memory: int | None = None
    runs: int = 7
    output: str | None = None
    check: Callable[[], None] | None = None
    statuses: tuple[int, ...] = (0,)
    counts_cpu: bool = False
    """CPU seconds, user's and system's, instead of those of a clock on the wall."""


@dataclass
class Measured:
    ours: list[float] = field(default_factory=list)
    yardstick: list[float] = field(default_factory=list)
    memory: int = 0

    @property
    def ratio(self) -> float:
        return statistics.median(self.ours) / statistics.median(self.yardstick)


def run(command: list[str], statuses: tuple[int, ...], counts_cpu: bool = False) -> tuple[float, int]:
    """Seconds and peak memory in MB of a process. Raises RuntimeError with what it said where it fails."""
    with open(os.devnull, "wb") as nothing:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=nothing, stderr=subprocess.PIPE, env=ENVIRONMENT)
        said = process.stderr.read() if process.stderr else b""
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in statuses:
        raise RuntimeError(f"{' '.join(command)}: exit status {process.returncode}: {said.decode(errors='replace')[-500:]}")
    return usage.ru_utime + usage.ru_stime if counts_cpu else seconds, usage.ru_maxrss // 1024


def measure(row: Row) -> Measured:
    """Both sides by turns; the first turn warms caches and is not counted."""
    measured = Measured()
    for turn in range(row.runs + 1):
        for side, command in (("ours", row.ours), ("yardstick", row.yardstick)):
            if row.output and Path(row.output).exists():
                remove(row.output)
            os.sync()
            seconds, memory = run(command, row.statuses if side == "ours" or command[:4] == [*CKPT, "diff"] else (0,), row.counts_cpu)
            if side == "ours":
                measured.memory = max(measured.memory, memory)
                if turn == 0 and row.check:
                    row.check()
            if turn:
                getattr(measured, side).append(seconds)
    if row.output and Path(row.output).exists():
        remove(row.output)
    return measured


def remove(path: str) -> None:
    shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)


def python(code: str) -> list[str]:
    return [PYTHON, "-c", code]


def shell(command: str) -> list[str]:
    return ["bash", "-c", command]
