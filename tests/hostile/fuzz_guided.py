"""The fuzz targets with libFuzzer behind them, which keeps an input that reaches code that none has reached before.

    pip install atheris
    python tests/hostile/fuzz_guided.py pickle --minutes 60 [--corpus FOLDER]

Findings are told and kept as `fuzz.py` does. Inputs that reached something new stay in --corpus (`fuzz_corpus/TARGET`), from which
the next run goes on. Minutes are the processor's, so that an hour on a busy machine is as long as on a quiet one; a folder in memory
(`TMPDIR=/dev/shm`) gives more inputs in each.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import atheris

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

with atheris.instrument_imports(include=["ckpt_tool"], enable_loader_override=False):
    from tests.hostile.fuzz import Findings, limit_memory
    from tests.hostile.fuzz_targets import TARGETS


def write_corpus(name: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, raw in enumerate(TARGETS[name].seeds()):
        (folder / f"seed-{number}").write_bytes(raw)


def changer(name: str):  # type: ignore[no-untyped-def]
    """Half of all changes are libFuzzer's own, half are the target's."""
    target, others = TARGETS[name], TARGETS[name].seeds()

    def change(raw: bytes, most: int, seed: int) -> bytes:
        chance = Random(seed)
        if chance.random() < 0.5:
            return bytes(atheris.Mutate(raw, most))
        try:
            return chance.choice(target.changes)(raw, others, chance)[:most]
        except Exception:
            return bytes(atheris.Mutate(raw, most))

    return change


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=[*TARGETS], metavar="TARGET", help=" ".join(TARGETS))
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--keep", type=Path, default=Path("fuzz_findings"))
    parser.add_argument("--corpus", type=Path, default=Path("fuzz_corpus"))
    chosen = parser.parse_args()
    folder = tempfile.TemporaryDirectory()
    findings, corpus = Findings(chosen.target, chosen.keep, Path(folder.name)), chosen.corpus / chosen.target
    write_corpus(chosen.target, corpus)

    def try_one(raw: bytes) -> None:
        findings.try_input(raw)
        if time.process_time() > chosen.minutes * 60:
            print(findings, flush=True)
            folder.cleanup()
            # libFuzzer would end the process without a word.
            os._exit(bool(findings.found))

    limit_memory()
    options = ["-timeout=0", "-rss_limit_mb=0", "-max_len=100000", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], try_one, custom_mutator=changer(chosen.target))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
