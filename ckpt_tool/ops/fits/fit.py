"""What all fits share.

A fit follows a step's own ops and knows the form that it must give. Calculations are in float32
and rounded once, to the form's dtype; what the target keeps is cast once, from the target's value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ckpt_tool.ops.op import Inverse, Op, OpError, TensorForm
from ckpt_tool.tensors import DType, Shape
from ckpt_tool.torch_bridge import torch_dtype

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self


@dataclass(frozen=True, slots=True)
class Fit(Op):
    """What all fits share: `form` is what it gives, filled in when the plan is made: the target's
    shape, in the dtype that the output has.

    One that `needs_target` gets the target's own tensor beside the source's.
    """

    form: TensorForm | None = None

    @classmethod
    def parse(cls, argument: object) -> Self:
        """From nothing. Raises OpError for an argument."""
        if argument is not None:
            raise OpError(f"`{cls.name}` has no argument")
        return cls()

    @property
    def needs_target(self) -> bool:
        """Whether `run` takes the target's own tensor as the last of its inputs."""
        return False

    def with_form(self, form: TensorForm) -> Self:
        """The fit for a target of this form."""
        return replace(self, form=form)

    def with_dtype(self, dtype: DType) -> Self:
        """The fit for an output of another dtype."""
        return self if self.form is None else replace(self, form=replace(self.form, dtype=dtype))

    def settled(self, source: Shape) -> Self:
        """The fit with all numbers that follow from the source's shape. Raises OpError."""
        return self

    def details(self, source: Shape) -> str:
        """What it takes the shapes for, in words, where these may mean more than one thing."""
        return ""

    def infer(self, inputs: Sequence[TensorForm]) -> tuple[TensorForm, ...]:
        """One tensor -> the form."""
        if self.form is None or len(inputs) != 1:
            raise OpError(f"`{self.name}` is for one tensor and a target")
        self.check(inputs[0].shape, self.form.shape)
        return (self.form,)

    def check(self, source: Shape, target: Shape) -> None:
        """Raises OpError where the source can't become the target's shape."""

    def back(self) -> Fit:
        """The fit that leads back to the source's shape, for a target that has it."""
        return self

    def invert(self) -> Inverse:
        """Nothing: a fit is lossy."""
        return Inverse((), "lossy", f"`{self.name}` loses what does not fit")

    def _cast(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor in the output's dtype; one that has it already is passed on as it is."""
        return tensor if self.form is None else tensor.to(torch_dtype(self.form.dtype))

    def _target(self) -> Shape:
        if self.form is None:
            raise OpError(f"`{self.name}` needs a target")
        return self.form.shape
