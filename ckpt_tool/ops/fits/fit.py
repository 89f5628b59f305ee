"""What all fits share.

A fit stands at the end of a step's ops and knows the form that it must give. Calculations are in
float32, the result has the dtype of what came in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ckpt_tool.ops.op import Inverse, Op, OpError, TensorForm
from ckpt_tool.tensors import Shape

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True, slots=True)
class Fit(Op):
    """What all fits share: `form` is what the target has, filled in when the plan is made.

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

    def settled(self, source: Shape) -> Self:
        """The fit with all numbers that follow from the source's shape. Raises OpError."""
        return self

    def details(self, source: Shape) -> str:
        """What it takes the shapes for, in words, where these may mean more than one thing."""
        return ""

    def infer(self, inputs: Sequence[TensorForm]) -> tuple[TensorForm, ...]:
        """One tensor -> the target's shape, in the source's dtype."""
        if self.form is None or len(inputs) != 1:
            raise OpError(f"`{self.name}` is for one tensor and a target")
        self.check(inputs[0].shape, self.form.shape)
        return (TensorForm(inputs[0].dtype, self.form.shape),)

    def check(self, source: Shape, target: Shape) -> None:
        """Raises OpError where the source can't become the target's shape."""

    def back(self) -> Fit:
        """The fit that leads back to the source's shape, for a target that has it."""
        return self

    def invert(self) -> Inverse:
        """Nothing: a fit is lossy."""
        return Inverse((), "lossy", f"`{self.name}` loses what does not fit")

    def _target(self) -> Shape:
        if self.form is None:
            raise OpError(f"`{self.name}` needs a target")
        return self.form.shape
