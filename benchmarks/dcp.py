"""A distributed checkpoint of 8 ranks into one safetensors file, beside `cp` and `sync` of as many bytes: `python benchmarks/dcp.py [GB]`."""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard

RANKS, RUNS, TENSORS = 8, 5, 20


def save(rank: int, folder: str, size: float) -> None:
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29577",
        "RANK": str(rank),
        "WORLD_SIZE": str(RANKS),
    }
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (RANKS,))
    rows = int(size * 1e9 / 4 / TENSORS / 4096 / RANKS)
    torch.manual_seed(rank)
    state = {
        f"layers.{at}.weight": DTensor.from_local(torch.randn(rows, 4096), mesh, [Shard(0)])
        for at in range(TENSORS)
    }
    dcp.save(state, checkpoint_id=folder)
    dist.destroy_process_group()


def seconds(command: list[str]) -> tuple[float, int]:
    """The time of a command and the sync behind it, and the most memory of any command so far, in MB."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    os.sync()
    return time.perf_counter() - start, resource.getrusage(
        resource.RUSAGE_CHILDREN
    ).ru_maxrss // 1024


def peak(command: list[str]) -> int:
    """The most memory that a command takes by itself, in MB."""
    code = "import resource,subprocess,sys;subprocess.run(sys.argv[1:],check=True,stdout=subprocess.DEVNULL);"
    code += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss//1024)"
    return int(
        subprocess.run(
            [sys.executable, "-c", code, *command], check=True, capture_output=True, text=True
        ).stdout
    )


def main() -> None:
    size = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", ".")) as place:
        folder, out, copy = Path(place, "run"), Path(place, "out.safetensors"), Path(place, "copy")
        mp.spawn(save, (str(folder), size), RANKS)
        shutil.copy(next(folder.glob("*.distcp")), copy)
        whole = Path(place, "whole")
        ours = [
            sys.executable,
            "-m",
            "ckpt_tool",
            "map",
            str(folder),
            "-e",
            "** -> **",
            "-q",
            "-o",
            str(out),
        ]
        subprocess.run(ours, check=True, stdout=subprocess.DEVNULL)
        shutil.copy(out, whole)
        os.sync()
        pairs = []
        for _ in range(RUNS):
            copy.unlink(missing_ok=True)
            theirs = seconds(["cp", str(whole), str(copy)])[0]
            out.unlink(missing_ok=True)
            pairs.append((theirs, seconds(ours)[0]))
        cp, map_ = (median(column) for column in zip(*pairs, strict=True))
        print(
            f"{size:g} GB, {TENSORS} tensors in the files of {RANKS} ranks, medians of {RUNS} runs by turns\n"
        )
        print("| cp and sync | ckpt map folder -o file | ratio | memory |\n|---|---|---|---|")
        out.unlink()
        print(f"| {cp:.2f} s | {map_:.2f} s | {map_ / cp:.2f} | {peak(ours)} MB |")


if __name__ == "__main__":
    main()
