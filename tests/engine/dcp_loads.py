# mypy: disable-error-code="attr-defined"
"""Loads a distributed checkpoint as training does, with 1, 2 and 4 processes and other placements, and holds it against a file:
`python dcp_loads.py FOLDER EXPECTED.pth`.
"""

import os
import sys

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard, distribute_tensor

WORLD = 4
MESHES = {"1": torch.arange(1), "2": torch.arange(2), "4": torch.arange(4), "2x2": torch.arange(4).view(2, 2)}
PLACEMENTS: dict[str, list[tuple[Placement, ...]]] = {
    "1": [(Shard(0),)], "2": [(Shard(0),), (Shard(1),), (Replicate(),)], "4": [(Shard(0),), (Shard(1),)],
    "2x2": [(Shard(0), Shard(1)), (Shard(1), Replicate()), (Shard(0), Shard(0))],
}  # fmt: skip


def check(folder: str, expected: dict[str, torch.Tensor], mesh: DeviceMesh, placements: tuple[Placement, ...]) -> None:
    """Every tensor, cut along what it has, is filled with the values it should have."""
    state: dict[str, torch.Tensor] = {}
    for key, tensor in expected.items():
        along = tuple(one if not isinstance(one, Shard) or one.dim < tensor.ndim else Replicate() for one in placements)
        state[key] = distribute_tensor(torch.zeros_like(tensor), mesh, along)
    group = mesh.get_group() if mesh.ndim == 1 else dist.group.WORLD
    dcp.load(state, checkpoint_id=folder, process_group=group)
    for key, tensor in state.items():
        assert isinstance(tensor, DTensor)
        whole = tensor.full_tensor()
        assert whole.dtype == expected[key].dtype, key
        assert torch.equal(bits(whole), bits(expected[key])), key


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def run(rank: int, folder: str, expected: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{expected}.rendezvous", rank=rank, world_size=WORLD)
    tensors = torch.load(expected)
    for name, ranks in MESHES.items():
        mesh = DeviceMesh("cpu", ranks)
        if mesh.get_coordinate() is not None:
            for placements in PLACEMENTS[name]:
                check(folder, tensors, mesh, placements)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    mp.start_processes(run, (sys.argv[1], sys.argv[2]), WORLD, start_method="fork")
