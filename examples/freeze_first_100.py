"""A pretrained ResNet-50 for other classes, of which the first 100 tensors stay as they are: weights, and running statistics too.

python examples/freeze_first_100.py [FOLDER]
"""

import sys
from pathlib import Path

import torch
from seeded import fill_with_seeded_values, import_torchvision

import ckpt_tool


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    models = import_torchvision().models
    torch.save(fill_with_seeded_values(models.resnet50(), seed=1).state_dict(), folder / "resnet50.pth")

    model = fill_with_seeded_values(models.resnet50(num_classes=5), seed=2)
    print(ckpt_tool.load_into(model, folder / "resnet50.pth"))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)  # built before: frozen ones are passed over
    frozen = ckpt_tool.freeze(model, first=100, optimizer=optimizer)
    print(frozen)

    before = {key: value.clone() for key, value in model.state_dict().items()}
    generator = torch.Generator().manual_seed(3)
    for _ in range(3):
        model.train()  # doesn't thaw anything
        loss = torch.nn.functional.cross_entropy(model(torch.randn(2, 3, 64, 64, generator=generator)), torch.tensor([0, 1]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    moved = [key for key, value in model.state_dict().items() if not torch.equal(value, before[key])]
    # The hundredth is a running mean; the variance and the counter of that module stand still with it.
    together = {f"{path}.{name}" for path in frozen.modules for name in ("running_var", "num_batches_tracked")}
    assert moved == [key for key in list(before)[100:] if key not in together]
    print(f"after 3 steps the first 100 tensors are what they were, and {len(moved)} of the others have moved")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "freeze_first_100"))
