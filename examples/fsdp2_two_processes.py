"""FSDP2 on two processes: each reads its own part of a checkpoint into a model that was built on the meta device; the backbone is frozen,
later thawed, and the sharded model trains as a whole one would.

python examples/fsdp2_two_processes.py [FOLDER]
"""

import sys
import warnings
from pathlib import Path

import torch
from seeded import fill_with_seeded_values
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import ckpt_tool

WIDTH = 64


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.relu(self.up(self.norm(x))))


def network() -> nn.Sequential:
    return nn.Sequential(*(Block() for _ in range(4)), nn.Linear(WIDTH, 3))


SCHEDULE = ckpt_tool.FreezeSchedule({0: "4.*", 2: "3.**", 4: "**"})


def train(model: nn.Module) -> list[str]:
    """Six steps under the schedule; what had moved after each."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    lines = []
    for step in range(6):
        before = whole(model)
        SCHEDULE.apply(model, step, optimizer)
        x = torch.randn(8, WIDTH, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        moved = [key for key, value in whole(model).items() if not torch.equal(value, before[key])]
        assert set(moved) == set(SCHEDULE.trainable(list(before), step))
        lines.append(f"step {step}: {len(moved)} of {len(before)} tensors moved")
    return lines


def whole(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        key: (value.full_tensor() if isinstance(value, DTensor) else value).detach().clone()
        for key, value in model.state_dict().items()
    }


def work(rank: int, folder: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    with torch.device("meta"):
        model = network()
    mesh = torch.distributed.init_device_mesh("cpu", (2,))
    for block in model:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    report = ckpt_tool.load_into(model, f"{folder}/pretrained.pth")
    lines = train(model)
    found = whole(model)
    if rank == 0:
        print(report)
        print("\n".join(lines))
        torch.save(found, f"{folder}/sharded.pth")
    torch.distributed.destroy_process_group()


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rendezvous").unlink(missing_ok=True)
    torch.save(fill_with_seeded_values(network(), seed=1).state_dict(), folder / "pretrained.pth")
    torch.multiprocessing.spawn(work, (str(folder),), nprocs=2)  # type: ignore[attr-defined]

    torch.set_num_threads(1)
    single = network()
    ckpt_tool.load_into(single, folder / "pretrained.pth")
    train(single)
    sharded = torch.load(folder / "sharded.pth")
    apart = max((value - sharded[key]).abs().max().item() for key, value in single.state_dict().items())
    assert apart < 1e-5
    print(f"two processes and one have the same {len(sharded)} tensors after 6 steps")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "fsdp2_two_processes"))
