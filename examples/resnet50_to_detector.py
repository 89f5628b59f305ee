"""The story: torchvision's ResNet-50 (320 keys) becomes the backbone of a detector (384 keys) whose names are all different.

    python examples/resnet50_to_detector.py [FOLDER]

builds its own inputs (seeded values instead of a download), then compares, maps in three ways, loads into the live model,
freezes what arrived, trains a few steps on made-up data, and proves that the backbone stood still while the head moved.
"""

import subprocess
import sys
import sysconfig
from pathlib import Path

import torch
from detector import Detector
from seeded import fill_with_seeded_values, import_torchvision

import ckpt_tool

JOB = """\
about: torchvision ResNet-50 -> detector, a job that names its own files
source: resnet50.pth
target: detector.pth
output: by_job.safetensors
rules:
  - conv1.* -> layer0.0.*
  - bn1.* -> layer0.1.*
  - layer{s}.{b}.conv{n}.* -> layer{s}.{b}.bottleneck.{3*n-3}.*
  - layer{s}.{b}.bn{n}.* -> layer{s}.{b}.bottleneck.{3*n-2}.*
  - layer{s}.{b}.downsample.** -> layer{s}.{b}.shortcut.**
drop: ["fc.*"]
keep: ["layer5.**", "conv_end.*", "bn_end.*"]
expect: {mapped: 318, kept: 66, dropped: 2}
"""


def main(folder: Path) -> None:
    backbone = build_inputs(folder)
    run(folder, "diff resnet50.pth detector.pth", expected_status=1)
    run(folder, "map resnet50.pth detector.pth --rules resnet50_to_yolo.yaml -o by_rules.pth --force")
    run(folder, "map resnet50.pth detector.pth --by position --expect 318 -o by_position.pth --force --quiet")
    run(folder, "map --rules job.yaml --force --quiet")
    prove_the_files(folder)
    prove_the_training(folder, backbone)
    print(f"\nThe files are in {folder}. Try there, after `source .venv/bin/activate`:")
    print("  ckpt diff resnet50.pth detector.pth\n  ckpt map --rules resnet50_to_yolo.yaml")


def build_inputs(folder: Path) -> torch.nn.Module:
    """resnet50.pth, detector.pth and job.yaml; gives the ResNet-50."""
    folder.mkdir(parents=True, exist_ok=True)
    backbone = fill_with_seeded_values(import_torchvision().models.resnet50(), seed=1)
    torch.save(backbone.state_dict(), folder / "resnet50.pth")
    torch.save(fill_with_seeded_values(Detector(), seed=2).state_dict(), folder / "detector.pth")
    (folder / "job.yaml").write_text(JOB)
    return backbone


def run(folder: Path, arguments: str, expected_status: int = 0) -> None:
    """Runs a command as a user would, and shows it."""
    print(f"\n$ ckpt {arguments}", flush=True)
    command = Path(sysconfig.get_path("scripts")) / "ckpt"
    status = subprocess.run([command, *arguments.split()], cwd=folder).returncode
    if status != expected_status:
        sys.exit(f"exit status {status}, not {expected_status}")


def prove_the_files(folder: Path) -> None:
    """Each way gives 318 tensors of the source and 66 of the target, bit for bit, in the target's order, and loads strictly."""
    from safetensors.torch import load_file

    source, target = (torch.load(folder / name, weights_only=True) for name in ("resnet50.pth", "detector.pth"))
    for name in ("by_rules.pth", "by_position.pth", "by_job.safetensors"):
        path = folder / name
        mapped = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
        assert list(mapped) == list(target), name
        for value, (key, tensor) in zip(source.values(), list(mapped.items())[:318], strict=False):
            assert torch.equal(value, tensor), key
        for key in list(mapped)[318:]:
            assert torch.equal(mapped[key], target[key]), key
        Detector().load_state_dict(mapped, strict=True)
        print(f"{name}: 318 tensors are the source's, 66 the target's, bit for bit; it loads strictly")


def prove_the_training(folder: Path, backbone: torch.nn.Module) -> None:
    """Load, freeze, train: the backbone computes what ResNet-50 does, and stays so; the head moves."""
    torch.manual_seed(0)
    model = fill_with_seeded_values(Detector(), seed=3)
    report = ckpt_tool.load_into(model, str(folder / "resnet50.pth"), rules="resnet50_to_yolo.yaml")
    print(f"\n{report}")
    prove_equal_features(backbone, model)

    print(report.freeze(model))
    optimizer = torch.optim.Adam(report.parameter_groups(model, lr=1e-3))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()
    for step in range(3):
        images, wanted = torch.randn(2, 3, 96, 96), torch.rand(2, 3, 3, 30)
        loss = torch.nn.functional.mse_loss(model(images), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step + 1}: loss {loss.item():.4f}")
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert not moved & set(report.loaded), "the backbone must stand still"
    assert moved == set(report.fresh), "all of the head must move"
    print(f"after 3 steps of training: {len(report.loaded)} loaded tensors stood still, {len(moved)} fresh ones moved")


def prove_equal_features(backbone: torch.nn.Module, model: Detector) -> None:
    backbone.eval()
    model.eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        x = backbone.maxpool(backbone.relu(backbone.bn1(backbone.conv1(images))))
        expected = backbone.layer4(backbone.layer3(backbone.layer2(backbone.layer1(x))))
        assert torch.equal(model.features(images), expected)
    print("the detector's layer0 to layer4 compute exactly what ResNet-50 does")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "resnet50_to_detector"))
