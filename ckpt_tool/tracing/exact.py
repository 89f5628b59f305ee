"""The exact distances at the place where two networks diverge: both are run once more for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite
from typing import TYPE_CHECKING

from ckpt_tool.tracing.comparing import Parting
from ckpt_tool.tracing.leaves import Path
from ckpt_tool.tracing.orders import NO_ORDERS, Orders
from ckpt_tool.tracing.places import have_one_name, paired_leaves
from ckpt_tool.tracing.recording import Captured, Recorder, Setting
from ckpt_tool.tracing.sketches import Sketch, tensors_in

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True, slots=True)
class Distance:
    """How far two values are apart: relative to their size (the norm of the difference over the
    larger norm), and the largest difference of two elements with its index; `path` is its place
    among several tensors.
    """

    relative: float
    largest: float
    index: tuple[int, ...]
    path: Path = ()


@dataclass(frozen=True, slots=True)
class Found:
    """What the calls took and gave on both sides; `entering` is how far the inputs of the module
    that gets other ones first are apart; `is_moved` where the inputs are closest in an order that
    the rules give. `entered` is the call of that module, `again` are the outputs as
    sketches.
    """

    calls: tuple[Captured, Captured]
    entering: Distance | None
    inputs: Distance | None
    outputs: Distance | None
    is_moved: bool
    entered: tuple[Captured, Captured]
    again: tuple[Sequence[Sketch], Sequence[Sketch]]


def exact_distances(
    one: nn.Module,
    other: nn.Module,
    inputs: tuple[object, object],
    setting: Setting,
    parting: Parting,
    orders: Orders = NO_ORDERS,
) -> Found:
    """Runs both networks again and compares what the call at the parting took and gave, in full,
    in those of the `orders` in which they are closest.
    """
    row, at = parting.row, parting.at or parting.row
    own = orders if row.other else NO_ORDERS
    calls, entered, again = [], [], []
    for module, given, path, inner in (
        (one, inputs[0], row.one, at.one),
        (other, inputs[1], row.other, at.other),
    ):
        wanted = (path, row.call), (inner, at.call)
        record = Recorder(module, {path, inner}, wanted)
        record.run(given, setting)
        calls.append(record.captured[wanted[0]])
        entered.append(record.captured[wanted[1]])
        again.append(record.calls[wanted[0]].outputs)
    entering = [(each.args, each.kwargs) for each in entered]
    took = [(each.args, each.kwargs) for each in calls]
    took_apart, plain = (distance_in(took[0], took[1], each) for each in (own, NO_ORDERS))
    return Found(
        (calls[0], calls[1]),
        _argument(distance_in(entering[0], entering[1], orders if at.other else NO_ORDERS)),
        _argument(took_apart),
        distance_in(calls[0].output, calls[1].output, own),
        plain is not None and took_apart is not None and took_apart.relative < plain.relative,
        (entered[0], entered[1]),
        (again[0], again[1]),
    )


def shapes_said(parting: Parting, found: Found) -> Iterator[str]:
    """The shapes that two modules give, where none of one is among the other's."""
    gave = [[tuple(one.shape) for one in tensors_in(each.output)] for each in found.calls]
    if all(gave) and not set(gave[0]) & set(gave[1]):
        one, other = (", ".join(map(_shape, each)) for each in gave)
        path, its = parting.row.one, parting.row.other
        yield f"`{its}` gives {other}, its counterpart `{path}` of the first network {one}"


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "()"


def distance_in(one: object, other: object, orders: Orders = NO_ORDERS) -> Distance | None:
    """The largest distance of two tensors that belong together in two values; None where none do.
    The place of one of several is the second's.
    """
    found = []
    for _, path, tensor, its in paired_leaves(one, other):
        if tensor.shape == its.shape:
            found.append(replace(_nearest(tensor, its, orders), path=path))
    far = max(found, key=lambda each: each.relative, default=None)
    is_one = len(found) == 1 and have_one_name(found[0].path, ())
    return replace(far, path=()) if far is not None and is_one else far


def _argument(apart: Distance | None) -> Distance | None:
    """A distance of what a call took, whose places begin with whether it is a named argument."""
    return None if apart is None else replace(apart, path=apart.path[1:])


def distance_of(
    ones: Sequence[torch.Tensor], others: Sequence[torch.Tensor], orders: Orders = NO_ORDERS
) -> Distance | None:
    """The largest distance of two tensors of one shape, in order; None where there are none."""
    left, found = list(others), []
    for one in ones:
        at = next((i for i, other in enumerate(left) if other.shape == one.shape), None)
        if at is not None:
            found.append(_nearest(one, left.pop(at), orders))
    return max(found, key=lambda each: each.relative, default=None)


def _nearest(one: torch.Tensor, other: torch.Tensor, orders: Orders) -> Distance:
    """The distance in the order in which two tensors are closest."""
    some = [_between(each, other) for each in (one, *orders.variants(one))]
    return min(some, key=lambda each: each.relative)


def _between(one: torch.Tensor, other: torch.Tensor) -> Distance:
    import torch

    if one.is_complex() or other.is_complex():
        one, other = (
            torch.view_as_real(each.resolve_conj().to(torch.complex128)) for each in (one, other)
        )
    one, other = (each.detach().cpu().double() for each in (one, other))
    if not one.numel():
        return Distance(0.0, 0.0, ())
    first, second = (torch.nan_to_num(each, 0.0, 0.0, 0.0) for each in (one, other))
    apart = (first - second).abs()
    is_same = (one == other) | (one.isnan() & other.isnan())
    apart[~(one.isfinite() & other.isfinite()) & ~is_same] = torch.inf
    largest = float(apart.max())
    place = tuple(int(each) for each in torch.unravel_index(apart.argmax(), apart.shape))
    if not isfinite(largest):
        return Distance(inf, inf, place)
    top = max(float(first.abs().max()), float(second.abs().max())) or 1.0  # squares may overflow
    size = max(float((first / top).norm()), float((second / top).norm()))
    return Distance(float((apart / top).norm()) / size if size else largest, largest, place)
