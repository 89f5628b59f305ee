"""What differs among the small numbers of an output, whose norm the large ones make: scores beside
boxes in pixels, and logits beside what a mask puts in their place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import inf, sqrt
from typing import TYPE_CHECKING

from ckpt_tool.tracing.comparing import Row, limit_of
from ckpt_tool.tracing.leaves import Path
from ckpt_tool.tracing.places import name_of, paired_leaves
from ckpt_tool.tracing.recording import Recorder, Setting
from ckpt_tool.tracing.sketches import CHUNK, SHORT, distance, eps_of, huge_of, rounding_of

if TYPE_CHECKING:
    import torch
    from torch import nn

MIN_COUNT = 8
MIN_SHARE = 1 / 256
"""So many numbers count, and so large a share: some lie near zero wherever many are."""
BEYOND = 8.0
"""How many times farther apart the small numbers are than the large ones: rounding brings what is
summed up at most as far as the largest term, so that small ones are as far apart as large ones.
"""
NOTED = 0.1
"""A relative difference of small numbers that is said though rounding of large ones explains it, in
full precision: in 16 bits it is nothing strange.
"""
EXPONENTS = 2200
"""Of float64, with those of subnormal numbers; frexp gives -1073 to 1024. Zeros come first."""


@dataclass(frozen=True, slots=True)
class Hidden:
    """The numbers of an output up to `size`, `count` of `total`: how far they are apart, relative
    to their own norm. `is_rounding` where rounding of the larger ones may explain it.
    """

    path: Path
    count: int
    total: int
    size: float
    distance: float
    is_rounding: bool

    @property
    def said(self) -> str:
        """What a reader should know.

        >>> Hidden(("x",), 230, 256, 4.0, 0.0104, False).said
        '230 of 256 numbers of `x`, those below 4, differ by 1.0e-02 relative to their own norm'
        """
        name = f"`{name_of(self.path)}`" if self.path else "the output"
        return (
            f"{self.count} of {self.total} numbers of {name}, those below {self.size:.3g}, "
            f"differ by {self.distance:.1e} relative to their own norm"
        )


def hidden_in(one: object, other: object) -> list[Hidden]:
    """What differs among the small numbers of two networks' outputs, of each tensor the most."""
    pairs = paired_leaves(one, other)
    found = (_hidden(path, tensor, its) for _, path, tensor, its in pairs)
    return [each for each in found if each is not None]


def giver_of(
    networks: tuple[nn.Module, nn.Module],
    inputs: tuple[object, object],
    setting: Setting,
    rows: Sequence[Row],
    second: Recorder,
    path: Path,
) -> Row:
    """The first call that gives the tensor at a `path` of the networks' outputs as it is, from
    inputs whose small numbers agree too; of the whole network where none inside of it does.
    """
    whole = next(row for row in rows if not row.other and not row.call)
    outputs = [each for each in second.calls["", 0].outputs if each.path == path]
    for row in rows:
        both = product(second.calls[row.other, row.call].outputs, outputs)
        if row is whole or row.is_weak or not any(distance(*each) == 0 for each in both):
            continue
        took = []
        for network, given, name in zip(networks, inputs, (row.one, row.other), strict=True):
            record = Recorder(network, {name}, [(name, row.call)])
            record.run(given, setting)
            took.append(record.captured[name, row.call])
        sides = [(each.args, each.kwargs) for each in took]
        return row if all(each.is_rounding for each in hidden_in(*sides)) else whole
    return whole


def _hidden(path: Path, one: torch.Tensor, other: torch.Tensor) -> Hidden | None:
    """The small numbers that differ most, for certain ones first."""
    if one.shape != other.shape or not min(eps_of(one), eps_of(other)):
        return None
    floor = rounding_of(max(eps_of(one), eps_of(other)))
    found = list(_parts(path, _sums(one, other), limit_of(floor), eps_of(one)))
    return max(found, key=lambda each: (not each.is_rounding, each.distance), default=None)


def _parts(path: Path, sums: torch.Tensor, limit: float, eps: float) -> Iterator[Hidden]:
    """The numbers below each power of two that are farther apart than rounding brings them."""
    total = int(sums[0].sum())
    noted = NOTED if eps < SHORT else inf
    below = sums.cumsum(1)
    for at in sums[0].nonzero().flatten().tolist()[:-1]:
        count, _, square, size = (float(each) for each in below[:, at])
        if count < max(MIN_COUNT, MIN_SHARE * total) or not size:
            continue
        apart = sqrt(square / size)
        is_rounding = sqrt(square / count) <= BEYOND * _far(sums[:, at + 1 :].sum(1), eps)
        if apart > (noted if is_rounding else limit):
            top = 2.0 ** (at - EXPONENTS // 2)
            yield Hidden(path, int(count), total, top, apart, is_rounding)


def _far(large: torch.Tensor, eps: float) -> float:
    """How far rounding brings large numbers: as far as those are that differ, but a few of them may
    be equal by chance.
    """
    count, differing, square, size = (float(each) for each in large)
    by_chance = eps * sqrt(size / count) if count < MIN_COUNT else 0.0
    return max(sqrt(square / differing) if differing else 0.0, by_chance)


def _sums(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """By the exponent of the larger of two numbers: how many there are, how many differ, the sum of
    the squares of their differences, and of themselves. What is not finite, or huge, is left out.
    """
    import torch

    ones, others = (_flat(each) for each in (one, other))
    huge = min(huge_of(one), huge_of(other))
    sums = torch.zeros(4, EXPONENTS, dtype=torch.float64)
    for start in range(0, ones.numel(), CHUNK):
        first, second = (each[start : start + CHUNK].cpu().double() for each in (ones, others))
        size = torch.maximum(first.abs(), second.abs())
        is_plain = size <= huge  # not of NaN either
        apart, size = (first - second)[is_plain].abs(), size[is_plain]
        places = torch.frexp(size).exponent.long() + EXPONENTS // 2
        places[size == 0] = 0
        for row, each in zip(sums, (None, apart > 0, apart.square(), size.square()), strict=True):
            weights = None if each is None else each.double()
            row += torch.bincount(places, weights, EXPONENTS)
    return sums


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    import torch

    tensor = tensor.detach()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return tensor.reshape(-1)
