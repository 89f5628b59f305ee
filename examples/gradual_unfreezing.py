"""Gradual unfreezing: first the new head trains, then the last stage, then everything, with rates that fall towards the input. A run that
is interrupted and resumed is the one that ran through, bit for bit.

python examples/gradual_unfreezing.py [FOLDER]
"""

import sys
from pathlib import Path

import torch
from seeded import fill_with_seeded_values, import_torchvision
from torch import nn

import ckpt_tool

SCHEDULE = ckpt_tool.FreezeSchedule({0: "fc.*", 1: "layer4.**", 2: "**"})


def begin(folder: Path) -> tuple[nn.Module, torch.optim.Optimizer]:
    model = fill_with_seeded_values(import_torchvision().models.resnet18(num_classes=3), seed=2)
    report = ckpt_tool.load_into(model, folder / "resnet18.pth")
    # Of all parameters: what is frozen has no gradient and is passed over, and the groups are the same in every epoch.
    groups = report.parameter_groups(model, lr=1e-2, decay=0.75)
    return model, torch.optim.AdamW(groups, weight_decay=0.05)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, epochs: range) -> None:
    for epoch in epochs:
        print(SCHEDULE.apply(model, epoch, optimizer))
        model.train()
        generator = torch.Generator().manual_seed(epoch)
        images, labels = torch.randn(4, 3, 32, 32, generator=generator), torch.randint(3, (4,), generator=generator)
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(fill_with_seeded_values(import_torchvision().models.resnet18(), seed=1).state_dict(), folder / "resnet18.pth")
    model, optimizer = begin(folder)
    for group in optimizer.param_groups:
        print(f"{group.get('layer', group['group']):20} lr {group['lr']:.2e}  {len(group['params'])} parameters")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    train(model, optimizer, range(2))
    moved = {key.split(".")[0] for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {"layer4", "fc"}
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, folder / "run.pth")
    train(model, optimizer, range(2, 4))

    resumed, its_optimizer = begin(folder)
    saved = torch.load(folder / "run.pth")
    resumed.load_state_dict(saved["model"])
    its_optimizer.load_state_dict(saved["optimizer"])
    train(resumed, its_optimizer, range(2, 4))
    expected = model.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in resumed.state_dict().items())
    print(f"resumed at epoch 2, all {len(expected)} tensors are those of the run that went through, bit for bit")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "gradual_unfreezing"))
