"""The same elements in another arrangement: transpose, rearrange in einops' notation, reshape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, ClassVar

from ckpt_tool.ops.bit_views import moved
from ckpt_tool.ops.op import (
    Inverse,
    Op,
    OpError,
    TensorForm,
    axis_of,
    axis_word,
    bound,
    names_in,
    number,
    resolved,
    whole_number,
)
from ckpt_tool.tensors import Shape, shape_text

if TYPE_CHECKING:
    import torch
    from einops.parsing import ParsedExpression
    from typing_extensions import Self


@dataclass(frozen=True, slots=True)
class Transpose(Op):
    """Two dimensions change places; without argument the last two."""

    name: ClassVar[str] = "transpose"
    dims: tuple[int, int] = (-2, -1)

    @classmethod
    def parse(cls, argument: object) -> Self:
        if argument is None:
            return cls()
        if not isinstance(argument, list | tuple) or len(argument) != 2:
            raise OpError("`transpose` has no argument, or two dimensions, as in `[0, 1]`")
        first, second = (number(dim, cls.name, "a dimension") for dim in argument)
        return cls((first, second))

    def argument(self) -> object:
        return None if self.dims == (-2, -1) else list(self.dims)

    def infer(self, inputs: Sequence[TensorForm]) -> tuple[TensorForm, ...]:
        return tuple(self._transposed(form) for form in inputs)

    def _transposed(self, form: TensorForm) -> TensorForm:
        shape = list(form.shape)
        first, second = (axis_of(dim, len(shape), self.name) for dim in self.dims)
        shape[first], shape[second] = shape[second], shape[first]
        return TensorForm(form.dtype, tuple(shape))

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [tensor.transpose(*self.dims) for tensor in inputs]

    def invert(self) -> Inverse:
        return Inverse((self,), "exact")


@dataclass(frozen=True, slots=True)
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
        given = dict(argument) if isinstance(argument, Mapping) else {"pattern": argument}
        pattern = given.pop("pattern", None)
        if not isinstance(pattern, str) or pattern.count("->") != 1:
            raise OpError(
                '`rearrange` is a pattern with one arrow, as in `"a b -> b a"`, and lengths of its axes'
            )
        left, right = _sides(pattern)
        if left.has_non_unitary_anonymous_axes or right.has_non_unitary_anonymous_axes:
            raise OpError(
                f"an axis of `{pattern}` is a number; name it, and give its length beside the pattern"
            )
        if odd := sorted(left.identifiers ^ right.identifiers):
            raise OpError(f"`{_shown(odd[0])}` stands on one side of `{pattern}` only")
        lengths = tuple(
            Length(axis, whole_number(value, cls.name, axis), str(value))
            for axis, value in given.items()
        )
        for length in lengths:
            if length.axis not in left.identifiers:
                raise OpError(f"`{length.axis}` is no axis of `{pattern}`")
        return cls(
            pattern,
            tuple(
                replace(each, label=each.axis) if isinstance(each.value, int) else each
                for each in lengths
            ),
        )

    def argument(self) -> object:
        lengths = {length.axis: length.value for length in self.lengths}
        return {"pattern": self.pattern, **lengths} if lengths else self.pattern

    def parameters(self) -> frozenset[str]:
        return names_in(*(length.value for length in self.lengths))

    def bind(self, values: Mapping[str, int]) -> Self:
        return replace(
            self,
            lengths=tuple(
                replace(length, value=bound(length.value, values)) for length in self.lengths
            ),
        )

    def infer(self, inputs: Sequence[TensorForm]) -> tuple[TensorForm, ...]:
        return tuple(TensorForm(form.dtype, self._shape(form.shape)) for form in inputs)

    def _shape(self, shape: Shape) -> Shape:
        left, right = _sides(self.pattern)
        _, rest = _match_groups(left, shape, self.pattern)
        known = self._known(shape)
        result: list[int] = []
        for composed in _composition(right):
            result.extend(rest if composed is None else [prod(known[axis] for axis in composed)])
        return tuple(result)

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        from einops import rearrange

        lengths = {length.axis: resolved(length.value, self.name) for length in self.lengths}
        return moved(
            inputs,
            lambda tensors: [rearrange(tensor, self.pattern, **lengths) for tensor in tensors],
        )

    def invert(self) -> Inverse:
        left, right = (side.strip() for side in self.pattern.split("->"))
        given = {length.axis for length in self.lengths}
        composed = [
            [axis for axis in axes if not axis.isdigit()]
            for axes in _composition(_sides(self.pattern)[1])
            if axes and len(axes) > 1
        ]
        if any(len([axis for axis in axes if axis not in given]) > 1 for axes in composed):
            return Inverse(
                (),
                "exact",
                "the inverse needs the length of more axes; an inverse of a concrete plan knows them",
            )
        return Inverse((replace(self, pattern=f"{right} -> {left}"),), "exact")

    def invert_for(self, inputs: Sequence[TensorForm]) -> Inverse:
        left, right = (side.strip() for side in self.pattern.split("->"))
        known = self._known(inputs[0].shape)
        lengths = tuple(
            Length(axis, size, axis) for axis, size in known.items() if not axis.startswith("_")
        )
        return Inverse((Rearrange(f"{right} -> {left}", lengths),), "exact")

    def _known(self, shape: Shape) -> dict[str, int]:
        left, _ = _sides(self.pattern)
        groups, _ = _match_groups(left, shape, self.pattern)
        known = {length.axis: resolved(length.value, self.name) for length in self.lengths}
        labels = {length.axis: length.label for length in self.lengths}
        for place, (axes, size) in enumerate(groups):
            _solve(axes, size, known, labels, place, shape)
        return known


def _sides(pattern: str) -> tuple[ParsedExpression, ParsedExpression]:
    from einops import EinopsError
    from einops.parsing import ParsedExpression

    left, right = pattern.split("->")
    try:
        return ParsedExpression(left), ParsedExpression(right)
    except EinopsError as error:
        raise OpError(f"`{pattern}`: {str(error).strip()}") from None


def _shown(identifier: str) -> str:
    return "..." if identifier == "…" else identifier


def _composition(side: ParsedExpression) -> list[list[str] | None]:
    """The axes that make up each dimension; None for the ellipsis."""
    return [None if axes == "…" else [str(axis) for axis in axes] for axes in side.composition]


def _match_groups(
    left: ParsedExpression, shape: Shape, pattern: str
) -> tuple[list[tuple[list[str], int]], list[int]]:
    """Each dimension's axes with its size, and the sizes that the ellipsis stands for."""
    composition = _composition(left)
    free = len(shape) - len(composition) + (None in composition)
    if free < 0 or (None not in composition and free):
        raise OpError(
            f"`{pattern}` is for {len(composition)} dimensions, the tensor is {shape_text(shape)}"
        )
    at = composition.index(None) if None in composition else len(composition)
    sizes = [*shape[:at], *shape[at + free :]]
    groups = [axes for axes in composition if axes is not None]
    return list(zip(groups, sizes, strict=True)), list(
        shape[at : at + free]
    ) if None in composition else []


def _solve(
    axes: list[str],
    size: int,
    known: dict[str, int],
    labels: Mapping[str, str],
    place: int,
    shape: Shape,
) -> None:
    """Works out the one axis of a dimension whose length is not known."""
    given = prod(known.get(axis, 1) for axis in axes)
    open_axes = [axis for axis in axes if axis not in known]
    if len(open_axes) > 1:
        raise OpError(
            f"the lengths of `{open_axes[0]}` and `{open_axes[1]}` can't both be worked out; give one"
        )
    if open_axes:
        if not given or size % given:
            named = [axis for axis in axes if axis in known]
            label = labels.get(named[0], named[0]) if len(named) == 1 else " × ".join(named)
            raise OpError(
                f"{given} {label} do not divide {size} {axis_word(place)} ({shape_text(shape)})"
            )
        known[open_axes[0]] = size // given
    elif given != size:
        names = " × ".join(axes) or "1"
        raise OpError(
            f"{names} make {given}, the tensor has {size} {axis_word(place)} ({shape_text(shape)})"
        )


@dataclass(frozen=True, slots=True)
class Reshape(Op):
    """The same elements in order under another shape; one size may be -1."""

    name: ClassVar[str] = "reshape"
    shape: tuple[int | str, ...] = ()

    @classmethod
    def parse(cls, argument: object) -> Self:
        if not isinstance(argument, list | tuple):
            raise OpError("`reshape` is a list of sizes")
        sizes = tuple(whole_number(size, cls.name, "a size") for size in argument)
        if sum(size == -1 for size in sizes) > 1 or any(
            isinstance(size, int) and size < -1 for size in sizes
        ):
            raise OpError("`reshape` has at most one -1, and no other size below 0")
        return cls(sizes)

    def argument(self) -> object:
        return list(self.shape)

    def parameters(self) -> frozenset[str]:
        return names_in(*self.shape)

    def bind(self, values: Mapping[str, int]) -> Self:
        return replace(self, shape=tuple(bound(size, values) for size in self.shape))

    def infer(self, inputs: Sequence[TensorForm]) -> tuple[TensorForm, ...]:
        return tuple(TensorForm(form.dtype, self._shape(form.shape)) for form in inputs)

    def _shape(self, shape: Shape) -> Shape:
        sizes = [resolved(size, self.name) for size in self.shape]
        if min(sizes, default=0) < -1 or sizes.count(-1) > 1:
            raise OpError(
                f"`reshape` to {'×'.join(map(str, sizes))}; sizes are at least 0, and one at most is -1"
            )
        known, count = prod(size for size in sizes if size != -1), prod(shape)
        if -1 in sizes and known and not count % known:
            return tuple(count // known if size == -1 else size for size in sizes)
        if -1 in sizes or known != count:
            raise OpError(
                f"{shape_text(shape)} has {count} elements, which {'×'.join(map(str, sizes))} can't hold"
            )
        return tuple(sizes)

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [tensor.reshape(self._shape(tuple(tensor.shape))) for tensor in inputs]

    def invert(self) -> Inverse:
        return Inverse(
            (),
            "exact",
            "the inverse needs the source's shape; an inverse of a concrete plan knows it",
        )

    def invert_for(self, inputs: Sequence[TensorForm]) -> Inverse:
        if len({form.shape for form in inputs}) > 1:
            return Inverse((), "lossy", "the tensors have different shapes")
        return Inverse((Reshape(inputs[0].shape),), "exact")
