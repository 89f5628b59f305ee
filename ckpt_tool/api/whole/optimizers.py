"""The optimizers of a training checkpoint: whether their state still belongs to the parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ckpt_tool.formats.limits import NESTING
from ckpt_tool.formats.pickle.graph import children
from ckpt_tool.formats.torch_files.state_dicts import is_optimizer

if TYPE_CHECKING:
    from ckpt_tool.engine.whole.weights import Part

MAX_MEMBERS = 1000
"""Members of a container among which optimizers are looked for."""


def find_optimizers(root: object) -> Iterator[tuple[tuple[str, ...], dict[object, object]]]:
    """The optimizers' state dicts in a file, each once, with the names that lead to it."""
    pending: list[tuple[tuple[str, ...], object]] = [((), root)]
    seen = set()
    while pending:
        names, value = pending.pop()
        if id(value) in seen or len(names) > NESTING:
            continue
        seen.add(id(value))
        if isinstance(value, dict) and is_optimizer(value):
            yield names, value
        elif isinstance(value, dict | list) and len(value) <= MAX_MEMBERS:
            inside = [((*names, name), child) for name, child in children(value)]
            pending += reversed(inside)


def keeps_order(part: Part) -> bool:
    """Whether every tensor only gets another name, and all stay in their order: then the numbers by
    which an optimizer knows its parameters are the same.
    """
    plan, moved = part.plan, part.moved
    if plan.kept or plan.dropped or plan.dtype is not None:
        return False
    return [moved.get(key) for key in part.outputs] == list(plan.source)
