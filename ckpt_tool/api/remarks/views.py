"""What is said of tensors that lie over each other in the source, and don't in an output."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from ckpt_tool.tensors import overlapping

if TYPE_CHECKING:
    from ckpt_tool.mapping import Plan

MAX_NAMES = 6


def views_noted(plan: Plan) -> Iterator[str]:
    """That views of one storage are written as tensors of their own; nothing where none are.

    >>> import ckpt_tool, torch
    >>> w = torch.ones(4, 2)
    >>> plan = ckpt_tool.plan({"embed": w, "head": w[:2]}, rules="** -> **")
    >>> list(views_noted(plan))
    ['these share numbers in the source, and are written by themselves: head in embed']
    """
    moved = dict.fromkeys(key for step in plan.steps if not step.ops for key in step.inputs)
    groups = overlapping(plan.source[key] for key in moved)
    views = [(info.key, group[0].key) for group in groups for info in group[1:]]
    if views:
        names = ", ".join(f"{key} in {first}" for key, first in islice(views, MAX_NAMES))
        more = f" and {len(views) - MAX_NAMES} more" if len(views) > MAX_NAMES else ""
        yield f"these share numbers in the source, and are written by themselves: {names}{more}"
