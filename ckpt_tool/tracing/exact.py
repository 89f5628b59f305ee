"""The exact distances at the place where two networks diverge: both are run once more for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ckpt_tool.tracing.comparing import Parting
from ckpt_tool.tracing.orders import NO_ORDERS, Orders
from ckpt_tool.tracing.recording import Captured, Recorder, Setting
from ckpt_tool.tracing.sketches import Sketch, tensors_in

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True, slots=True)
class Distance:
    """How far two values are apart: relative to their size (the norm of the difference over the
    larger norm), and the largest difference of two elements with its index.
    """

    relative: float
    largest: float
    index: tuple[int, ...]


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
    entering = [tensors_in((each.args, each.kwargs)) for each in entered]
    took = [tensors_in((each.args, each.kwargs)) for each in calls]
    gave = [tensors_in(each.output) for each in calls]
    took_apart, plain = (distance_of(took[0], took[1], each) for each in (own, NO_ORDERS))
    return Found(
        (calls[0], calls[1]),
        distance_of(entering[0], entering[1], orders if at.other else NO_ORDERS),
        took_apart,
        distance_of(gave[0], gave[1], own),
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


def distance_of(
    ones: Sequence[torch.Tensor], others: Sequence[torch.Tensor], orders: Orders = NO_ORDERS
) -> Distance | None:
    """The largest distance of two tensors of one shape, in order; None where there are none."""
    left, found = list(others), []
    for one in ones:
        at = next((i for i, other in enumerate(left) if other.shape == one.shape), None)
        if at is not None:
            near = left.pop(at)
            some = [_between(each, near) for each in (one, *orders.variants(one))]
            found.append(min(some, key=lambda each: each.relative))
    return max(found, key=lambda each: each.relative, default=None)


def _between(one: torch.Tensor, other: torch.Tensor) -> Distance:
    import torch

    if one.is_complex() or other.is_complex():
        one, other = (
            torch.view_as_real(each.resolve_conj().to(torch.complex128)) for each in (one, other)
        )
    one, other = (each.detach().cpu().double() for each in (one, other))
    first, second = torch.nan_to_num(one), torch.nan_to_num(other)
    if not first.numel():
        return Distance(0.0, 0.0, ())
    apart = (first - second).abs()
    apart[one.isnan() != other.isnan()] = torch.inf
    size = max(float(first.norm()), float(second.norm()))
    place = torch.unravel_index(apart.argmax(), apart.shape)
    relative = float(apart.norm()) / size if size else float(apart.max())
    return Distance(relative, float(apart.max()), tuple(int(each) for each in place))
