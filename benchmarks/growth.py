"""How time and memory grow with a checkpoint's bytes and with its keys: `python benchmarks/growth.py [--json FILE] [--chart FILE.svg]`.

Makes checkpoints of 10 MB to 8 GB, and of 100 to 100,000 keys, and runs each command on them as a whole process: medians of three.
Needs 25 GB of disk for the largest, and matplotlib for the chart. `--largest 1000` stops at 1 GB.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from timing import CKPT, ENVIRONMENT, PYTHON, run

MEGABYTES = (10, 100, 1000, 4000, 8000)
KEYS = (100, 1000, 10_000, 100_000)
MAKE = """
import sys, torch
from safetensors.torch import save_file
folder, count, rows = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
columns = 1024 if rows > 2 else 2
state = {f"model.layers.{i // 64}.experts.{i % 64}.weight": torch.full((rows, columns), float(i)) for i in range(count)}
save_file(state, folder + "/a.safetensors")
torch.save(state, folder + "/a.pth")
"""
RULES = """
rules:
  - model.layers.{i}.experts.{e}.weight -> h.{i}.mlp.{e}.w: transpose
"""


def make(folder: Path, count: int, rows: int) -> None:
    """A checkpoint of `count` tensors in both formats, and rules that transpose each."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    subprocess.run([PYTHON, "-c", MAKE, str(folder), str(count), str(rows)], check=True, env=ENVIRONMENT)
    (folder / "rules.yaml").write_text(RULES)


def commands(folder: Path, with_bytes: bool) -> dict[str, list[str]]:
    a, pth, out = (str(folder / name) for name in ("a.safetensors", "a.pth", "out.safetensors"))
    rename = ["-e", "model.** -> net.**"]
    looking = {
        "show, safetensors": [*CKPT, "show", "-q", a],
        "show, .pth": [*CKPT, "show", "-q", pth],
        "diff of .pth and safetensors": [*CKPT, "diff", "-q", pth, a],
        "plan": [*CKPT, "plan", "-q", a, *rename],
        "map --in-place": [*CKPT, "map", "-q", a, "--in-place", "-e", "** -> **"],
    }
    moving = {
        "diff --values, equal": [*CKPT, "diff", "-q", "--values", pth, a],
        "map, rename": [*CKPT, "map", "-q", a, *rename, "-o", out],
        "map, .pth to safetensors": [*CKPT, "map", "-q", pth, "-e", "** -> **", "-o", out],
        "map, transpose all": [*CKPT, "map", "-q", a, "-r", str(folder / "rules.yaml"), "-o", out],
        "cp, then sync": ["bash", "-c", f"cp {a} {out} && sync {out}"],
    }
    return looking | moving if with_bytes else looking | {"map, rename": moving["map, rename"]}


def measured(command: list[str], output: Path, runs: int) -> dict[str, float]:
    seconds, memory = [], 0
    for _ in range(runs):
        output.unlink(missing_ok=True)
        os.sync()
        took, peak = run(command, (0, 1))
        seconds.append(took)
        memory = max(memory, peak)
    return {"seconds": round(statistics.median(seconds), 3), "memory": memory}


def table(results: dict[str, dict[str, dict[str, float]]], unit: str) -> str:
    sizes = list(results)
    lines = ["| | " + " | ".join(f"{int(size):,} {unit}" for size in sizes) + " |", "|---" * (len(sizes) + 1) + "|"]
    for name in results[sizes[0]]:
        cells = (f"{results[size][name]['seconds']:.2f} s, {results[size][name]['memory']:.0f} MB" for size in sizes)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(by_size: dict[str, dict[str, dict[str, float]]], by_keys: dict[str, dict[str, dict[str, float]]], path: str) -> None:
    """Seconds against bytes, and against keys, both axes logarithmic."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "growth"
    from matplotlib import pyplot

    figure, sides = pyplot.subplots(1, 2, figsize=(11, 4.5), sharey=True)
    for side, results, label in ((sides[0], by_size, "megabytes"), (sides[1], by_keys, "keys")):
        for name in next(iter(results.values())):
            style = "--" if name.startswith("cp") else "-"
            seconds = [each[name]["seconds"] for each in results.values()]
            side.loglog([int(size) for size in results], seconds, style, marker=".", label=name)
        side.set_xlabel(label)
        side.grid(alpha=0.3)
    sides[0].set_ylabel("seconds, whole process")
    sides[0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--largest", type=int, default=MEGABYTES[-1], help="megabytes")
    parser.add_argument("--folder", default=str(Path(__file__).parent / ".data" / "growth"))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", help="write the figures here")
    parser.add_argument("--chart", help="draw them here, as .svg")
    options = parser.parse_args()
    folder = Path(options.folder)
    by_size: dict[str, dict[str, dict[str, float]]] = {}
    by_keys: dict[str, dict[str, dict[str, float]]] = {}
    for results, sizes, with_bytes in ((by_keys, KEYS, False), (by_size, [size for size in MEGABYTES if size <= options.largest], True)):
        for size in sizes:
            # By size: 64 tensors of a growing number of rows of 4 kB; by keys: tensors of 16 bytes.
            make(folder, *((64, max(3, size * 1_000_000 // 64 // 4096)) if with_bytes else (size, 2)))
            output, jobs = folder / "out.safetensors", commands(folder, with_bytes)
            results[str(size)] = each = {name: measured(command, output, options.runs) for name, command in jobs.items()}
            print(size, json.dumps(each), file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        Path(options.json).write_text(json.dumps({"megabytes": by_size, "keys": by_keys}, indent=1))
    if options.chart:
        draw(by_size, by_keys, options.chart)
    print(f"{table(by_size, 'MB')}\n\n{table(by_keys, 'keys')}")


if __name__ == "__main__":
    main()
