"""What the examples and tests share: torchvision on any build of torch, and seeded values for every tensor of a model."""

import sys
from types import ModuleType

import torch
from torch import nn


def import_torchvision() -> ModuleType:
    """torchvision, also where its compiled operators don't fit this build of torch (a CPU-only torch, say).

    The models need none of these operators; they only have to be declared for the import to succeed.
    """
    try:
        import torchvision
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _KEPT.append(library)
        import torchvision
    return torchvision


_KEPT: list[torch.library.Library] = []
"""A declaration lasts as long as its library object."""


def fill_with_seeded_values(model: nn.Module, seed: int) -> nn.Module:
    """Gives every tensor of the state dict its own random values, running statistics and counters too.

    So a tensor that was missed can never look right. Variances stay positive, and weights small enough to train.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if not tensor.is_floating_point():
                tensor.copy_(torch.randint(1, 1000, tensor.shape, generator=generator))
            elif key.endswith("running_var"):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            elif tensor.dim() > 1:
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * (2 / max(tensor[0].numel(), 1)) ** 0.5)
            else:
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1 + (key.endswith("weight")))
    return model
