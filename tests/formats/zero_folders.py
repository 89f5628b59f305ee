"""Folders as DeepSpeed's ZeRO writes them, by the cuts of its optimizers (stage_1_and_2.py, stage3.py) and the names of its engine, without it."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from types import ModuleType

import torch

Tensors = dict[str, torch.Tensor]


class ZeroStageEnum(IntEnum):
    """DeepSpeed's, which its files name."""

    disabled = 0
    optimizer_states = 1
    gradients = 2
    weights = 3


ZeroStageEnum.__module__ = "deepspeed.runtime.zero.config"
ZeroStageEnum.__qualname__ = "ZeroStageEnum"


class LossScaler:
    """An object that is in every file."""

    def __init__(self) -> None:
        self.cur_scale = 1.0


LossScaler.__module__ = "deepspeed.runtime.fp16.loss_scaler"


@contextmanager
def deepspeed_named() -> Iterator[None]:
    """Modules of DeepSpeed's names, as long as files are written and read."""
    names = [
        "deepspeed",
        "deepspeed.runtime",
        "deepspeed.runtime.zero",
        "deepspeed.runtime.zero.config",
        "deepspeed.runtime.fp16",
        "deepspeed.runtime.fp16.loss_scaler",
    ]
    modules = {name: ModuleType(name) for name in names}
    modules["deepspeed.runtime.zero.config"].ZeroStageEnum = ZeroStageEnum  # type: ignore[attr-defined]
    modules["deepspeed.runtime.fp16.loss_scaler"].LossScaler = LossScaler  # type: ignore[attr-defined]
    sys.modules |= modules
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


@dataclass
class Zero:
    """A model in training: its parameters by group, and what else DeepSpeed saves of it."""

    groups: Sequence[Tensors]
    stage: int
    world: int
    buffers: Tensors = field(default_factory=dict)
    frozen: Tensors = field(default_factory=dict)
    shared: Mapping[str, str] = field(default_factory=dict)
    trained_in: torch.dtype = torch.bfloat16
    prefix: str = ""

    @property
    def parameters(self) -> Tensors:
        """Those of all groups."""
        return {name: tensor for group in self.groups for name, tensor in group.items()}

    def write(self, folder: Path) -> None:
        """The files of one step."""
        folder.mkdir(parents=True, exist_ok=True)
        with deepspeed_named():
            for rank in range(self.world):
                torch.save({"optimizer_state_dict": self._optimizer(rank), "ds_config": {}, "ds_version": "0.18.3"},
                           folder / f"{self.prefix}zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")  # fmt: skip
                if self.stage == 3 or rank == 0:
                    name = (
                        "zero_pp_rank_{}_mp_rank_00_model_states.pt"
                        if self.stage == 3
                        else "mp_rank_00_model_states.pt"
                    )
                    torch.save(self._model(rank), folder / name.format(rank))

    def _model(self, rank: int) -> dict[str, object]:
        weights = self.parameters | self.frozen
        module = {
            name: torch.empty(0, dtype=self.trained_in)
            if self.stage == 3
            else tensor.to(self.trained_in)
            for name, tensor in weights.items()
        }
        module |= {name: module[of] for name, of in self.shared.items()}
        frozen = {
            name: self._fragment(tensor, rank) if self.stage == 3 else tensor
            for name, tensor in self.frozen.items()
        }
        return {
            "module": module | self.buffers, "buffer_names": list(self.buffers), "optimizer": None,
            "param_shapes": [{name: tensor.shape for name, tensor in group.items()} for group in self.groups],
            "frozen_param_shapes": {name: tensor.shape for name, tensor in self.frozen.items()} if self.frozen else None,
            "frozen_param_fragments": frozen if self.frozen else None,
            "shared_params": dict(self.shared), "lr_scheduler": None, "dp_world_size": self.world, "mp_world_size": 1,
            "ds_config": {"zero_optimization": {"stage": self.stage}}, "ds_version": "0.18.3", "global_steps": 3,
        }  # fmt: skip

    def _fragment(self, tensor: torch.Tensor, rank: int) -> torch.Tensor:
        share = -(-tensor.numel() // self.world)
        flat = torch.cat(
            [
                tensor.reshape(-1),
                torch.zeros(share * self.world - tensor.numel(), dtype=tensor.dtype),
            ]
        )
        return flat[rank * share : (rank + 1) * share].clone()

    def flat(
        self, rank: int, tensors: Sequence[Tensors], is_padded: bool = False
    ) -> list[torch.Tensor]:
        """A rank's part of each group; the fp32 weights of stages 1 and 2 without the last one's padding."""
        if self.stage == 3:
            return [
                torch.cat([self._fragment(tensor, rank) for tensor in group.values()])
                for group in tensors
            ]
        found = []
        for group in tensors:
            flat = torch.cat([tensor.reshape(-1) for tensor in group.values()])
            size = -(-len(flat) // (2 * self.world)) * 2
            end = (rank + 1) * size
            part = flat[rank * size : end]
            found.append(
                torch.cat([part, torch.zeros(size - len(part))])
                if is_padded or rank < self.world - 1
                else part.clone()
            )
        return found

    def slots(self) -> dict[str, list[Tensors]]:
        """What the optimizer keeps of each parameter."""
        torch.manual_seed(7)
        return {
            slot: [
                {name: torch.rand(tensor.shape) for name, tensor in group.items()}
                for group in self.groups
            ]
            for slot in ("exp_avg", "exp_avg_sq")
        }

    def _optimizer(self, rank: int) -> dict[str, object]:
        slots = {
            slot: self.flat(rank, tensors, is_padded=True) for slot, tensors in self.slots().items()
        }
        count = len(next(iter(slots.values())))
        base = {
            "state": {
                at: {
                    "step": torch.tensor(3.0),
                    **{slot: parts[at] for slot, parts in slots.items()},
                }
                for at in range(count)
            },
            "param_groups": [{"lr": 0.1, "params": [at]} for at in range(count)],
        }
        flat = self.flat(rank, self.groups)
        states: dict[str, object] = {
            "loss_scaler": LossScaler(),
            "overflow": False,
            "zero_stage": ZeroStageEnum(self.stage),
        }
        if self.stage == 3:
            return states | {
                "partition_count": self.world,
                "optimizer_state_dict": base,
                "fp32_flat_groups": flat,
            }
        return states | {
            "partition_count": [self.world] * count,
            "base_optimizer_state": base,
            "single_partition_of_fp32_groups": flat,
            "group_paddings": [0] * count,
        }


def random_tensors(seed: int, shapes: Mapping[str, tuple[int, ...]]) -> Tensors:
    """Values that are never the same."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
