"""A plan: for each target key where its value comes from and through which ops. Pure data, checked
before a byte moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import ckpt_tool.ops
from ckpt_tool.frozen import frozen
from ckpt_tool.ops import TensorForm, infer_chain
from ckpt_tool.tensors import Catalog, DType, TensorInfo

if TYPE_CHECKING:
    from ckpt_tool.mapping.rules import Rule
    from ckpt_tool.ops import Op

By = Literal["rule", "name", "position", "auto"]


@frozen
class Origin:
    """Why a step exists: the rule that it follows, or the way of pairing. Pairs by alignment have
    the rule that was drafted for them, and the confidence of the least sure pair of it.
    """

    by: By
    rule: Rule | None = None
    drafted: Rule | None = None
    confidence: float | None = None

    @property
    def file(self) -> str | None:
        """The rule file; None for a step that no rule drafted."""
        return self.rule.where.file if self.rule else None

    @property
    def line(self) -> int | None:
        """The rule's line, 1-based; None for a step that no rule drafted."""
        return self.rule.where.line if self.rule else None


@frozen
class Step:
    """Source keys that become target keys through ops, run in order on a list of tensors; no ops:
    one key moves as it is.

    >>> import ckpt_tool, torch
    >>> source = {"qkv.weight": torch.ones(6, 2)}
    >>> plan = ckpt_tool.plan(source, rules="qkv.weight -> {q,k,v}.weight: {split: 0}")
    >>> step = plan.steps[0]
    >>> step.inputs, step.outputs, [op.name for op in step.ops]
    (('qkv.weight',), ('q.weight', 'k.weight', 'v.weight'), ['split'])
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    ops: tuple[Op, ...]
    origin: Origin


@dataclass(frozen=True, repr=False)
class Plan:
    """What becomes of every key of both sides. `notes` say in words what a reader should know
    besides.

    `source` and `target` are the catalogs that the plan was made for; without a target nothing is
    kept. `dtype`, where given, is what every floating-point tensor of the output becomes, mapped or
    kept.

    >>> import ckpt_tool, torch
    >>> source, target = {"net.w": torch.ones(2)}, {"w": torch.ones(2), "head": torch.ones(3)}
    >>> plan = ckpt_tool.plan(source, target, rules="net.** -> **", keep="head")
    >>> plan.counts
    {'mapped': 1, 'kept': 1, 'dropped': 0}
    >>> list(plan.outputs)
    ['w', 'head']
    """

    steps: tuple[Step, ...]
    dropped: tuple[str, ...]
    kept: tuple[str, ...]
    source: Catalog
    target: Catalog | None
    notes: tuple[str, ...] = field(default=())
    dtype: DType | None = None

    def __repr__(self) -> str:
        return f"Plan({', '.join(f'{count} {kind}' for kind, count in self.counts.items())})"

    @cached_property
    def producers(self) -> dict[str, tuple[Step, TensorInfo]]:
        """The step that produces each target key, and the tensor that it gives."""
        found: dict[str, tuple[Step, TensorInfo]] = {}
        for step in self.steps:
            if not step.ops:
                moved = self.source[step.inputs[0]]
                found[step.outputs[0]] = (
                    step,
                    TensorInfo(step.outputs[0], moved.dtype, moved.shape),
                )
                continue
            for key, form in zip(step.outputs, step_forms(step, self.source), strict=True):
                found[key] = (step, TensorInfo(key, form.dtype, form.shape))
        return found

    @cached_property
    def outputs(self) -> Catalog:
        """The tensors that result, in the target's order; without a target, in the order of the
        steps.
        """
        produced = {key: info for key, (_, info) in self.producers.items()}
        if self.target is None:
            return Catalog(self._cast(info) for info in produced.values())
        return Catalog(self._cast(produced.get(key, info)) for key, info in self.target.items())

    @cached_property
    def identities(self) -> dict[str, object]:
        """Equal for two target keys that are sure to get the same value, but for what a fit takes
        from each one's own.
        """
        found: dict[str, object] = {}
        for step in self.steps:
            inputs = [self.source[name].tied_to or name for name in step.inputs]
            made = _identities(step, inputs, self.source) if step.ops else inputs
            found.update(zip(step.outputs, made, strict=True))
        return found

    def _cast(self, info: TensorInfo) -> TensorInfo:
        if self.dtype is None or not info.dtype.is_floating:
            return info
        return replace(info, dtype=self.dtype)

    @property
    def counts(self) -> dict[str, int]:
        """How many target keys are mapped and kept, and how many source keys dropped."""
        return {"mapped": len(self.producers), "kept": len(self.kept), "dropped": len(self.dropped)}


@frozen
class Draft:
    """A plan that was refused, as far as it got: `left` and `fresh` are the keys of the source and
    of the target that are neither mapped nor named, which the `plan` has as dropped and kept.
    """

    plan: Plan
    left: frozenset[str]
    fresh: frozenset[str]


def input_forms(step: Step, source: Catalog) -> list[TensorForm]:
    """The dtype and shape of each input of a step."""
    return [TensorForm(source[key].dtype, source[key].shape) for key in step.inputs]


def step_forms(step: Step, source: Catalog) -> tuple[TensorForm, ...]:
    """The dtype and shape of each output of a step. Raises OpError where the ops don't fit."""
    return infer_chain(step.ops, input_forms(step, source))


def _identities(step: Step, inputs: Sequence[object], source: Catalog) -> Sequence[object]:
    """What stands for each output of a step: how it is made of which tensors."""
    if not inputs:
        return [(step.ops, place) for place in range(len(step.outputs))]
    made, forms = list(inputs), input_forms(step, source)
    for op in step.ops:
        forms = list(op.infer(forms))
        count, many = len(made), len(forms)
        if op.name == "copy":
            made = [made[place * count // many] for place in range(many)]
        elif many > count:
            parts = many // count
            made = [(op, made[place // parts], place % parts) for place in range(many)]
        elif many < count:
            size = count // many
            made = [(op, *made[at : at + size]) for at in range(0, count, size)]
        else:
            made = [(_own_ops(op, place, count), each) for place, each in enumerate(made)]
    return made


def _own_ops(op: Op, place: int, count: int) -> object:
    """What an op does to one of so many tensors."""
    return op.chain(place) if isinstance(op, ckpt_tool.ops.Each) and count > 1 else op
