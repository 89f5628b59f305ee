"""Modules whose outputs a conversion puts in another order: their own outputs differ by design, as
those of projections for the other layout of rotary positions do; what is around them need not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING

from ckpt_tool.errors import RuleError
from ckpt_tool.mapping.apply import apply_step

if TYPE_CHECKING:
    import torch

    from ckpt_tool.mapping.plan import Plan, Step

MAX_ELEMENTS = 1 << 26
"""A larger tensor is taken to keep the order of its rows."""
MAX_LABELS = 1 << 24
"""float32 counts so far."""


def reordered(plan: Plan) -> frozenset[str]:
    """The paths of modules of the second network with tensors whose rows, which are its outputs,
    the plan puts in another order, and of those that hold nothing else. The whole network, whose
    outputs are what counts, is none of them.
    """
    steps = {id(step): step for step in plan.steps if step.ops}
    found = {
        key.rpartition(".")[0] for step in steps.values() for key in _reordered_outputs(plan, step)
    }
    held: Counter[str] = Counter()
    moved: Counter[str] = Counter()
    for key in plan.outputs if found else ():
        owner = key.rpartition(".")[0]
        for path in _with_parents(owner):
            held[path] += 1
            moved[path] += owner in found
    return frozenset({*found, *(path for path in held if held[path] == moved[path])} - {""})


def _with_parents(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition(".")[0]


def _reordered_outputs(plan: Plan, step: Step) -> Iterator[str]:
    """Those of a step's outputs whose rows are the source's rows, or columns, in another order."""
    shapes = [plan.source[key].shape for key in step.inputs]
    if len(shapes) != 1 or not shapes[0]:
        return
    [shape] = shapes
    if prod(shape) > MAX_ELEMENTS or max(shape) > MAX_LABELS:
        return
    by_axis = [_labels_of(step, shape, axis) for axis in range(min(len(shape), 2))]
    for number, key in enumerate(step.outputs):
        labels = [found[number] for found in by_axis if found is not None]
        rows = [row for each in labels if (row := _row_labels(each)) is not None]
        # Whole rows of the target are rows or columns of the source: in order, or in another one.
        if rows and not any(row == sorted(row) for row in rows):
            yield key


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


def _row_labels(labels: torch.Tensor) -> list[float] | None:
    """The label of each row, where it has one, and no two have the same."""
    if not labels.dim():
        return None
    rows = labels.reshape(labels.shape[0], -1)
    if not rows.shape[1] or not bool((rows == rows[:, :1]).all()):
        return None
    found: list[float] = rows[:, 0].tolist()
    return found if len(set(found)) == len(found) else None
