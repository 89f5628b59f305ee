"""Modules whose outputs a conversion puts in another order: their own outputs differ by design, as
those of projections for the other layout of rotary positions do; what is around them need not.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from ckpt_tool.errors import RuleError
from ckpt_tool.mapping.apply import apply_step
from ckpt_tool.tracing.orders import NO_ORDERS, Order, Orders

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ckpt_tool.mapping.plan import Plan, Step

MAX_ELEMENTS = 1 << 26
"""A larger tensor is taken to keep the order of its rows."""
MAX_LABELS = 1 << 24
"""float32 counts so far."""
MAX_ORDERS = 16
"""Of one size; with more, what modules give is compared as it is."""


@dataclass(frozen=True, slots=True)
class Reordered:
    """Modules of the second network, by their paths, that have tensors in another order: of their
    `rows`, which are a module's outputs, or of their `columns`, which may be. `orders` are the
    orders that the tensors get, in which what modules take and give can be compared; `known` are
    those of the `rows` that give their channels in that order, if they are right.
    """

    rows: frozenset[str] = frozenset()
    columns: frozenset[str] = frozenset()
    orders: Orders = NO_ORDERS
    known: frozenset[str] = frozenset()

    def may_hold(self, path: str) -> bool:
        """Whether a module, or one inside of it, may have outputs in another order."""
        within = f"{path}."
        return path in self.columns or any(
            each.startswith(within) for each in (*self.rows, *self.columns)
        )


def reordered(plan: Plan, network: nn.Module) -> Reordered:
    """The modules of the second `network` whose tensors the plan puts in another order; those that
    hold nothing but such rows are among them. The whole network, whose outputs are what counts, is
    none of them.
    """
    rows: set[str] = set()
    columns: set[str] = set()
    orders: dict[int, set[Order]] = defaultdict(set)
    steps = {id(step): step for step in plan.steps if step.ops}
    for step in steps.values():
        for key, moved, order in _reordered_outputs(plan, step):
            (rows if moved == 0 else columns).add(key.rpartition(".")[0])
            if sorted(order) == list(range(len(order))):
                orders[len(order)].add(tuple(order))
    few = {size: tuple(sorted(some)) for size, some in orders.items() if len(some) <= MAX_ORDERS}
    known = {path for path in rows if path and _gives_rows(network.get_submodule(path), few)}
    wrapped = _with_wrappers(plan, rows) - {""}
    return Reordered(wrapped, frozenset(columns) - {""}, Orders(few), frozenset(known))


def _gives_rows(module: nn.Module, orders: Mapping[int, object]) -> bool:
    """Whether the rows of a module's tensors are the channels that it gives, and as many as some
    order has.
    """
    from torch import nn

    norms = nn.LayerNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d
    weight = getattr(module, "weight", None)
    is_known = _is_matrix(module) or type(module) in norms
    return is_known and weight is not None and weight.shape[0] in orders


def _is_matrix(module: nn.Module) -> bool:
    from torch import nn

    return type(module) in (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def columns_against_inputs(
    moved: Reordered, path: str, module: nn.Module, is_moved: bool
) -> Iterator[str]:
    """That the columns of a matrix have another order and its inputs don't, or the other way
    round; `is_moved` is whether the inputs have.
    """
    if not _is_matrix(module) or is_moved is (path in moved.columns):
        return
    if is_moved:
        yield f"`{path}` gets inputs in an order that the rules give, and its columns don't have it"
    else:
        yield f"the rules give the columns of `{path}` an order, and its inputs don't have it"


def _with_wrappers(plan: Plan, found: Collection[str]) -> frozenset[str]:
    """The same modules, and those around them that hold nothing else."""
    held: Counter[str] = Counter()
    moved: Counter[str] = Counter()
    for key in plan.outputs if found else ():
        owner = key.rpartition(".")[0]
        for path in _with_parents(owner):
            held[path] += 1
            moved[path] += owner in found
    return frozenset({*found, *(path for path in held if held[path] == moved[path])})


def _with_parents(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition(".")[0]


def _reordered_outputs(plan: Plan, step: Step) -> Iterator[tuple[str, int, list[int]]]:
    """Those of a step's outputs whose rows (0) or columns (1) are rows or columns of the source in
    another order, with the places in the source.
    """
    shapes = [plan.source[key].shape for key in step.inputs]
    if len(shapes) != 1 or not shapes[0]:
        return
    [shape] = shapes
    if prod(shape) > MAX_ELEMENTS or max(shape) > MAX_LABELS:
        return
    by_axis = [_labels_of(step, shape, axis) for axis in range(min(len(shape), 2))]
    for number, key in enumerate(step.outputs):
        labels = [found[number] for found in by_axis if found is not None]
        for axis in (0, 1):
            lines = [line for each in labels if (line := _line_labels(each, axis)) is not None]
            if lines and not any(line == sorted(line) for line in lines):
                yield key, axis, [int(place) for place in lines[0]]


def _labels_of(step: Step, shape: tuple[int, ...], axis: int) -> list[torch.Tensor] | None:
    """What the step makes of a tensor in which every element is its place on this axis; None where
    its ops need other values.
    """
    import torch

    places = torch.arange(shape[axis], dtype=torch.float32)
    labels = places.reshape([-1 if at == axis else 1 for at in range(len(shape))])
    try:
        return apply_step(step, [labels.expand(shape)])
    except (RuleError, RuntimeError):
        return None


def _line_labels(labels: torch.Tensor, axis: int) -> list[float] | None:
    """The label of each row or column, where each has one, and they are different places."""
    if labels.dim() <= axis:
        return None
    lines = labels.movedim(axis, 0).reshape(labels.shape[axis], -1)
    if not lines.numel() or not bool((lines == lines[:, :1]).all()):
        return None
    found: list[float] = lines[:, 0].tolist()
    are_places = all(place >= 0 and place.is_integer() for place in found)
    return found if are_places and len(set(found)) == len(found) else None
