"""Two processes that talk by gloo, for models that are sharded over them."""

import warnings
from collections.abc import Callable
from pathlib import Path

import torch


def _work(rank: int, work: Callable[[int], object], folder: str) -> None:
    warnings.simplefilter("ignore")
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    try:
        torch.save(work(rank), Path(folder) / f"{rank}.pt")
        torch.distributed.barrier()
    finally:
        torch.distributed.destroy_process_group()


def on_two_processes(work: Callable[[int], object], folder: Path) -> list[object]:
    """What `work` gives on either process."""
    torch.multiprocessing.spawn(_work, (work, str(folder)), nprocs=2)  # type: ignore[attr-defined]
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]
