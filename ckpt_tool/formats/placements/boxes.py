"""The parts of a tensor that several files hold: whether they fill it, and in which order they
stand.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from ckpt_tool.regions import Region
from ckpt_tool.tensors import Shape, shape_text

MAX_COMPARISONS = 10_000_000
"""Pairs of a tensor's boxes that are compared: a million boxes of any real layout need fewer."""


class BoxFault(Exception):
    """Why boxes are no tensor, in words that follow the tensor's name."""


def check_filled(regions: Sequence[Region], shape: Shape) -> None:
    """Raises BoxFault unless the boxes lie inside of the tensor, not over each other, and leave
    nothing out. Empty boxes count for nothing.
    """
    some = []
    for region in regions:
        _check_inside(region, shape)
        if prod(region.shape):
            some.append(region)
    volume, whole = sum(prod(region.shape) for region in some), prod(shape)
    if volume <= whole or len(some) == 1:
        _check_volume(volume, whole)
    _check_apart(some)
    _check_volume(volume, whole)


def _check_volume(volume: int, whole: int) -> None:
    if volume < whole:
        raise BoxFault(f"has {volume} of its {whole} elements; a part of it is missing")
    if volume > whole:
        raise BoxFault(f"has {volume} elements in its parts, and {whole} in its shape")


def _check_inside(region: Region, shape: Shape) -> None:
    if not len(region.offsets) == len(region.shape) == len(shape):
        raise BoxFault(
            f"has a part of {len(region.shape)} dimensions at {len(region.offsets)} offsets; "
            f"its shape is {shape_text(shape)}"
        )
    for start, count, extent in zip(region.offsets, region.shape, shape, strict=True):
        if start < 0 or count < 0 or start + count > extent:
            raise BoxFault(f"has a part {region.text} outside of its shape {shape_text(shape)}")


def _check_apart(regions: list[Region]) -> None:
    """Sweeps along the dimension that is cut most often: boxes that share no index of it can't lie
    over each other.
    """
    if len(regions) < 2:
        return
    axes = range(len(regions[0].offsets))
    if not axes:
        raise BoxFault(f"is one number, and has {len(regions)} parts")
    axis = max(axes, key=lambda each: len({region.offsets[each] for region in regions}))
    open_now: list[Region] = []
    compared = 0
    for region in sorted(regions, key=lambda one: one.offsets[axis]):
        start = region.offsets[axis]
        open_now = [one for one in open_now if one.offsets[axis] + one.shape[axis] > start]
        compared += len(open_now)
        if compared > MAX_COMPARISONS:
            raise BoxFault("is cut into too many parts in too many ways")
        for one in open_now:
            if _overlap(one, region):
                raise BoxFault(f"has parts that lie over each other: {one.text} and {region.text}")
        open_now.append(region)


def _overlap(one: Region, other: Region) -> bool:
    return all(
        a < b + m and b < a + n
        for a, n, b, m in zip(one.offsets, one.shape, other.offsets, other.shape, strict=True)
    )
