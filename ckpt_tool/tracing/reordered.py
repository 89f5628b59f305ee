"""Modules whose outputs a conversion puts in another order: their own outputs differ by design, as
those of projections for the other layout of rotary positions do; what is around them need not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Reordered:
    """Modules of the second network, by their paths, that have tensors in another order: of their
    `rows`, which are a module's outputs, or of their `columns`, which may be.
    """

    rows: frozenset[str] = frozenset()
    columns: frozenset[str] = frozenset()

    def may_hold(self, path: str) -> bool:
        """Whether a module, or one inside of it, may have outputs in another order."""
        within = f"{path}."
        return path in self.columns or any(
            each.startswith(within) for each in (*self.rows, *self.columns)
        )


def reordered(plan: Plan) -> Reordered:
    """The modules of the second network whose tensors the plan puts in another order; those that
    hold nothing but such rows are among them. The whole network, whose outputs are what counts, is
    none of them.
    """
    rows: set[str] = set()
    columns: set[str] = set()
    steps = {id(step): step for step in plan.steps if step.ops}
    for step in steps.values():
        for key, moved in _reordered_outputs(plan, step):
            (rows if moved == 0 else columns).add(key.rpartition(".")[0])
    return Reordered(_with_wrappers(plan, rows) - {""}, frozenset(columns) - {""})


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


def _reordered_outputs(plan: Plan, step: Step) -> Iterator[tuple[str, int]]:
    """Those of a step's outputs whose rows (0) or columns (1) are rows or columns of the source in
    another order.
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
                yield key, axis


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
