"""Inputs of the benchmarks, made once and kept: checkpoints of a given size with cheap values, in each format."""

import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

NAIVE = """
import sys; sys.path.insert(0, {root!r} + "/examples")
import re, torch
from detector import Detector
source, net = torch.load({resnet50!r}, weights_only=True), Detector()
net.load_state_dict(torch.load({detector!r}, weights_only=True))
state = net.state_dict()
for key, value in source.items():
    name = re.sub(r"^conv1\\\\.", "layer0.0.", key)
    name = re.sub(r"^bn1\\\\.", "layer0.1.", name)
    name = re.sub(r"\\\\.conv(\\\\d)\\\\.", lambda m: ".bottleneck." + str(3 * int(m[1]) - 3) + ".", name)
    name = re.sub(r"\\\\.bn(\\\\d)\\\\.", lambda m: ".bottleneck." + str(3 * int(m[1]) - 2) + ".", name)
    name = name.replace("downsample", "shortcut")
    if name in state:
        state[name].copy_(value)
torch.save(net.state_dict(), {output!r})
"""
LOAD_BOTH = "import torch; a, b = torch.load({a!r}, weights_only=True), torch.load({b!r}, weights_only=True); print(a.keys() ^ b.keys())"
LIST_BOTH = """
from safetensors import safe_open
for path in ({a!r}, {b!r}):
    with safe_open(path, framework="numpy") as file:
        shapes = {{key: file.get_slice(key).get_shape() for key in file.keys()}}
"""
HEAVY = """\
params: {heads: ~}
rules:
  - layers.{i}.wq.weight -> h.{i}.q.weight: {rearrange: "(h pair two) d -> (h two pair) d", h: heads, two: 2}
  - "layers.{i}.{w1,w3}.weight -> h.{i}.gate_up.weight": {concat: 0}
  - layers.{i}.qkv.weight -> h.{i}.{k,v,o}.weight: {split: 0}
  - layers.{i}.w2.weight -> h.{i}.down.weight: transpose
  - embed.weight -> wte.weight: transpose
"""


def paths_in(folder: Path) -> dict[str, str]:
    """The paths by name."""
    names = (
        "resnet50.pth", "resnet50_other.pth", "resnet50_same.pth", "detector.pth", "big.pth", "big2.pth", "big.safetensors", "big2.safetensors",
        "big_copy.safetensors", "sharded", "sharded2", "many.pth", "many2.pth", "many.safetensors", "many2.safetensors",
        "llama.safetensors", "place.pth", "place.safetensors", "place_small.pth", "place_small.safetensors", "heavy.yaml", "fifty.yaml",
    )  # fmt: skip
    paths = {name: str(folder / name) for name in names}
    paths |= {"resnet50": paths["resnet50.pth"], "resnet50_other": paths["resnet50_other.pth"], "resnet50_same": paths["resnet50_same.pth"], "detector": paths["detector.pth"]}
    return paths


def make(folder: Path, size: int) -> None:
    """Makes what is missing. A file of `size` bytes has tensors of up to 64 MB."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = paths_in(folder)
    if not all(os.path.exists(path) for path in paths.values()):
        _make_all(paths, size)


def _make_all(paths: dict[str, str], size: int) -> None:
    import shutil

    import torch
    from safetensors.torch import save_file

    sys.path.insert(0, str(ROOT / "examples"))
    from detector import Detector
    from seeded import fill_with_seeded_values, import_torchvision

    models = import_torchvision().models
    torch.save(fill_with_seeded_values(models.resnet50(), 1).state_dict(), paths["resnet50"])
    torch.save(fill_with_seeded_values(models.resnet50(), 2).state_dict(), paths["resnet50_same"])
    other = {f"net.{key}": value for key, value in fill_with_seeded_values(models.resnet50(), 2).state_dict().items()}
    torch.save(other, paths["resnet50_other"])
    torch.save(fill_with_seeded_values(Detector(), 3).state_dict(), paths["detector"])
    for seed, suffix in ((1, ""), (2, "2")):
        state = _big(size, seed)
        torch.save(state, paths[f"big{suffix}.pth"])
        save_file(state, paths[f"big{suffix}.safetensors"])
        _save_sharded(state, Path(paths[f"sharded{suffix}"]))
        del state
        many = {f"model.layers.{i // 1000}.experts.{i % 1000}.weight": torch.full((2, 2), float(i + seed)) for i in range(100_000)}
        torch.save(many, paths[f"many{suffix}.pth"])
        save_file(many, paths[f"many{suffix}.safetensors"])
    shutil.copyfile(paths["big.safetensors"], paths["big_copy.safetensors"])
    # What is renamed in place is nobody else's input.
    for suffix in (".pth", ".safetensors"):
        shutil.copyfile(paths[f"big{suffix}"], paths[f"place{suffix}"])
    shutil.copyfile(paths["resnet50"], paths["place_small.pth"])
    save_file(torch.load(paths["resnet50"], weights_only=True), paths["place_small.safetensors"])
    save_file(_llama(size), paths["llama.safetensors"])
    Path(paths["heavy.yaml"]).write_text(HEAVY)
    others = "".join(f"  - model.layers.{{i}}.other{n}.{{j}}.* -> x.{{i}}.other{n}.{{j}}.*\n" for n in range(49))
    Path(paths["fifty.yaml"]).write_text(f"optional:\n{others}  - model.layers.{{i}}.experts.{{e}}.* -> h.{{i}}.mlp.{{e}}.*\n")


def _big(size: int, seed: int):
    import torch

    generator = torch.Generator().manual_seed(seed)
    rows = 4096 if size > 1 << 30 else 512
    count = max(1, size // (rows * 4096 * 4))
    return {f"layers.{i}.weight": torch.rand((rows, 4096), generator=generator) for i in range(count)}


def _llama(size: int):
    import torch

    generator = torch.Generator().manual_seed(5)
    width = 4096 if size > 1 << 30 else 1024
    layer = {"wq": (width, width), "qkv": (3 * width, width), "w1": (2 * width, width), "w3": (2 * width, width), "w2": (width, 2 * width)}
    nbytes = sum(a * b * 2 for a, b in layer.values())
    state = {"embed.weight": torch.rand((2 * width, width), generator=generator).to(torch.bfloat16)}
    for i in range(max(1, size // nbytes)):
        state |= {f"layers.{i}.{name}.weight": torch.rand(shape, generator=generator).to(torch.bfloat16) for name, shape in layer.items()}
    return state


def _save_sharded(state, folder: Path) -> None:
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    keys = list(state)
    parts = [keys[i::4] for i in range(4)]
    index = {}
    for number, part in enumerate(parts, 1):
        name = f"model-{number:05d}-of-00004.safetensors"
        save_file({key: state[key] for key in part}, folder / name)
        index |= dict.fromkeys(part, name)
    total = sum(tensor.nbytes for tensor in state.values())
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": index}))


if __name__ == "__main__":
    make(Path(sys.argv[1]), int(sys.argv[2]))
