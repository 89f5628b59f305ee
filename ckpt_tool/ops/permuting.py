"""The same elements in another arrangement: transpose, rearrange in einops' notation, reshape."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from math import prod
from typing import TYPE_CHECKING, ClassVar

from ckpt_tool.frozen import frozen
from ckpt_tool.ops.axes import AxisRanges, composition_of, match_dimensions, shown_axis, sides_of
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
    bound,
    names_in,
    number,
    resolved,
    whole_number,
)
from ckpt_tool.ops.slicing import Slice
from ckpt_tool.regions import Region, is_one_run, start_in_order
from ckpt_tool.tensors import Shape, shape_text

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self


@dataclass(frozen=True, slots=True)
class Transpose(Op):
    """Two dimensions change places; without argument the last two."""

    name: ClassVar[str] = "transpose"
    dims: tuple[int, int] = (-2, -1)

    @classmethod
    def parse(cls, argument: object) -> Self:
        """From nothing, or two dimensions; negative ones count from the end."""
        if argument is None:
            return cls()
        if not isinstance(argument, list | tuple) or len(argument) != 2:
            raise OpError("`transpose` has no argument, or two dimensions, as in `[0, 1]`")
        first, second = (number(dim, cls.name, "a dimension") for dim in argument)
        return cls((first, second))

    def argument(self) -> object:
        """The two dimensions; None for the last two."""
        return None if self.dims == (-2, -1) else list(self.dims)

    def infer(self, inputs: Sequence[TensorForm]) -> tuple[TensorForm, ...]:
        """... a b -> ... b a for the last two, likewise for others."""
        return tuple(self._transposed(form) for form in inputs)

    def _transposed(self, form: TensorForm) -> TensorForm:
        shape = list(form.shape)
        first, second = (axis_of(dim, len(shape), self.name) for dim in self.dims)
        shape[first], shape[second] = shape[second], shape[first]
        return TensorForm(form.dtype, tuple(shape))

    def part(self, output: int, region: Region, inputs: Sequence[TensorForm]) -> Part | None:
        """The box with the same dimensions exchanged."""
        first, second = (axis_of(dim, len(region.shape), self.name) for dim in self.dims)
        swapped = region.along(first, region.offsets[second], region.shape[second])
        swapped = swapped.along(second, region.offsets[first], region.shape[first])
        return Node((self,), (Leaf(output, swapped),))

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Views."""
        return [tensor.transpose(*self.dims) for tensor in inputs]

    def invert(self) -> Inverse:
        """Itself, exact."""
        return Inverse((self,), "exact")


@frozen
class Length:
    """The length of an axis of a pattern; `label` is what messages call it: the parameter's name,
    or the axis'.
    """

    axis: str
    value: int | str
    label: str


@dataclass(frozen=True, slots=True)
class Rearrange(Op):
    """einops' rearrange, by its own parser and semantics: `"(h two d) ... -> (two h d) ..."`."""

    name: ClassVar[str] = "rearrange"
    pattern: str = "... -> ..."
    lengths: tuple[Length, ...] = ()

    @classmethod
    def parse(cls, argument: object) -> Self:
        """From a pattern, or `{pattern: "(h d) -> d h", h: 12}`; lengths may be parameters."""
        given = dict(argument) if isinstance(argument, Mapping) else {"pattern": argument}
        pattern = given.pop("pattern", None)
        if not isinstance(pattern, str) or pattern.count("->") != 1:
            raise OpError(
                '`rearrange` is a pattern with one arrow, as in `"a b -> b a"`, '
                "and lengths of its axes"
            )
        axes = _shared_axes(pattern)
        lengths = tuple(_length(axis, value) for axis, value in given.items())
        for length in lengths:
            if length.axis not in axes:
                raise OpError(f"`{length.axis}` is not an axis of `{pattern}`")
        return cls(pattern, lengths)

    def argument(self) -> object:
        """The pattern, with the lengths where there are any."""
        lengths = {length.axis: length.value for length in self.lengths}
        return {"pattern": self.pattern, **lengths} if lengths else self.pattern

    def parameters(self) -> frozenset[str]:
        """The parameters among the lengths."""
        return names_in(*(length.value for length in self.lengths))

    def bind(self, values: Mapping[str, int]) -> Self:
        """With numbers for the parameters; messages keep their names."""
        return replace(
            self,
            lengths=tuple(
                replace(length, value=bound(length.value, values)) for length in self.lengths
            ),
        )

    def infer(self, inputs: Sequence[TensorForm]) -> tuple[TensorForm, ...]:
        """The pattern's right side, with lengths that the left one gives. Raises OpError."""
        return tuple(TensorForm(form.dtype, self._shape(form.shape)) for form in inputs)

    def _shape(self, shape: Shape) -> Shape:
        left, right = sides_of(self.pattern)
        _, rest = match_dimensions(left, shape, self.pattern)
        known = self._known(shape)
        result: list[int] = []
        for composed in composition_of(right):
            result.extend(rest if composed is None else [prod(known[axis] for axis in composed)])
        return tuple(result)

    def part(self, output: int, region: Region, inputs: Sequence[TensorForm]) -> Part | None:
        """Those ranges of the axes that the box reaches over, where they are a box of the input;
        more of some axes where they are none.
        """
        shape = inputs[output].shape
        left, right = sides_of(self.pattern)
        _, rest = match_dimensions(left, shape, self.pattern)
        wanted = AxisRanges(self._known(shape), composition_of(right), region, len(rest))
        source = wanted.source(composition_of(left))
        lengths = tuple(
            Length(axis, count, axis)
            for axis, (_, count) in wanted.ranges.items()
            if not axis.startswith("_")
        )
        crops = [Slice(axis, at, at + count) for axis, at, count in wanted.crops()]
        return Node((Rearrange(self.pattern, lengths), *crops), (Leaf(output, source),))

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """By einops: views where strides allow."""
        from einops import rearrange

        lengths = {length.axis: resolved(length.value, self.name) for length in self.lengths}
        return moved(
            inputs,
            lambda tensors: [rearrange(tensor, self.pattern, **lengths) for tensor in tensors],
        )

    def invert(self) -> Inverse:
        """The pattern with its sides swapped, exact, where the given lengths are enough."""
        left, right = (side.strip() for side in self.pattern.split("->"))
        given = {length.axis for length in self.lengths}
        composed = [axes for axes in composition_of(sides_of(self.pattern)[1]) if axes]
        if any(len(_without_length(axes, given)) > 1 for axes in composed):
            return Inverse(
                (),
                "exact",
                "the inverse needs the length of more axes; "
                "an inverse of a concrete plan knows them",
            )
        return Inverse((replace(self, pattern=f"{right} -> {left}"),), "exact")

    def invert_for(self, inputs: Sequence[TensorForm]) -> Inverse:
        """The pattern with its sides swapped and the length of every axis, exact."""
        left, right = (side.strip() for side in self.pattern.split("->"))
        known = self._known(inputs[0].shape)
        lengths = tuple(
            Length(axis, size, axis) for axis, size in known.items() if not axis.startswith("_")
        )
        return Inverse((Rearrange(f"{right} -> {left}", lengths),), "exact")

    def _known(self, shape: Shape) -> dict[str, int]:
        left, _ = sides_of(self.pattern)
        dimensions, _ = match_dimensions(left, shape, self.pattern)
        known = {length.axis: resolved(length.value, self.name) for length in self.lengths}
        labels = {length.axis: length.label for length in self.lengths}
        for dimension in dimensions:
            known |= dimension.solve(known, labels)
        return known


def _length(axis: str, value: object) -> Length:
    length = whole_number(value, Rearrange.name, axis)
    return Length(axis, length, axis if isinstance(length, int) else length)


def _shared_axes(pattern: str) -> frozenset[str]:
    """The names of the axes. Raises OpError unless both sides have the same."""
    left, right = sides_of(pattern)
    if left.has_non_unitary_anonymous_axes or right.has_non_unitary_anonymous_axes:
        raise OpError(
            f"an axis of `{pattern}` is a number; name it, and give its length beside the pattern"
        )
    if odd := sorted(left.identifiers ^ right.identifiers):
        raise OpError(f"`{shown_axis(odd[0])}` is on one side of `{pattern}` only")
    return frozenset(left.identifiers)


def _without_length(axes: Sequence[str], given: Collection[str]) -> list[str]:
    """The named axes whose length is not given."""
    return [axis for axis in axes if not axis.isdigit() and axis not in given]


@dataclass(frozen=True, slots=True)
class Reshape(Op):
    """The same elements in order under another shape; one size may be -1."""

    name: ClassVar[str] = "reshape"
    shape: tuple[int | str, ...] = ()

    @classmethod
    def parse(cls, argument: object) -> Self:
        """From a list of sizes, numbers or parameters."""
        if not isinstance(argument, list | tuple):
            raise OpError("`reshape` is a list of sizes")
        sizes = tuple(whole_number(size, cls.name, "a size") for size in argument)
        if not _are_sizes([size for size in sizes if isinstance(size, int)]):
            raise OpError("`reshape` has at most one -1, and no other size below 0")
        return cls(sizes)

    def argument(self) -> object:
        """The sizes."""
        return list(self.shape)

    def parameters(self) -> frozenset[str]:
        """The parameters among the sizes."""
        return names_in(*self.shape)

    def bind(self, values: Mapping[str, int]) -> Self:
        """With numbers for the parameters among the sizes."""
        return replace(self, shape=tuple(bound(size, values) for size in self.shape))

    def infer(self, inputs: Sequence[TensorForm]) -> tuple[TensorForm, ...]:
        """... -> the sizes, -1 as what is left. Raises OpError for another number of elements."""
        return tuple(TensorForm(form.dtype, self._shape(form.shape)) for form in inputs)

    def _shape(self, shape: Shape) -> Shape:
        sizes = tuple(resolved(size, self.name) for size in self.shape)
        written = "×".join(map(str, sizes))
        if not _are_sizes(sizes):
            raise OpError(f"`reshape` to {written}; sizes are at least 0, and one at most is -1")
        full = _filled(sizes, prod(shape))
        if -1 in full or prod(full) != prod(shape):
            raise OpError(
                f"{shape_text(shape)} has {prod(shape)} elements, which {written} can't hold"
            )
        return full

    def part(self, output: int, region: Region, inputs: Sequence[TensorForm]) -> Part | None:
        """The rows that hold the box, where it is one run of elements, or only later dimensions
        change.
        """
        shape = inputs[output].shape
        result = self._shape(shape)
        same = sum(
            1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(shape, result, strict=False))
        )
        if region.shape[same:] == result[same:]:
            source = Region(
                (*region.offsets[:same], *(0 for _ in shape[same:])),
                (*region.shape[:same], *shape[same:]),
            )
            return Node((Reshape(region.shape),), (Leaf(output, source),))
        if not shape or not is_one_run(region, result):
            return None
        row, start = prod(shape[1:]), start_in_order(region, result)
        first, last = start // row, -(-(start + prod(region.shape)) // row)
        at = start - first * row
        ops = (Reshape((-1,)), Slice(0, at, at + prod(region.shape)), Reshape(region.shape))
        return Node(ops, (Leaf(output, Region.whole(shape).along(0, first, last - first)),))

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Views where strides allow."""
        return [tensor.reshape(self._shape(tuple(tensor.shape))) for tensor in inputs]

    def invert(self) -> Inverse:
        """Nothing: the shape that came in is not known."""
        return Inverse(
            (),
            "exact",
            "the inverse needs the source's shape; an inverse of a concrete plan knows it",
        )

    def invert_for(self, inputs: Sequence[TensorForm]) -> Inverse:
        """The shape that came in, exact, where it is one."""
        if len({form.shape for form in inputs}) > 1:
            return Inverse((), "lossy", "the tensors have different shapes")
        return Inverse((Reshape(inputs[0].shape),), "exact")


def _are_sizes(sizes: Sequence[int]) -> bool:
    """Whether they can be sizes of a tensor, one of them open (-1) at most."""
    return min(sizes, default=0) >= -1 and sizes.count(-1) <= 1


def _filled(sizes: Shape, count: int) -> Shape:
    """The sizes with the open one (-1) such that all make `count`, where it divides."""
    known = prod(size for size in sizes if size != -1)
    return tuple(count // known if size == -1 and known else size for size in sizes)
