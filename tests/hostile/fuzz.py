"""Fuzzes the parsers: changes valid inputs by chance, and keeps each one that breaks a promise.

    python tests/hostile/fuzz.py --minutes 60 all             every target, an hour each
    python tests/hostile/fuzz.py --minutes 5 pickle zip       these two
    python tests/hostile/fuzz.py pickle --replay FILE         one input again, with its traceback
    python tests/hostile/fuzz_guided.py pickle --minutes 60   guided by what each input reaches; needs `pip install atheris`

A finding is any exception that is none of ours, more than 10 seconds, more than 600 MB, a control character that would reach the
terminal, a misreading. Each is written to --keep (`fuzz_findings/`), once for each place in the code.
"""

import argparse
import faulthandler
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from random import Random
from types import FrameType

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from tests.hostile.fuzz_targets import TARGETS, Target

SECONDS, MEMORY = 10, 600 << 20


class TookTooLong(BaseException):
    """More than SECONDS for one input."""


def inputs(target: Target, chance: Random) -> Iterator[bytes]:
    """Changed inputs without end; some are changed several times over."""
    made = target.seeds()
    yield from made
    while True:
        raw = chance.choice(made)
        for _ in range(chance.choice((1, 1, 1, 2))):
            try:
                raw = chance.choice(target.changes)(raw, made, chance)
            except Exception:
                break
        yield raw


def try_input(target: Target, raw: bytes, folder: Path) -> BaseException | None:
    """What went wrong with one input, or None."""
    signal.signal(signal.SIGALRM, _too_long)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        target.check(raw, folder / "input.bin")
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return None


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TookTooLong(f"{SECONDS} seconds")


def place_of(error: BaseException) -> str:
    """What an exception is and where it comes from, so that each is kept once."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "ckpt_tool" in frame.filename or "hostile" in frame.filename]
    last = frames[-1] if frames else None
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}" if last else type(error).__name__


def limit_memory() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if Path("/proc/self/statm").exists() else 0
    if used:
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))


class Findings:
    """The tally of one target: each place in the code that broke a promise is told and kept once."""

    def __init__(self, name: str, keep: Path, folder: Path) -> None:
        self.name, self.keep, self.folder = name, keep, folder
        self.found: set[str] = set()
        self.count, self.slowest = 0, 0.0

    def try_input(self, raw: bytes) -> None:
        # What hangs inside of a C function is not reached by signals: the process ends, and the input stays in `folder`.
        faulthandler.dump_traceback_later(6 * SECONDS, exit=True)
        start = time.monotonic()
        error = try_input(TARGETS[self.name], raw, self.folder)
        self.count, self.slowest = self.count + 1, max(self.slowest, time.monotonic() - start)
        faulthandler.cancel_dump_traceback_later()
        if error is not None and (place := place_of(error)) not in self.found:
            self.found.add(place)
            self.keep.mkdir(parents=True, exist_ok=True)
            path = self.keep / f"{self.name}-{sha256(raw).hexdigest()[:8]}"
            path.write_bytes(raw)
            print(f"{self.name}: {place}: {str(error)[:200]!r}; kept as {path}", flush=True)

    def __str__(self) -> str:
        return f"{self.name}: {self.count:,} inputs, the slowest {self.slowest:.2f} s, {len(self.found)} findings"


def fuzz(name: str, seconds: float, keep: Path, seed: int) -> int:
    """Runs one target; gives the number of findings."""
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        findings = Findings(name, keep, Path(folder))
        for raw in inputs(TARGETS[name], Random(seed)):
            if time.monotonic() > end:
                break
            findings.try_input(raw)
    print(findings, flush=True)
    return len(findings.found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="+", choices=[*TARGETS, "all"], metavar="TARGET", help=" ".join(TARGETS))
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="the same seed gives the same inputs")
    parser.add_argument("--keep", type=Path, default=Path("fuzz_findings"))
    parser.add_argument("--replay", type=Path)
    chosen = parser.parse_args()
    limit_memory()
    if chosen.replay:
        with tempfile.TemporaryDirectory() as folder:
            TARGETS[chosen.targets[0]].check(chosen.replay.read_bytes(), Path(folder) / "input.bin")
        return
    names = list(TARGETS) if "all" in chosen.targets else chosen.targets
    sys.exit(bool(sum([fuzz(name, chosen.minutes * 60, chosen.keep, chosen.seed) for name in names])))


if __name__ == "__main__":
    main()
