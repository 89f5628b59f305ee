"""A checkpoint of 1 GB into a live model, beside torch's own way: `python benchmarks/loading.py [GB]`.

CPU seconds and wall, medians of runs by turns, files in the page cache; then the most memory over the model, in a process of its own each.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from statistics import median

import torch
from safetensors.torch import load_file, save_file
from torch import nn

import ckpt_tool
from ckpt_tool.formats.placements.byte_ranges import room

RUNS = 7
KEYS = 4000


def network(gigabytes: float, embedding: float = 0.1) -> nn.Module:
    """Blocks of four matrices of 1024 columns, and an embedding that has this share of the bytes."""
    rows = int(gigabytes * 1e9 * embedding / 4 / 1024)
    blocks = max(1, int(gigabytes * 1e9 * (1 - embedding) / 4 / 1024 / 4096))
    return nn.ModuleDict(
        {
            "embed": nn.Embedding(rows, 1024),
            "blocks": nn.ModuleList(nn.ModuleList(nn.Linear(1024, 1024) for _ in range(4)) for _ in range(blocks)),
        }
    )


def many_keys() -> nn.Module:
    """Four thousand small tensors, in blocks as networks have them."""
    return nn.ModuleList(nn.ModuleList(nn.Linear(8, 8) for _ in range(20)) for _ in range(KEYS // 40))


def theirs(model: nn.Module, path: str, assign: bool = False) -> None:
    state = load_file(path) if path.endswith(".safetensors") else torch.load(path, mmap=True, weights_only=True)
    model.load_state_dict(state, assign=assign)


def ours(model: nn.Module, path: str) -> None:
    ckpt_tool.load_into(model, path)


def onto_meta(path: str) -> None:
    with torch.device("meta"):
        model = network(SIZE)
    ours(model, path)


def only_read(path: str) -> None:
    with open(path, "rb", buffering=0) as file:
        content = bytearray(os.path.getsize(path))
        view = memoryview(content)
        while view:
            view = view[file.readinto(view[: 1 << 30]) :]


def touch(size: int) -> None:
    """Takes memory and gives it back, so that neither side waits for a host: that of a virtual machine may have taken free memory away."""
    memory = room(size)
    for at in range(0, size, 4096):
        memory[at] = 1


def cost(work: Callable[[], object]) -> tuple[float, float]:
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    work()
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def compare(name: str, one: Callable[[], object], other: Callable[[], object], takes: float = 0) -> None:
    """The cost of both by turns; `takes` are the GB of new memory that both need."""

    def both() -> list[tuple[float, float]]:
        return [(touch(int(takes * 1e9)), cost(work))[1] for work in (one, other)]

    both()
    pairs = [both() for _ in range(RUNS)]
    cpu, wall = ([median(pair[side][at] for pair in pairs) for side in (0, 1)] for at in (0, 1))
    print(f"| {name} | {cpu[0]:.3f} | {cpu[1]:.3f} | {cpu[1] / cpu[0]:.2f} | {wall[1] / wall[0]:.2f} |", flush=True)


def peak(path: str, device: str, share: float) -> int:
    """The most memory that a load takes beside the model, in MB."""
    code = (
        "import sys;sys.path.insert(0,'benchmarks');import loading,resource,torch,ckpt_tool;"
        f"ctx=torch.device({device!r});ctx.__enter__();m=loading.network({SIZE},{share});ctx.__exit__(None,None,None);"
        "b=int(open('/proc/self/status').read().split('VmRSS:')[1].split()[0])//1024;"
        f"loading.ours(m,{path!r});print(int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])//1024-b)"
    )
    return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


SIZE = float(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1][0].isdigit() else 1.0


def main() -> None:
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", ".")) as folder:
        model = network(SIZE)
        saved = {"safetensors": f"{folder}/m.safetensors", "pth": f"{folder}/m.pth"}
        save_file(model.state_dict(), saved["safetensors"])
        torch.save(model.state_dict(), saved["pth"])
        print(f"{SIZE:g} GB, {len(model.state_dict())} tensors, medians of {RUNS} runs by turns\n")
        print("| into | torch, CPU s | load_into, CPU s | ratio | ratio of wall |\n|---|---|---|---|---|")
        for kind, path in saved.items():
            compare(f"CPU, {kind}", lambda path=path: theirs(model, path), lambda path=path: ours(model, path))
        for kind, path in saved.items():
            compare(f"meta, {kind}, against reading the bytes", lambda path=path: only_read(path), lambda path=path: onto_meta(path), SIZE)
        for name, small in (("in blocks", many_keys()), ("in one list", nn.ModuleList(nn.Linear(8, 8) for _ in range(KEYS // 2)))):
            keys = f"{folder}/keys.safetensors"
            save_file(small.state_dict(), keys)
            compare(f"{KEYS} keys, {name}", lambda small=small, keys=keys: theirs(small, keys), lambda small=small, keys=keys: ours(small, keys))
        print("\n| memory over the model | MB |\n|---|---|")
        for share in (0.1, 0.7):
            embedding = network(SIZE, share)
            path = f"{folder}/e{share}.safetensors"
            save_file(embedding.state_dict(), path)
            print(f"| the largest tensor {share:.0%} of it | {peak(path, 'cpu', share)} |", flush=True)
            os.unlink(path)


if __name__ == "__main__":
    main()
