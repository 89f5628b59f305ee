"""The same values several times: copy, same, which undoes it, and repeat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from ckpt_tool.ops.bit_views import moved
from ckpt_tool.ops.combining import in_groups
from ckpt_tool.ops.op import (
    Inverse,
    Leaf,
    Node,
    Op,
    OpError,
    Part,
    TensorForm,
    axis_of,
    bound,
    fields,
    names_in,
    number,
    resolved,
    runs,
    whole_number,
    with_axis_size,
)
from ckpt_tool.ops.slicing import Slice
from ckpt_tool.regions import Region

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self


@dataclass(frozen=True, slots=True)
class Alike(Op):
    """What makes several equal tensors of one, or one of several: it has no argument."""

    parts: int | None = None

    @classmethod
    def parse(cls, argument: object) -> Self:
        """From nothing. Raises OpError for an argument."""
        if argument is not None:
            raise OpError(f"`{cls.name}` has no argument")
        return cls()

    def with_parts(self, parts: int) -> Self:
        """For this many keys."""
        return replace(self, parts=parts)


@dataclass(frozen=True, slots=True)
class Copy(Alike):
    """One tensor under several keys; they stay tied where the format can say so."""

    name: ClassVar[str] = "copy"
    produces = True

    def infer(self, inputs: Sequence[TensorForm]) -> tuple[TensorForm, ...]:
        """... -> `parts` times ... ."""
        return tuple(form for form in inputs for _ in range(self.parts or 1))

    def part(self, output: int, region: Region, inputs: Sequence[TensorForm]) -> Part | None:
        """The same box."""
        return Leaf(output // (self.parts or 1), region)

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The same tensor `parts` times, without a copy in memory."""
        return [tensor for tensor in inputs for _ in range(self.parts or 1)]

    def invert(self) -> Inverse:
        """`same`, exact where all the copies are equal when it runs."""
        return Inverse((Same(self.parts),), "exact with a check", "all copies must be equal")


@dataclass(frozen=True, slots=True)
class Same(Alike):
    """Several tensors that must be equal, bit for bit, as one: undoes `copy`."""

    name: ClassVar[str] = "same"
    checks_values: ClassVar[bool] = True
    collects = True

    def infer(self, inputs: Sequence[TensorForm]) -> tuple[TensorForm, ...]:
        """`parts` times ... -> ... . Raises OpError where dtypes or shapes differ."""
        groups = in_groups(inputs, self.parts, self.name)
        for group in groups:
            if odd := next((form for form in group if form.shape != group[0].shape), None):
                raise OpError(f"`same` of {group[0]} and {odd}")
        return tuple(group[0] for group in groups)

    def part(self, output: int, region: Region, inputs: Sequence[TensorForm]) -> Part | None:
        """The same box of the first of each run; whether all are equal, only whole tensors tell."""
        return Leaf(output * runs(len(inputs), self.parts, self.name), region)

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The first of each run, not copied. Raises OpError where the bytes of one differ."""
        from ckpt_tool.torch_bridge import to_bytes

        size = runs(len(inputs), self.parts, self.name)
        groups = [inputs[i : i + size] for i in range(0, len(inputs), size)]
        for group in groups:
            if any(to_bytes(tensor) != to_bytes(group[0]) for tensor in group[1:]):
                raise OpError("tensors that must be the same differ")
        return [group[0] for group in groups]

    def invert(self) -> Inverse:
        """`copy`, exact."""
        return Inverse((Copy(self.parts),), "exact")


@dataclass(frozen=True, slots=True)
class Repeat(Op):
    """The tensor so many times in a row along a dimension."""

    name: ClassVar[str] = "repeat"
    dim: int = 0
    times: int | str = 1

    @classmethod
    def parse(cls, argument: object) -> Self:
        """From `{dim: 0, times: 3}`; `times` is at least 1."""
        given = fields(argument, cls.name, ("dim", "times"))
        times = whole_number(given.get("times", 1), cls.name, "times")
        if isinstance(times, int) and times < 1:
            raise OpError("`repeat`: `times` is at least 1")
        return cls(number(given.get("dim", 0), cls.name, "dim"), times)

    def argument(self) -> object:
        """`dim` and `times`."""
        return {"dim": self.dim, "times": self.times}

    def parameters(self) -> frozenset[str]:
        """The parameter that `times` is, if it is one."""
        return names_in(self.times)

    def bind(self, values: Mapping[str, int]) -> Self:
        """With a number for `times`."""
        return replace(self, times=bound(self.times, values))

    def infer(self, inputs: Sequence[TensorForm]) -> tuple[TensorForm, ...]:
        """a ... -> (times · a) ... along `dim`."""
        times = resolved(self.times, self.name)
        if times < 1:
            raise OpError(f"`repeat` {times} times; `times` is at least 1")
        axes = [axis_of(self.dim, len(form.shape), self.name) for form in inputs]
        return tuple(
            with_axis_size(form, axis, form.shape[axis] * times)
            for form, axis in zip(inputs, axes, strict=True)
        )

    def part(self, output: int, region: Region, inputs: Sequence[TensorForm]) -> Part | None:
        """A box of one repetition, or as many as it reaches over."""
        axis = axis_of(self.dim, len(region.shape), self.name)
        start, count = region.offsets[axis], region.shape[axis]
        length = inputs[output].shape[axis]
        first, last = start // length, (start + count - 1) // length
        if first == last:
            return Leaf(output, region.along(axis, start - first * length, count))
        at = start - first * length
        ops = (Repeat(axis, last - first + 1), Slice(axis, at, at + count))
        return Node(ops, (Leaf(output, region.along(axis, 0, length)),))

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Copies; the whole tensor comes again, not each element."""
        import torch

        return moved(
            inputs,
            lambda tensors: [
                torch.cat([tensor] * resolved(self.times, self.name), self.dim)
                for tensor in tensors
            ],
        )

    def invert_for(self, inputs: Sequence[TensorForm]) -> Inverse:
        """`slice` of the first repetition, exact where all are equal; for tensors of one size."""
        sizes = {form.shape[self.dim] for form in inputs}
        if len(sizes) > 1:
            return Inverse((), "lossy", "the tensors have different sizes")
        return Inverse(
            (Slice(self.dim, 0, sizes.pop()),),
            "exact with a check",
            "all repetitions must be equal",
        )

    def invert(self) -> Inverse:
        """Nothing: the size of one repetition is not known."""
        return Inverse(
            (),
            "exact with a check",
            "the inverse needs the source's size; an inverse of a concrete plan knows it",
        )
