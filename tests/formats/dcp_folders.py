"""Writes distributed checkpoints as training does, with 1, 2, 4 and 8 processes: `python dcp_folders.py FOLDER`.

All folders are written by one set of processes, of which each uses as many as it needs: starting them takes longer than
writing.
"""

# mypy: disable-error-code="attr-defined,return-value"

import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp
from torch import nn
from torch.distributed._shard.sharded_tensor import Shard as LocalShard
from torch.distributed._shard.sharded_tensor import init_from_local_shards
from torch.distributed._shard.sharded_tensor.metadata import ShardMetadata
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.state_dict import get_model_state_dict, get_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

WORLD = 8
MESHES = {
    "1": torch.arange(1), "2": torch.arange(2), "4": torch.arange(4), "8": torch.arange(8),
    "2x2": torch.arange(4).view(2, 2), "2x4": torch.arange(8).view(2, 4), "4x2": torch.arange(8).view(4, 2),
    "2x2x2": torch.arange(8).view(2, 2, 2),
}  # fmt: skip
NAMES = ("dp", "tp", "pp")
Folder = Callable[[Path, DeviceMesh], None]


class Net(nn.Module):
    """Rows that divide by 8, that don't, and that are fewer than 8."""

    def __init__(self, hidden: int = 12, width: int = 20) -> None:
        super().__init__()
        self.embed = nn.Embedding(33, hidden)
        self.up = nn.Linear(hidden, width)
        self.down = nn.Linear(width, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.head = nn.Linear(hidden, 3)
        self.register_buffer("steps", torch.tensor(7))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.down(torch.relu(self.up(self.embed(tokens))))))


def net(seed: int, dtype: torch.dtype = torch.float32) -> Net:
    torch.manual_seed(seed)
    return Net().to(dtype)


def sharded(mesh: DeviceMesh, seed: int, dtype: torch.dtype = torch.float32, **options: object) -> Net:
    model = net(seed, dtype)
    for layer in (model.up, model.down):
        fully_shard(layer, mesh=mesh, **options)
    return fully_shard(model, mesh=mesh, **options)


def tensor_parallel(model: Net, mesh: DeviceMesh) -> Net:
    return parallelize_module(model, mesh, {"up": ColwiseParallel(), "down": RowwiseParallel()})


def save(state: dict[str, object], folder: Path, mesh: DeviceMesh, planner: object = None, **options: object) -> None:
    group = mesh.get_group() if mesh.ndim == 1 else dist.group.WORLD if mesh.size() == WORLD else FOUR[0]
    writer = dcp.FileSystemWriter(folder, **options)
    dcp.save(state, storage_writer=writer, planner=planner, process_group=group)


FOUR: list[dist.ProcessGroup] = []


def plain(folder: Path, mesh: DeviceMesh) -> None:
    save({"model": net(1).state_dict(), "epoch": 3}, folder, mesh)


def odd_tensors(folder: Path, mesh: DeviceMesh) -> None:
    torch.manual_seed(2)
    names = ("float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64", "bool", "complex64",
             "complex128", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu")  # fmt: skip
    tensors = {name: torch.randint(0, 2, (3, 4)).to(getattr(torch, name)) for name in names if hasattr(torch, name)}
    base = torch.randn(6, 8)
    views = {"transposed": base.t(), "strided": base[::2, 1:3], "rows": base[2:4], "conjugate": torch.randn(3, dtype=torch.complex64).conj(),
             "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 5), "nothing": torch.zeros(0), "deep": torch.randn(1, 1, 1, 1, 2),
             "tied": base, "tied_too": base, "negative": torch.randn(4, dtype=torch.complex64).conj().imag}  # fmt: skip
    save({**tensors, **views}, folder, mesh)


def nested(folder: Path, mesh: DeviceMesh) -> None:
    torch.manual_seed(3)
    state = {
        "model": {"blocks": [{"w": torch.randn(3)}, {"w": torch.randn(2), "n": 1}], "w.dotted": torch.randn(2)},
        "optim": {"state": {0: {"exp_avg": torch.randn(3), "step": torch.tensor(2.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "lists": [torch.randn(1), [torch.randn(2), "text"], None],
        "note": "text", "none": None, "set": {1, 2}, "path": Path("/somewhere"), "bytes": b"raw", "args": {"lr": 1e-3, "betas": (0.9, 0.95)},
    }  # fmt: skip
    save(state, folder, mesh)


def fsdp(folder: Path, mesh: DeviceMesh) -> None:
    save({"model": get_model_state_dict(sharded(mesh, 4))}, folder, mesh)


def fsdp_half(folder: Path, mesh: DeviceMesh) -> None:
    save(get_model_state_dict(sharded(mesh, 5, torch.bfloat16)), folder, mesh)


def fsdp_columns(folder: Path, mesh: DeviceMesh) -> None:
    model = nn.Sequential(nn.Linear(16, 8, bias=False), nn.Linear(8, 24, bias=False))
    torch.manual_seed(6)
    model.load_state_dict({key: torch.randn(value.shape) for key, value in model.state_dict().items()})
    save({"model": get_model_state_dict(fully_shard(model, mesh=mesh, shard_placement_fn=lambda _: Shard(1)))}, folder, mesh)


def trained(mesh: DeviceMesh, seed: int) -> tuple[dict[str, object], dict[str, object]]:
    model = sharded(mesh, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.arange(4)).sum().backward()
    optimizer.step()
    return get_state_dict(model, optimizer)


def fsdp_trained(folder: Path, mesh: DeviceMesh) -> None:
    model, optimizer = trained(mesh, 7)
    save({"model": model, "optim": optimizer, "step": 1}, folder, mesh)


def tp(folder: Path, mesh: DeviceMesh) -> None:
    save({"model": get_model_state_dict(tensor_parallel(net(8), mesh))}, folder, mesh)


def fsdp_over_tp(folder: Path, mesh: DeviceMesh) -> None:
    model = tensor_parallel(net(9), mesh["tp"])
    fully_shard(model, mesh=mesh["dp"])
    save({"model": get_model_state_dict(model)}, folder, mesh)


def hsdp(folder: Path, mesh: DeviceMesh) -> None:
    save({"model": get_model_state_dict(sharded(mesh, 10))}, folder, mesh)


def grid(folder: Path, mesh: DeviceMesh) -> None:
    torch.manual_seed(11)
    along = (Shard(0), Shard(1), Shard(2))[: mesh.ndim]
    state = {
        "cut": distribute_tensor(torch.randn(5, 7, 9), mesh, along),
        "same_axis": distribute_tensor(torch.randn(11, 3), mesh, [Shard(0)] * mesh.ndim),
        "last": distribute_tensor(torch.randn(2, 3, 10), mesh, [Shard(2), *[Replicate()] * (mesh.ndim - 1)]),
        "few": distribute_tensor(torch.randn(1, 6), mesh, [Shard(0), *[Shard(1)] * (mesh.ndim - 1)]),
        "eight": distribute_tensor(torch.randn(9, 5).to(torch.float8_e4m3fn).view(torch.uint8), mesh, along[:2] + (Replicate(),) * (mesh.ndim - 2)),
        "whole": torch.randn(3),
    }  # fmt: skip
    save(state, folder, mesh)


def torchtitan(folder: Path, mesh: DeviceMesh) -> None:
    model, optimizer = trained(mesh, 12)
    flat = {f"state.{name}.{slot}": value for name, slots in optimizer["state"].items() for slot, value in slots.items()}
    groups = {f"param_groups.{name}.lr": 1e-3 for name in model}
    save({**model, "optimizer": {**flat, **groups}, "lr_scheduler": {"last_epoch": 2}, "train_state": {"step": torch.tensor(5)}}, folder, mesh)


def accelerate(folder: Path, mesh: DeviceMesh) -> None:
    save({"model": get_model_state_dict(sharded(mesh, 13))}, folder, mesh)


def accelerate_optimizer(folder: Path, mesh: DeviceMesh) -> None:
    save({"optimizer": trained(mesh, 14)[1]}, folder, mesh)


def lightning(folder: Path, mesh: DeviceMesh) -> None:
    model, optimizer = trained(mesh, 15)
    save({"model": model, "optimizer_0": optimizer}, folder, mesh)
    if dist.get_rank() == 0:
        torch.save({"epoch": 1, "global_step": 5, "hyper_parameters": {"lr": 1e-3}}, folder / "meta.pt")


def file_for_each(folder: Path, mesh: DeviceMesh) -> None:
    save({"model": get_model_state_dict(sharded(mesh, 16))}, folder, mesh, single_file_per_rank=False)


def threads(folder: Path, mesh: DeviceMesh) -> None:
    save({"model": get_model_state_dict(sharded(mesh, 17))}, folder, mesh, thread_count=3)


def lowest_rank(folder: Path, mesh: DeviceMesh) -> None:
    save({"model": net(18).state_dict(), "epoch": 1}, folder, mesh, DefaultSavePlanner(dedup_save_to_lowest_rank=True))


def flat(folder: Path, mesh: DeviceMesh) -> None:
    save(net(19).state_dict(), folder, mesh, DefaultSavePlanner(flatten_state_dict=False))


def sharded_tensors(folder: Path, mesh: DeviceMesh) -> None:
    torch.manual_seed(20)
    whole, rank = torch.randn(4 * 3, 5), dist.get_rank()
    part = ShardMetadata([rank * 3, 0], [3, 5], f"rank:{rank}/cpu")
    made = init_from_local_shards([LocalShard(whole[rank * 3 : rank * 3 + 3].clone(), part)], [12, 5], process_group=mesh.get_group())
    save({"model": {"table": made}}, folder, mesh)


def megatron(folder: Path, mesh: DeviceMesh) -> None:
    torch.manual_seed(21)
    layers = distribute_tensor(torch.randn(4, 6, 5), mesh, [Shard(0)])
    state = {"decoder.layers.mlp.linear_fc1.weight": layers, "embedding.word_embeddings.weight": distribute_tensor(torch.randn(9, 5), mesh, [Shard(0)])}
    objects = {f"decoder.layers.self_attention.core_attention._extra_state/shard_{i}_4": {"i": i} for i in range(4)}
    save({**state, **objects}, folder, mesh)
    if dist.get_rank() == 0:
        (folder / "metadata.json").write_text('{"sharded_backend": "torch_dist", "sharded_backend_version": 1, "common_backend": "torch"}')
        torch.save({"iteration": 5, "args": {"hidden_size": 5}}, folder / "common.pt")


FOLDERS: dict[str, tuple[str, Folder]] = {
    "plain-1": ("1", plain), "odd-tensors-1": ("1", odd_tensors), "nested-1": ("1", nested), "flat-1": ("1", flat), "nested-4": ("4", nested),
    "fsdp-1": ("1", fsdp), "fsdp-2": ("2", fsdp), "fsdp-4": ("4", fsdp), "fsdp-8": ("8", fsdp), "fsdp-half-8": ("8", fsdp_half),
    "fsdp-columns-4": ("4", fsdp_columns), "trained-2": ("2", fsdp_trained), "trained-8": ("8", fsdp_trained),
    "tp-2": ("2", tp), "tp-4": ("4", tp), "fsdp-tp-2x2": ("2x2", fsdp_over_tp), "fsdp-tp-2x4": ("2x4", fsdp_over_tp), "fsdp-tp-4x2": ("4x2", fsdp_over_tp),
    "hsdp-2x2": ("2x2", hsdp), "hsdp-2x4": ("2x4", hsdp), "grid-2x2": ("2x2", grid), "grid-2x2x2": ("2x2x2", grid),
    "torchtitan-2": ("2", torchtitan), "accelerate-4": ("4", accelerate), "accelerate-optimizer-4": ("4", accelerate_optimizer),
    "lightning-2": ("2", lightning), "file-for-each-2": ("2", file_for_each), "threads-4": ("4", threads), "lowest-rank-4": ("4", lowest_rank),
    "sharded-tensors-4": ("4", sharded_tensors), "megatron-2": ("2", megatron),
}  # fmt: skip


def run(rank: int, home: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{home}/.rendezvous", rank=rank, world_size=WORLD)
    meshes = {name: DeviceMesh("cpu", ranks, mesh_dim_names=NAMES[: ranks.ndim]) for name, ranks in MESHES.items()}
    FOUR.append(dist.new_group([0, 1, 2, 3]))
    for name, (mesh, write) in FOLDERS.items():
        if meshes[mesh].get_coordinate() is not None:
            write(Path(home) / name, meshes[mesh])
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    mp.start_processes(run, (sys.argv[1],), WORLD, start_method="fork")
    os.unlink(f"{sys.argv[1]}/.rendezvous")
