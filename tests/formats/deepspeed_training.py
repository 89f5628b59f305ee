"""Trains a small network with DeepSpeed's ZeRO on this machine's processor, and saves it: `python deepspeed_training.py STAGE RANKS FOLDER`.

Its own program, since each rank is a process: tied and frozen parameters, buffers, two groups, sizes that no rank divides.
"""

import os
import sys

import torch
from torch import nn
from torch.multiprocessing.spawn import spawn


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.up, self.norm = nn.Embedding(11, 6), nn.Linear(6, 7), nn.LayerNorm(7)
        self.register_buffer("positions", torch.arange(5))
        self.register_buffer("frequencies", torch.rand(3))
        self.down, self.frozen = nn.Linear(7, 6, bias=False), nn.Linear(6, 5)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embedding.weight
        self.frozen.requires_grad_(False)

    def forward(self, tokens):
        hidden = self.down(self.norm(self.up(self.embedding(tokens))))
        return self.head(hidden).float().sum() + self.frozen(hidden).float().sum()


def train(rank, stage, ranks, folder):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
    import deepspeed

    deepspeed.init_distributed("gloo")
    torch.manual_seed(0)
    network = Network()
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [one for one in trained if one.ndim > 1]},
        {"params": [one for one in trained if one.ndim < 2], "weight_decay": 0.0},
    ]
    config = {
        "train_micro_batch_size_per_gpu": 4,
        "zero_optimization": {"stage": stage, "round_robin_gradients": stage < 3},
        "bf16": {"enabled": True},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    engine, *_ = deepspeed.initialize(
        model=network, optimizer=torch.optim.AdamW(groups, lr=0.01), config=config
    )
    for _ in range(2):
        engine.backward(engine(torch.randint(0, 11, (4,))))
        engine.step()
    engine.save_checkpoint(folder)


if __name__ == "__main__":
    os.environ |= {"DS_ACCELERATOR": "cpu", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29761"}
    stage, ranks, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    spawn(train, args=(stage, ranks, folder), nprocs=ranks)
