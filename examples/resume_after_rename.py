"""Training goes on under other names: q, k and v become one matrix, modules are renamed and declared in another order, and AdamW
keeps what it has learnt. The weights are, bit for bit, those of the run that was not interrupted.

python examples/resume_after_rename.py [FOLDER]
"""

import sys
from pathlib import Path

import torch
from torch import nn

import ckpt_tool

WIDTH, HEADS = 32, 4


def attend(qkv: torch.Tensor) -> torch.Tensor:
    q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in qkv.chunk(3, -1))
    return nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class OldBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # One product of the joined matrices, as the new block has it: three would round otherwise.
        weight = torch.cat([self.q.weight, self.k.weight, self.v.weight])
        bias = torch.cat([self.q.bias, self.k.bias, self.v.bias])
        return x + self.out(attend(nn.functional.linear(self.norm(x), weight, bias)))


class OldModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, WIDTH)
        self.layers = nn.ModuleList(OldBlock() for _ in range(2))
        self.head = nn.Linear(WIDTH, 50)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


class NewBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.ln = nn.LayerNorm(WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.proj(attend(self.qkv(self.ln(x))))


class NewModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lm_head = nn.Linear(WIDTH, 50)
        self.blocks = nn.ModuleList(NewBlock() for _ in range(2))
        self.tokens = nn.Embedding(50, WIDTH)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.tokens(tokens)
        for block in self.blocks:
            x = block(x)
        return self.lm_head(x)


RULES = [
    "embed.* -> tokens.*",
    "head.* -> lm_head.*",
    "layers.{i}.{norm,out}.* -> blocks.{i}.{ln,proj}.*",
    "layers.{i}.{q,k,v}.* -> blocks.{i}.qkv.*: {concat: 0}",
]


def groups(model: nn.Module) -> list[dict[str, object]]:
    """Matrices decay, all else doesn't."""
    decay = [p for p in model.parameters() if p.dim() > 1]
    return [{"params": decay}, {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0}]


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        tokens = torch.randint(0, 50, (4, 17), generator=torch.Generator().manual_seed(step))
        loss = nn.functional.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"{type(model).__name__}: loss {loss.item():.6f} after step {steps[-1] + 1}")


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    old = OldModel()
    optimizer = torch.optim.AdamW(groups(old), lr=3e-3)
    train(old, optimizer, range(10))
    torch.save({"model": old.state_dict(), "optimizer": optimizer.state_dict()}, folder / "run.pth")
    train(old, optimizer, range(10, 30))

    new = NewModel()
    report = ckpt_tool.load_into(new, str(folder / "run.pth"), rules=RULES)
    new_optimizer = torch.optim.AdamW(groups(new), lr=3e-3)
    saved = torch.load(folder / "run.pth", weights_only=True)["optimizer"]
    state = report.optimizer_state(saved, new, new_optimizer)
    print(state)
    new_optimizer.load_state_dict(state)
    train(new, new_optimizer, range(10, 30))

    uninterrupted = NewModel()
    ckpt_tool.load_into(uninterrupted, old, rules=RULES)
    expected = uninterrupted.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in new.state_dict().items())
    print(f"after 10 + 20 steps all {len(expected)} tensors are those of the uninterrupted run, bit for bit")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "resume_after_rename"))
