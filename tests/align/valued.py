"""Checkpoints in memory with values, from the truths of real conversions: realistic ones for norms and counters."""

import re

import torch
from truths import Truth, expected, random_tensors

from ckpt_tool.tensors import Catalog
from ckpt_tool.torch_bridge import tensor_infos, to_bytes

_NORM = re.compile(r"(norm|bn|ln|gn|gamma|beta)", re.IGNORECASE)


class InMemory:
    """Tensors as an open checkpoint gives them."""

    has_values = True

    def __init__(self, tensors: dict[str, torch.Tensor], is_ordered: bool = True) -> None:
        self.path = "in memory"
        self.tensors = tensors
        self.catalog = Catalog(tensor_infos(tensors), is_ordered)
        self.reads: dict[str, int] = {}

    def extent(self, key: str) -> None:
        return None

    def chunks(self, key: str, size: int = 0):
        self.reads[key] = self.reads.get(key, 0) + 1
        yield bytes(to_bytes(self.tensors[key]))


def source_values(truth: Truth, fresh: bool = False) -> dict[str, torch.Tensor]:
    """Seeded values, all different but for what real models have everywhere alike: a norm's ones and zeros, counters, ties.

    `fresh`: as a model that was only built has them, where all biases are zeros too.
    """
    values = truth.source_values()
    for key, tensor in values.items():
        leaf = key.replace("/", ".").rpartition(".")[2]
        if not tensor.is_floating_point() or tensor.dim() == 0:
            values[key] = torch.full_like(tensor, 1000) if tensor.dim() == 0 else tensor
        elif tensor.dim() == 1 and (_NORM.search(key) or fresh or leaf in ("running_mean", "running_var")):
            is_one = leaf in ("weight", "scale", "gamma", "running_var", "var")
            values[key] = torch.ones_like(tensor) if is_one else torch.zeros_like(tensor) if fresh or _NORM.search(key) else tensor
    return values | {key: values[group[0]] for group in truth.ties for key in group}


def sides(truth: Truth, fresh: bool = False) -> tuple[InMemory, InMemory]:
    """The source with values, and the target with what the truth makes of them; what is fresh has values of its own."""
    ours = source_values(truth, fresh)
    theirs = random_tensors(truth.target, 2)
    for key, entry in truth.entries.items():
        if entry["op"] != "computed":
            theirs[key] = expected(entry, ours, truth.target[key].shape).contiguous()
    return InMemory(ours), InMemory(theirs)
