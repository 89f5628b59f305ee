"""Tensors in a few kilobytes, such that the distance of two can still be told.

A count sketch (Charikar, Chen, Farach-Colton 2002) adds each element, with a sign, to one of a few
thousand sums. The distance of two sketches is that of the tensors within a few percent, wherever
they differ, so that no network's outputs have to be kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf, sqrt
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

SUMS_BITS = 12
SUMS = 1 << SUMS_BITS
CHUNK = 1 << 20
_FACTOR = 0x9E3779B1
"""Knuth's multiplicative hash: 2^32 over the golden ratio, made odd."""


@dataclass(frozen=True, slots=True)
class Sketch:
    """What is kept of a tensor. `odd` counts elements that are not finite; they count as zeros."""

    shape: tuple[int, ...]
    eps: float
    sums: torch.Tensor
    norm: float
    odd: int


def sketch_of(tensor: torch.Tensor) -> Sketch:
    """The sketch of a tensor of numbers, on any device, taken at once."""
    import torch

    flat = tensor.detach().reshape(-1)
    sums = torch.zeros(min(SUMS, max(flat.numel(), 1)), dtype=torch.float64)
    square, odd = 0.0, 0
    for start in range(0, flat.numel(), CHUNK):
        part = _real(flat[start : start + CHUNK])
        finite = torch.isfinite(part)
        odd += int((~finite).sum())
        part = torch.where(finite, part, 0.0)
        square += float(part.square().sum())
        if flat.numel() <= SUMS:
            sums[start : start + part.numel()] = part
        else:
            mixed = torch.arange(start, start + part.numel()) * _FACTOR & 0xFFFFFFFF
            signs = (mixed >> (31 - SUMS_BITS) & 1).mul_(2).sub_(1)
            sums.index_add_(0, mixed >> (32 - SUMS_BITS), part * signs)
    return Sketch(tuple(tensor.shape), eps_of(tensor), sums, sqrt(square), odd)


def _real(part: torch.Tensor) -> torch.Tensor:
    import torch

    part = part.cpu()
    if part.is_complex():
        part = torch.view_as_real(part.resolve_conj()).sum(-1)
    return part.double()


def eps_of(tensor: torch.Tensor) -> float:
    """The relative distance of neighbouring numbers of its dtype; 0 for integers."""
    import torch

    return torch.finfo(tensor.dtype).eps if tensor.is_floating_point() else 0.0


def distance(one: Sketch, other: Sketch) -> float | None:
    """The size of the difference, relative to the larger of the two; None where the shapes
    differ.
    """
    if one.shape != other.shape:
        return None
    if one.odd != other.odd:
        return inf
    size = max(one.norm, other.norm)
    return float((one.sums - other.sums).norm()) / size if size else 0.0


def farthest(ones: Sequence[Sketch], others: Sequence[Sketch]) -> float | None:
    """The largest distance of those that stand at the same place among the tensors of their
    shape; None where none do.
    """
    found = [distance(one, other) for one, other in _paired(ones, others)]
    return max((each for each in found if each is not None), default=None)


def _paired(ones: Sequence[Sketch], others: Sequence[Sketch]) -> Iterator[tuple[Sketch, Sketch]]:
    left = list(others)
    for one in ones:
        match = next((other for other in left if other.shape == one.shape), None)
        if match is not None:
            left.remove(match)
            yield one, match


def tensors_in(value: object) -> list[torch.Tensor]:
    """The tensors of numbers in what a module takes or gives: tuples, dicts, dataclasses."""
    import torch
    from torch.utils import _pytree

    leaves: list[object] = []
    for leaf in _pytree.tree_leaves(value):
        fields = vars(leaf).values() if hasattr(leaf, "__dataclass_fields__") else ()
        leaves += [each for one in fields for each in tensors_in(one)] if fields else [leaf]
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and not leaf.is_sparse]
