"""Tensors in a few kilobytes, such that the distance of two can still be told.

A count sketch (Charikar, Chen, Farach-Colton 2002) adds each element, with a sign, to one of a few
thousand sums. The distance of two sketches is that of the tensors within a few percent, wherever
they differ, so that no network's outputs have to be kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf, sqrt
from typing import TYPE_CHECKING

from ckpt_tool.tracing.leaves import Path, leaves_in
from ckpt_tool.tracing.orders import NO_ORDERS, Orders
from ckpt_tool.tracing.places import belonging

if TYPE_CHECKING:
    import torch

SUMS_BITS = 12
SUMS = 1 << SUMS_BITS
CHUNK = 1 << 20
HUGE = 1e8
"""No activation, but what masks stand for: it would hide all other numbers."""
ROUNDING = 16
SHORT_ROUNDING = 4
"""How many units in the last place one module's rounding is, of float32 and of 16-bit types."""
SHORT = 1e-5
"""The eps from which a dtype is a short one, whose rounding is large enough to hide faults."""
MAX_HUGE_ROUNDING = 1e-2
"""The relative difference that rounding may make of a sum of huge numbers."""
_MIX = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
"""The constants of SplitMix64 (Steele, Lea, Flood 2014)."""


@dataclass(frozen=True, slots=True)
class Sketch:
    """What is kept of a value at a place in what a module takes or gives. `odd` is a sum over the
    places and kinds of elements that are not finite, or huge; they count as zeros. `huge` is a sum
    of those that are finite, with signs by their places; `count` is how many are finite. It
    `is_varied` where they are neither all the same nor all whole numbers, as labels and masks are.
    `moved` are the sketches of the same with channels in other orders.
    """

    path: Path
    shape: tuple[int, ...]
    eps: float
    sums: torch.Tensor
    norm: float
    odd: int
    huge: float = 0.0
    count: int = 0
    is_varied: bool = False
    moved: tuple[Sketch, ...] = ()


@dataclass(frozen=True, slots=True)
class Apart:
    """How far two values are apart, relative to their size, and how far rounding may bring them."""

    distance: float
    floor: float

    @property
    def weight(self) -> float:
        """What the worst of several is told by."""
        return self.distance / max(self.floor, 1e-30)


def sketches_in(value: object, orders: Orders = NO_ORDERS) -> list[Sketch]:
    """The sketches of all numbers in what a module takes or gives, taken at once, each with those
    in other orders.
    """
    found = []
    for path, tensor in leaves_in(value):
        moved = tuple(sketch_of(each, path) for each in orders.variants(tensor))
        found.append(replace(sketch_of(tensor, path), moved=moved))
    return found


def sketch_of(tensor: torch.Tensor, path: Path = ()) -> Sketch:
    """The sketch of a tensor of numbers, on any device."""
    import torch

    flat = tensor.detach().reshape(-1)
    if flat.is_complex():
        flat = torch.view_as_real(flat.resolve_conj()).reshape(-1)
    sums = torch.zeros(min(SUMS, max(flat.numel(), 1)), dtype=torch.float64)
    square, odd, huge, count = 0.0, 0, 0.0, flat.numel()
    is_varied = False
    for start in range(0, flat.numel(), CHUNK):
        part = flat[start : start + CHUNK].cpu().double()
        mixed = _mixed(start, part.numel())
        is_odd = ~torch.isfinite(part) | (part.abs() > huge_of(tensor))
        if bool(is_odd.any()):
            kinds = torch.where(part.isnan(), 1, torch.where(part > 0, 2, 3))
            odd += int((mixed[is_odd] * kinds[is_odd]).sum())
            count -= int((~torch.isfinite(part)).sum())
            is_huge = is_odd & torch.isfinite(part)
            huge += float((part * ((mixed & 1) * 2 - 1))[is_huge].sum())
            part = torch.where(is_odd, 0.0, part)
        square += float(part.square().sum())
        is_varied = is_varied or _is_varied(part[:SUMS]) or _is_varied(part)
        if flat.numel() <= SUMS:
            sums[start : start + part.numel()] = part
        else:
            signs = (mixed & 1).mul_(2).sub_(1)
            sums.index_add_(0, mixed >> 1 & (SUMS - 1), part * signs)
    shape, norm = tuple(tensor.shape), sqrt(square)
    return Sketch(path, shape, eps_of(tensor), sums, norm, odd, huge, count, is_varied)


def _is_varied(part: torch.Tensor) -> bool:
    """Whether numbers are not all the same, nor all whole ones."""
    can_vary = part.numel() == 1 or bool((part != part[0]).any())
    return can_vary and bool((part != part.round()).any())


def _mixed(start: int, count: int) -> torch.Tensor:
    """Numbers that look random, one for each index: SplitMix64."""
    import torch

    first, second, third = (each - (1 << 64) if each >> 63 else each for each in _MIX)
    mixed = torch.arange(start + 1, start + count + 1).mul_(first)
    mixed ^= mixed >> 30 & (1 << 34) - 1
    mixed *= second
    mixed ^= mixed >> 27 & (1 << 37) - 1
    mixed *= third
    mixed ^= mixed >> 31 & (1 << 33) - 1
    return mixed


def huge_of(tensor: torch.Tensor) -> float:
    """From which size a number counts by its place and sign alone."""
    import torch

    if not tensor.is_floating_point():
        return inf
    return min(HUGE, torch.finfo(tensor.dtype).max / 2)


def eps_of(tensor: torch.Tensor) -> float:
    """The relative distance of neighbouring numbers of its dtype; 0 for integers."""
    import torch

    is_real = tensor.is_floating_point() or tensor.is_complex()
    return torch.finfo(tensor.dtype).eps if is_real else 0.0


def distance(one: Sketch, other: Sketch) -> float | None:
    """The size of the difference, relative to the larger of the two, in the order that brings them
    closest; None where the shapes differ.
    """
    apart = _distance(one, other)
    found = (_distance(each, other) for each in one.moved)
    return None if apart is None else min([apart, *(far for far in found if far is not None)])


def _distance(one: Sketch, other: Sketch) -> float | None:
    if one.shape != other.shape or one.sums.shape != other.sums.shape:
        return None
    if one.odd != other.odd:
        return inf
    size = max(one.norm, other.norm)
    return float((one.sums - other.sums).norm()) / size if size else 0.0


def differ_in_huge(one: Sketch, other: Sketch) -> bool:
    """Whether numbers too large for activations, which count by place and sign alone, as masks do,
    are not the same.
    """
    size = max(abs(one.huge), abs(other.huge))
    return abs(one.huge - other.huge) > MAX_HUGE_ROUNDING * size


def floor_of(one: Sketch, other: Sketch) -> float:
    """How far apart rounding alone may bring the results of one module."""
    return rounding_of(max(one.eps, other.eps))


def rounding_of(eps: float) -> float:
    """The same by the distance of neighbouring numbers of a dtype."""
    return eps * (ROUNDING if eps < SHORT else SHORT_ROUNDING)


def farthest(ones: Sequence[Sketch], others: Sequence[Sketch]) -> Apart | None:
    """The largest distance, for what rounding may make of it, of those that belong together; None
    where none do.
    """
    found = []
    for one, other in paired(ones, others):
        apart = distance(one, other)
        if apart is not None:
            found.append(Apart(apart, floor_of(one, other)))
    return max(found, key=lambda each: each.weight, default=None)


def paired(ones: Sequence[Sketch], others: Sequence[Sketch]) -> Iterator[tuple[Sketch, Sketch]]:
    """Those that belong together: by name first, and by place and shape what has no names."""
    places = ([(each.path, each.shape) for each in some] for some in (ones, others))
    return ((ones[i], others[j]) for i, j in belonging(*places))


def tensors_in(value: object) -> list[torch.Tensor]:
    """The same without places."""
    return [tensor for _, tensor in leaves_in(value)]
