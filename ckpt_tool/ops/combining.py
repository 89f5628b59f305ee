"""Along a dimension that is there: concat, and split, which undoes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from ckpt_tool.ops.bit_views import moved
from ckpt_tool.ops.op import (
    Inverse,
    Leaf,
    Node,
    Op,
    OpError,
    Part,
    TensorForm,
    axis_of,
    axis_word,
    bound,
    fields,
    names_in,
    number,
    resolved,
    runs,
    whole_number,
)
from ckpt_tool.regions import Region
from ckpt_tool.tensors import Shape, counted, shape_text

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self


def _dim(argument: object, op: str) -> int:
    return number(fields(argument, op, ("dim",), "dim").get("dim", 0), op, "dim")


def in_groups(
    inputs: Sequence[TensorForm], parts: int | None, op: str
) -> list[Sequence[TensorForm]]:
    """The inputs in runs of `parts`. Raises OpError where they do not come out even, or differ in
    dtype.
    """
    size = runs(len(inputs), parts, op)
    groups = [inputs[i : i + size] for i in range(0, len(inputs), size)]
    for group in groups:
        if odd := next((form for form in group if form.dtype is not group[0].dtype), None):
            raise OpError(f"`{op}` of {group[0]} and {odd}: the dtypes differ")
    return groups


def without_axis(shape: Shape, axis: int) -> Shape:
    """The shape less one dimension."""
    return shape[:axis] + shape[axis + 1 :]


@dataclass(frozen=True, slots=True)
class Along(Op):
    """What joins or parts tensors along a dimension, so many at a time."""

    dim: int = 0
    parts: int | None = None

    @classmethod
    def parse(cls, argument: object) -> Self:
        """From a dimension, 0 without."""
        return cls(_dim(argument, cls.name))

    def argument(self) -> object:
        """The dimension."""
        return self.dim

    def with_parts(self, parts: int) -> Self:
        """Runs of this many tensors."""
        return replace(self, parts=parts)


@dataclass(frozen=True, slots=True)
class Concat(Along):
    """Tensors one after the other along a dimension; `equal` ones must be of one size, which lets
    `split` undo it anywhere.
    """

    name: ClassVar[str] = "concat"
    collects = True
    equal: bool = False

    @classmethod
    def parse(cls, argument: object) -> Self:
        """From a dimension, or `{dim: 0, equal: true}`."""
        given = fields(argument, cls.name, ("dim", "equal"), "dim")
        if not isinstance(equal := given.get("equal", False), bool):
            raise OpError("`concat`: `equal` is true or false")
        return cls(number(given.get("dim", 0), cls.name, "dim"), equal=equal)

    def argument(self) -> object:
        """The dimension, with `equal` where it was given."""
        return {"dim": self.dim, "equal": True} if self.equal else self.dim

    def infer(self, inputs: Sequence[TensorForm]) -> tuple[TensorForm, ...]:
        """a1 ..., a2 ... -> (a1 + a2) ... along `dim`. Raises OpError where other sizes differ."""
        return tuple(self._joined(group) for group in in_groups(inputs, self.parts, self.name))

    def _joined(self, group: Sequence[TensorForm]) -> TensorForm:
        shape = group[0].shape
        axis = axis_of(self.dim, len(shape), self.name)
        for form in group:
            if len(form.shape) != len(shape) or without_axis(form.shape, axis) != without_axis(
                shape, axis
            ):
                raise OpError(
                    f"`concat` along dimension {axis} of {shape_text(shape)} and "
                    f"{shape_text(form.shape)}"
                )
            if self.equal and form.shape != shape:
                raise OpError(
                    f"`concat` of equal parts, and they are {shape_text(shape)} and "
                    f"{shape_text(form.shape)}"
                )
        return TensorForm(
            group[0].dtype,
            (*shape[:axis], sum(form.shape[axis] for form in group), *shape[axis + 1 :]),
        )

    def part(self, output: int, region: Region, inputs: Sequence[TensorForm]) -> Part | None:
        """Of each tensor that reaches into the box, that part."""
        size = runs(len(inputs), self.parts, self.name)
        axis = axis_of(self.dim, len(region.shape), self.name)
        start, count = region.offsets[axis], region.shape[axis]
        leaves, at = [], 0
        for index in range(output * size, (output + 1) * size):
            length = inputs[index].shape[axis]
            first, last = max(start - at, 0), min(start + count - at, length)
            if first < last:
                leaves.append(Leaf(index, region.along(axis, first, last - first)))
            at += length
        if len(leaves) == 1:
            return leaves[0]
        return Node((Concat(axis, len(leaves)),), tuple(leaves))

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """One tensor for each run of `parts`; all are copied."""
        import torch

        size = runs(len(inputs), self.parts, self.name)
        return moved(
            inputs,
            lambda tensors: [
                torch.cat(tensors[i : i + size], self.dim) for i in range(0, len(tensors), size)
            ],
        )

    def invert(self) -> Inverse:
        """`split`: exact for `equal` parts, else into the sizes that the target has."""
        if self.equal:
            return Inverse((Split(self.dim, None, self.parts),), "exact")
        return Inverse(
            (Split(self.dim, None, self.parts, is_as_target=True),),
            "exact with a check",
            OF_THE_TARGET,
        )

    def invert_for(self, inputs: Sequence[TensorForm]) -> Inverse:
        """`split` into the sizes that came in, exact, where all runs have the same."""
        size = runs(len(inputs), self.parts, self.name)
        sizes = [
            tuple(form.shape[self.dim] for form in inputs[i : i + size])
            for i in range(0, len(inputs), size)
        ]
        if len(set(sizes)) > 1:
            return Inverse((), "lossy", "the groups have parts of different sizes")
        return Inverse((Split(self.dim, sizes[0], size),), "exact")


OF_THE_TARGET = (
    "the parts are of the target's sizes, so there must be one; a concrete plan knows the sizes"
)


@dataclass(frozen=True, slots=True)
class Split(Op):
    """A tensor in parts along a dimension: of the given sizes, of the target's, or equal ones.

    One that `is_as_target` has no other sizes than the target's.
    """

    name: ClassVar[str] = "split"
    produces = True
    dim: int = 0
    sizes: tuple[int | str, ...] | None = None
    parts: int | None = None
    is_as_target: bool = False

    @classmethod
    def parse(cls, argument: object) -> Self:
        """From a dimension, or `{dim: 0, sizes: [64, 32]}`; `sizes: target` takes the target's."""
        given = fields(argument, cls.name, ("dim", "sizes"), "dim")
        sizes, dim = given.get("sizes"), number(given.get("dim", 0), cls.name, "dim")
        if sizes == "target":
            return cls(dim, is_as_target=True)
        if sizes is not None and (not isinstance(sizes, list | tuple) or not sizes):
            raise OpError("`split`: `sizes` is a list of whole numbers, or `target`")
        listed = (
            tuple(whole_number(size, cls.name, "sizes") for size in sizes)
            if isinstance(sizes, list | tuple)
            else None
        )
        return cls(dim, listed, len(listed) if listed else None)

    def argument(self) -> object:
        """The dimension, with `sizes` where they were given."""
        if self.sizes is not None:
            return {"dim": self.dim, "sizes": list(self.sizes)}
        return {"dim": self.dim, "sizes": "target"} if self.is_as_target else self.dim

    def parameters(self) -> frozenset[str]:
        """The parameters among the sizes."""
        return names_in(*(self.sizes or ()))

    def bind(self, values: Mapping[str, int]) -> Self:
        """With numbers for the parameters among the sizes."""
        return (
            self
            if self.sizes is None
            else replace(self, sizes=tuple(bound(size, values) for size in self.sizes))
        )

    def with_parts(self, parts: int) -> Self:
        """Into this many parts. Raises OpError where `sizes` has another number."""
        if self.sizes is not None and len(self.sizes) != parts:
            raise OpError(
                f"`split` into {counted(len(self.sizes), 'size')} for {counted(parts, 'key')}"
            )
        return replace(self, parts=parts)

    def shortened(self) -> Self:
        """Without its sizes where they are equal: so many equal parts."""
        return replace(self, sizes=None) if self.sizes and len(set(self.sizes)) == 1 else self

    def with_sizes(self, sizes: Sequence[int]) -> Self:
        """Into parts of these sizes."""
        return replace(self, sizes=tuple(sizes), parts=len(sizes))

    def infer(self, inputs: Sequence[TensorForm]) -> tuple[TensorForm, ...]:
        """(a1 + a2) ... -> a1 ..., a2 ... along `dim`. Raises OpError for other sums."""
        return tuple(part for form in inputs for part in self._split(form))

    def _split(self, form: TensorForm) -> list[TensorForm]:
        axis = axis_of(self.dim, len(form.shape), self.name)
        return [
            TensorForm(form.dtype, (*form.shape[:axis], size, *form.shape[axis + 1 :]))
            for size in self._sizes(form.shape, axis)
        ]

    def _sizes(self, shape: Shape, axis: int) -> list[int]:
        length = shape[axis]
        if self.sizes is not None:
            sizes = [resolved(size, self.name) for size in self.sizes]
            if sum(sizes) != length or min(sizes) < 0:
                raise OpError(
                    f"the sizes {' + '.join(map(str, sizes))} make {sum(sizes)}, "
                    f"not {length} ({shape_text(shape)})"
                )
            return sizes
        if self.is_as_target:
            raise OpError(
                "`split` takes the target's sizes, and there is no target",
                "give a target, or `sizes: [64, 32]`",
            )
        if not self.parts:
            raise OpError(
                "`split` does not know into how many parts",
                "give `sizes`, or bounds to the number, as in `{i=0..2}`",
            )
        if length % self.parts:
            raise OpError(
                f"{self.parts} parts do not divide {length} {axis_word(axis)} ({shape_text(shape)})"
            )
        return [length // self.parts] * self.parts

    def part(self, output: int, region: Region, inputs: Sequence[TensorForm]) -> Part | None:
        """The box, moved to where the part begins."""
        axis = axis_of(self.dim, len(region.shape), self.name)
        for index, form in enumerate(inputs):
            sizes = self._sizes(form.shape, axis)
            if output < len(sizes):
                start = sum(sizes[:output]) + region.offsets[axis]
                return Leaf(index, region.along(axis, start, region.shape[axis]))
            output -= len(sizes)
        return None

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Views of the tensor, in order."""
        import torch

        sizes = [
            self._sizes(tuple(tensor.shape), axis_of(self.dim, tensor.dim(), self.name))
            for tensor in inputs
        ]
        return [
            part
            for tensor, lengths in zip(inputs, sizes, strict=True)
            for part in torch.split(tensor, lengths, self.dim)
        ]

    def invert(self) -> Inverse:
        """`concat` of the parts, exact."""
        return Inverse((Concat(self.dim, self.parts),), "exact")
