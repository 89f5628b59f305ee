"""Fine-tuning: a ResNet-18 of 1000 classes, saved as `{'model_state_dict': …}`, becomes one of 2 classes.

python examples/finetune_resnet18.py [FOLDER]
"""

import sys
from pathlib import Path

import torch
from seeded import fill_with_seeded_values, import_torchvision

import ckpt_tool


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    models = import_torchvision().models
    pretrained = fill_with_seeded_values(models.resnet18(), seed=1)
    checkpoint = {"epoch": 90, "model_state_dict": pretrained.state_dict(), "loss": 0.7}
    torch.save(checkpoint, folder / "resnet18_run.pth")

    model = fill_with_seeded_values(models.resnet18(num_classes=2), seed=2)
    report = ckpt_tool.load_into(model, str(folder / "resnet18_run.pth"))
    print(report)
    assert len(report.loaded) == 120
    assert report.fresh == ("fc.weight", "fc.bias")

    # The new head learns fast, the pretrained layers slowly; their first keys not at all.
    print(ckpt_tool.freeze(model, "conv1.*", "bn1.*", "layer1.**"))
    optimizer = torch.optim.SGD(report.parameter_groups(model, lr=1e-2, loaded_lr=1e-4), momentum=0.9)
    stem = {key: value.clone() for key, value in model.state_dict().items() if key.startswith(("conv1.", "bn1.", "layer1."))}
    model.train()
    for step in range(3):
        images, labels = torch.randn(4, 3, 64, 64), torch.randint(0, 2, (4,))
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step + 1}: loss {loss.item():.4f}")
    assert all(torch.equal(model.state_dict()[key], value) for key, value in stem.items())
    print(f"after 3 steps the {len(stem)} frozen tensors are what they were")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "finetune_resnet18"))
