"""Along a new dimension: stack, and unstack, which undoes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ckpt_tool.ops.bit_views import moved
from ckpt_tool.ops.combining import Along, in_groups, without_axis
from ckpt_tool.ops.op import (
    Inverse,
    Leaf,
    Node,
    OpError,
    Part,
    TensorForm,
    axis_of,
    axis_word,
    runs,
)
from ckpt_tool.regions import Region
from ckpt_tool.tensors import counted, shape_text

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Stack(Along):
    """Tensors of one shape along a new dimension."""

    name: ClassVar[str] = "stack"
    collects = True

    def infer(self, inputs: Sequence[TensorForm]) -> tuple[TensorForm, ...]:
        """`parts` times ... -> parts ... at `dim`. Raises OpError where shapes differ."""
        return tuple(self._stacked(group) for group in in_groups(inputs, self.parts, self.name))

    def _stacked(self, group: Sequence[TensorForm]) -> TensorForm:
        shape = group[0].shape
        if odd := next((form for form in group if form.shape != shape), None):
            raise OpError(
                f"`stack` of {shape_text(shape)} and {shape_text(odd.shape)}: the shapes differ"
            )
        axis = axis_of(self.dim, len(shape) + 1, self.name)
        return TensorForm(group[0].dtype, (*shape[:axis], len(group), *shape[axis:]))

    def part(self, output: int, region: Region, inputs: Sequence[TensorForm]) -> Part | None:
        """The box in each of those tensors that it reaches over."""
        size = runs(len(inputs), self.parts, self.name)
        axis = axis_of(self.dim, len(region.shape), self.name)
        first, inner = output * size + region.offsets[axis], region.without(axis)
        leaves = tuple(Leaf(first + at, inner) for at in range(region.shape[axis]))
        return Node((Stack(axis, len(leaves)),), leaves)

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """One tensor for each run of `parts`; all are copied."""
        import torch

        size = runs(len(inputs), self.parts, self.name)
        return moved(
            inputs,
            lambda tensors: [
                torch.stack(tensors[i : i + size], self.dim) for i in range(0, len(tensors), size)
            ],
        )

    def invert(self) -> Inverse:
        """`unstack`, exact."""
        return Inverse((Unstack(self.dim, self.parts),), "exact")


@dataclass(frozen=True, slots=True)
class Unstack(Along):
    """A tensor as its slices along a dimension, which goes."""

    name: ClassVar[str] = "unstack"
    produces = True

    def infer(self, inputs: Sequence[TensorForm]) -> tuple[TensorForm, ...]:
        """parts ... -> `parts` times ... . Raises OpError for another length."""
        return tuple(part for form in inputs for part in self._slices(form))

    def _slices(self, form: TensorForm) -> list[TensorForm]:
        axis = axis_of(self.dim, len(form.shape), self.name)
        length = form.shape[axis]
        if self.parts is not None and self.parts != length:
            raise OpError(
                f"`unstack` of {length} {axis_word(axis)} for {counted(self.parts, 'key')} "
                f"({shape_text(form.shape)})"
            )
        return [TensorForm(form.dtype, without_axis(form.shape, axis))] * length

    def part(self, output: int, region: Region, inputs: Sequence[TensorForm]) -> Part | None:
        """The box in one slice."""
        for index, form in enumerate(inputs):
            axis = axis_of(self.dim, len(form.shape), self.name)
            if output < form.shape[axis]:
                return Node((Unstack(axis, 1),), (Leaf(index, region.inserted(axis, output, 1)),))
            output -= form.shape[axis]
        return None

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Views of the tensor, in order."""
        return [part for tensor in inputs for part in tensor.unbind(self.dim)]

    def invert(self) -> Inverse:
        """`stack`, exact."""
        return Inverse((Stack(self.dim, self.parts),), "exact")
