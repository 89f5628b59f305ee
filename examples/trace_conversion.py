"""A conversion that loads without a word and computes nonsense: key and value were exchanged. The trace names the place and the cure."""

import tempfile
from pathlib import Path

import torch
from seeded import fill_with_seeded_values
from torch import nn

import ckpt_tool

RULES = """rules:
  - "{i}.qkv.* -> {i}.{query,value,key}.*": {split: 0}
  - "{r=**} -> {r}"
"""


class Fused(nn.Module):
    """Attention as the weights' authors have it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(32), nn.Linear(32, 96), nn.Linear(32, 32)

    def parts(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.qkv(x).chunk(3, -1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.parts(self.norm(x))
        return x + self.out((query @ key.transpose(-1, -2)).softmax(-1) @ value)


class Apart(Fused):
    """The same with three projections."""

    def __init__(self) -> None:
        super().__init__()
        del self.qkv
        self.query, self.key, self.value = (nn.Linear(32, 32) for _ in range(3))

    def parts(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.query(x), self.key(x), self.value(x)


def main() -> None:
    original = fill_with_seeded_values(nn.Sequential(Fused(), Fused(), nn.Linear(32, 5)), 1)
    mine = nn.Sequential(Apart(), Apart(), nn.Linear(32, 5))
    with tempfile.TemporaryDirectory() as folder:
        rules = Path(folder, "rules.yaml")
        rules.write_text(RULES)
        report = ckpt_tool.load_into(mine, original, rules=rules)
        print(report)
        x = torch.randn(2, 7, 32, generator=torch.Generator().manual_seed(0))
        found = ckpt_tool.trace(original, mine, x, report)
        print(found, end="\n\n")
        assert found.place is not None
        assert (found.place.kind, found.place.other) == ("code", "0")
        rules.write_text(RULES.replace("query,value,key", "query,key,value"))
        report = ckpt_tool.load_into(mine, original, rules=rules)
        print(found := ckpt_tool.trace(original, mine, x, report))
        assert found.is_same


if __name__ == "__main__":
    main()
