"""Rank files as torch itself writes them: four processes, joined by gloo, of whom each saves what it has."""

import copy
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torch.distributed._shard.sharded_tensor.shard import Shard as LocalShard
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

RANKS = 4


class Net(nn.Module):
    """Rows that no number of processes divides, fewer rows than processes, buffers, tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.up = nn.Linear(6, 9)
        self.down = nn.Linear(9, 6, bias=False)
        self.norm = nn.BatchNorm1d(6)
        self.short = nn.Linear(6, 3)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embedding.weight


def net() -> Net:
    """The same values in each process."""
    torch.manual_seed(5)
    return Net()


def write_all(folder: Path) -> None:
    """Every layout in a folder of its own."""
    torch.multiprocessing.spawn(_work, (folder,), nprocs=RANKS)  # type: ignore[attr-defined]


def _work(rank: int, folder: Path) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=RANKS)
    try:
        _write(rank, folder)
        dist.barrier()
    finally:
        dist.destroy_process_group()


def _write(rank: int, folder: Path) -> None:
    line = init_device_mesh("cpu", (RANKS,), mesh_dim_names=("dp",))
    square = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    sharded = _sharded(net(), line)
    _save(sharded.state_dict(), folder / "fsdp2", f"model_world_size_{RANKS}_rank_{rank}.pt")
    _save({"model": sharded.state_dict(), "step": 3}, folder / "nested", f"checkpoint_rank{rank}.pth")
    _save(_sharded(net(), square).state_dict(), folder / "hsdp", f"pytorch_model_fsdp_0_rank{rank}.bin")
    _save(_in_two_dimensions(square).state_dict(), folder / "tp", f"rank_{rank:02d}.pt")
    _save(_moments(sharded), folder / "fsdp2", f"optim_world_size_{RANKS}_rank_{rank}.pt")
    _save(_placed(line, square), folder / "placed", f"rank{rank}.pt")
    if rank < 2:
        _save(_placed_by_hand(rank), folder / "two", f"rank{rank}.pt")
    _save(_sharded_tensors(rank), folder / "sharded_tensors", f"model_rank_{rank}.pt")
    _save({"sum": DTensor.from_local(torch.ones(3), line, [Partial()])}, folder / "partial", f"rank{rank}.pt")
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter

    for name, files in (("safetensors", None), ("several", {key: at % 3 + 1 for at, key in enumerate(net().state_dict())})):
        writer = HuggingFaceStorageWriter(str(folder / name), save_distributed=True, fqn_to_index_mapping=files)
        untied = {key: tensor for key, tensor in sharded.state_dict().items() if key != "head.weight"}  # safetensors has no ties
        save(untied, storage_writer=writer)


def _save(value: object, folder: Path, name: str) -> None:
    folder.mkdir(exist_ok=True)
    torch.save(value, folder / name)


def _in_two_dimensions(mesh: DeviceMesh) -> nn.Module:
    model = parallelize_module(net(), mesh["tp"], {"up": ColwiseParallel(), "down": RowwiseParallel()})
    return _sharded(model, mesh["dp"])


def _sharded(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    fully_shard(model, mesh=mesh)
    return model


def _moments(model: nn.Module) -> dict[str, object]:
    """An optimizer's state, by numbers as torch has it."""
    return {"state": {at: {"exp_avg": copy.deepcopy(one.detach())} for at, one in enumerate(model.parameters())}, "param_groups": [{"lr": 0.1, "params": [0, 1]}]}


def values() -> dict[str, torch.Tensor]:
    """What is placed in many ways."""
    generator = torch.Generator().manual_seed(9)
    return {name: torch.randn(5, 7, 3, generator=generator) for name in ("rows", "columns", "both", "last", "one", "again", "low")}


def _placed(line: DeviceMesh, square: DeviceMesh) -> dict[str, object]:
    own = values()
    places = {
        "rows": (line, [Shard(0)]), "columns": (line, [Shard(1)]), "both": (square, [Shard(0), Shard(1)]),
        "last": (square, [Replicate(), Shard(-1)]), "one": (line, [Replicate()]), "again": (square, [Shard(1), Shard(1)]),
        "low": (line, [Shard(2)]),
    }  # fmt: skip
    own["low"] = own["low"].to(torch.bfloat16)
    return {name: distribute_tensor(own[name], mesh, places) for name, (mesh, places) in places.items()}


def _placed_by_hand(rank: int) -> dict[str, object]:
    """Two of the processes, in the other order."""
    mesh = DeviceMesh("cpu", [1, 0], _init_backend=False, _rank=rank)
    whole = values()["rows"]
    part = whole[:3] if rank == 1 else whole[3:]
    return {"rows": DTensor.from_local(part.clone(), mesh, [Shard(0)], run_check=False, shape=whole.shape, stride=whole.stride())}


def _sharded_tensors(rank: int) -> dict[str, object]:
    whole = values()["rows"][:, :, 0].contiguous()
    part = whole[2 * rank : 2 * rank + 2].clone()
    shards = [LocalShard.from_tensor_and_offsets(part, [2 * rank, 0], rank)] if len(part) else []
    return {"w": ShardedTensor._init_from_local_shards(shards, *whole.shape), "b": torch.arange(3.0)}
