"""FSDP2 models on several processes: `load_into` beside `dcp.load` with HuggingFaceStorageReader, from one safetensors file: `python benchmarks/sharded.py [GB]`."""

from __future__ import annotations

import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp
from loading import touch
from safetensors.torch import save_file
from torch import nn
from torch.distributed.checkpoint import HuggingFaceStorageReader
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import ckpt_tool
from ckpt_tool.formats import SourceFile

RUNS, COLUMNS = 7, 2048


def network(size: float) -> nn.Module:
    layers = max(2, int(size * 1e9 / 4 / COLUMNS / COLUMNS))
    return nn.Sequential(*(nn.Linear(COLUMNS, COLUMNS, bias=False) for _ in range(layers)))


def sharded(size: float, count: int) -> nn.Module:
    with torch.device("meta"):
        model = network(size)
    mesh = init_device_mesh("cpu", (count,))
    for layer in model:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def theirs(model: nn.Module, folder: str) -> None:
    model.to_empty(device="cpu")
    state = model.state_dict()
    dcp.load(state, storage_reader=HuggingFaceStorageReader(folder))
    model.load_state_dict(state, assign=True)


def ours(model: nn.Module, folder: str) -> None:
    ckpt_tool.load_into(model, Path(folder, "model.safetensors"))


def work(rank: int, count: int, size: float, folder: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous{count}", rank=rank, world_size=count)
    read = 0
    own = SourceFile.read_into

    def counted(self: SourceFile, buffer: memoryview, offset: int) -> None:
        nonlocal read
        read += len(buffer)
        own(self, buffer, offset)

    SourceFile.read_into = counted  # type: ignore[method-assign]
    seconds: dict[str, list[float]] = {"theirs": [], "ours": []}
    for run in range(RUNS + 1):
        for name, load in (("theirs", theirs), ("ours", ours)):
            model = sharded(size, count)
            touch(int(size * 1e9 / count))
            read = 0
            dist.barrier()
            start = time.perf_counter()
            load(model, folder)
            dist.barrier()
            if run:
                seconds[name].append(time.perf_counter() - start)
    if rank == 0:
        one, other = median(seconds["theirs"]), median(seconds["ours"])
        total = Path(folder, "model.safetensors").stat().st_size
        print(f"| {count} | {one:.2f} s | {other:.2f} s | {other / one:.2f} | {read / total:.3f} |", flush=True)
    dist.destroy_process_group()


def main() -> None:
    size = float(sys.argv[1]) if len(sys.argv) > 1 else 0.2
    with tempfile.TemporaryDirectory(dir=os.path.abspath(os.environ.get("TMPDIR", "."))) as folder:
        save_file(network(size).state_dict(), Path(folder, "model.safetensors"))
        print(f"{size:g} GB from the page cache onto FSDP2 models on meta, medians of {RUNS} runs by turns\n")
        print("| processes | dcp.load | load_into | ratio | read by process 0, of the file |\n|---|---|---|---|---|")
        for count in (2, 4):
            mp.spawn(work, (count, size, folder), count)


if __name__ == "__main__":
    main()
