"""A state dict in a pickle with what a plan makes of it: tensors that move keep their opcodes and
their storages, others are new.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace

from ckpt_tool.engine.sources import TensorSource, moved_tensors
from ckpt_tool.engine.whole.outline import Made
from ckpt_tool.frozen import frozen
from ckpt_tool.mapping.plan import Plan, Step
from ckpt_tool.tensors import TensorInfo

NewTensor = tuple[TensorInfo, str]
"""A tensor with the key of its storage, all of which it is."""
Member = tuple[Made | str, Made | NewTensor]
"""A key and its value: as they are written in the source, or new."""


@frozen
class Part:
    """A state dict of the file, to which `names` lead, and what becomes of it.

    `prefix` stands before all of its keys, which the plan's are without. `storages` has the keys of
    new storages, by the outputs that don't move.
    """

    names: tuple[str, ...]
    plan: Plan
    source: TensorSource
    target: TensorSource | None
    prefix: str = ""
    storages: Mapping[str, str] = field(default_factory=dict)

    shares_tensors = True
    """Outputs that are one tensor have one storage."""

    @property
    def path(self) -> str:
        """The names as a dotted path."""
        return ".".join(self.names)

    @property
    def moved(self) -> dict[str, str]:
        """The keys of the source that move unchanged, by output."""
        found = moved_tensors(self.plan, self.source, None)
        return {key: origin.key for key, origin in found.items()}


def in_source_order(plan: Plan) -> Plan:
    """A plan without a target, whose outputs are in the order of the tensors that they come from,
    whatever the order of the rules is.
    """
    last = len(plan.source)
    places = {key: number for number, key in enumerate(plan.source)}

    def place(step: Step) -> int:
        return min((places[key] for key in step.inputs), default=last)

    return replace(plan, steps=tuple(sorted(plan.steps, key=place)))
