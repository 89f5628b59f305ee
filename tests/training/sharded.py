"""Processes that talk by gloo, for models that are sharded over them."""

import warnings
from collections.abc import Callable
from pathlib import Path

import torch


def _work(rank: int, work: Callable[[int], object], folder: str, count: int) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=count)
    try:
        torch.save(work(rank), Path(folder) / f"{rank}.pt")
        torch.distributed.barrier()
    finally:
        torch.distributed.destroy_process_group()


def on_processes(count: int, work: Callable[[int], object], folder: Path) -> list[object]:
    """What `work` gives on each of so many processes."""
    torch.multiprocessing.spawn(_work, (work, str(folder), count), nprocs=count)  # type: ignore[attr-defined]
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(count)]


def on_two_processes(work: Callable[[int], object], folder: Path) -> list[object]:
    """What `work` gives on either process."""
    return on_processes(2, work, folder)
