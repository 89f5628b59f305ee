"""`ckpt show --health` beside `cmp`, which reads two files of that size: `python benchmarks/health.py [GB]`."""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from safetensors.torch import save_file

RUNS = 7
COLUMNS = 4096


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    size = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    print(f"{size:g} GB of 24 matrices, medians of {RUNS} runs by turns, warm\n")
    print("| type | cmp A B | ckpt show --health A | ratio |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        a, b = Path(folder, "a.safetensors"), Path(folder, "b.safetensors")
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            rows = int(size * 1e9 / dtype.itemsize / 24 / COLUMNS)
            torch.manual_seed(0)
            save_file(
                {
                    f"layers.{at}.weight": (torch.randn(rows, COLUMNS) * 0.02).to(dtype)
                    for at in range(24)
                },
                a,
            )
            shutil.copy(a, b)
            pairs = [
                (
                    seconds(["cmp", str(a), str(b)]),
                    seconds([sys.executable, "-m", "ckpt_tool", "show", "--health", str(a)]),
                )
                for _ in range(RUNS)
            ]
            cmp, health = (median(column) for column in zip(*pairs, strict=True))
            print(
                f"| {str(dtype).removeprefix('torch.')} | {cmp:.2f} s | {health:.2f} s | {health / cmp:.2f} |"
            )


if __name__ == "__main__":
    main()
