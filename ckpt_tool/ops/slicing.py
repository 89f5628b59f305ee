"""Parts, paddings and orders along one dimension: slice, pad, index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

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
    whole_number,
    with_axis_size,
)
from ckpt_tool.regions import Region
from ckpt_tool.tensors import Shape, shape_text

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self


@dataclass(frozen=True, slots=True)
class Slice(Op):
    """Elements `start` to `stop` (not included) along a dimension; negative numbers count from the
    end.
    """

    name: ClassVar[str] = "slice"
    dim: int = 0
    start: int | str = 0
    stop: int | str | None = None
    step: int = 1

    @classmethod
    def parse(cls, argument: object) -> Self:
        """From `{dim: 0, start: 0, stop: 10, step: 2}`, each optional; `step` is at least 1."""
        given = fields(argument, cls.name, ("dim", "start", "stop", "step"))
        step = number(given.get("step", 1), cls.name, "step")
        if step < 1:
            raise OpError(
                "`slice`: `step` is at least 1; `index: {dim: 0, order: reverse}` reverses"
            )
        stop = given.get("stop")
        return cls(
            number(given.get("dim", 0), cls.name, "dim"),
            whole_number(given.get("start", 0), cls.name, "start"),
            None if stop is None else whole_number(stop, cls.name, "stop"),
            step,
        )

    def argument(self) -> object:
        """`dim` and `start`, `stop` and `step` where they matter."""
        stop = {} if self.stop is None else {"stop": self.stop}
        return {
            "dim": self.dim,
            "start": self.start,
            **stop,
            **({} if self.step == 1 else {"step": self.step}),
        }

    def parameters(self) -> frozenset[str]:
        """The parameters that `start` and `stop` are."""
        return names_in(self.start, self.stop)

    def bind(self, values: Mapping[str, int]) -> Self:
        """With numbers for `start` and `stop`."""
        return replace(
            self,
            start=bound(self.start, values),
            stop=None if self.stop is None else bound(self.stop, values),
        )

    def _range(self, shape: Shape, axis: int) -> range:
        start, length = resolved(self.start, self.name), shape[axis]
        stop = length if self.stop is None else resolved(self.stop, self.name)
        if not -length <= start <= length or not -length <= stop <= length:
            raise OpError(
                f"`slice` {start} to {stop} of {length} {axis_word(axis)} ({shape_text(shape)})"
            )
        return range(*slice(start, stop, self.step).indices(length))

    def infer(self, inputs: Sequence[TensorForm]) -> tuple[TensorForm, ...]:
        """a ... -> ceil((stop - start) / step) ... along `dim`. Raises OpError beyond the ends."""
        axes = [axis_of(self.dim, len(form.shape), self.name) for form in inputs]
        return tuple(
            with_axis_size(form, axis, len(self._range(form.shape, axis)))
            for form, axis in zip(inputs, axes, strict=True)
        )

    def part(self, output: int, region: Region, inputs: Sequence[TensorForm]) -> Part | None:
        """The box, moved and spread by the step."""
        axis = axis_of(self.dim, len(region.shape), self.name)
        chosen = self._range(inputs[output].shape, axis)
        first = chosen.start + region.offsets[axis] * self.step
        leaf = Leaf(output, region.along(axis, first, (region.shape[axis] - 1) * self.step + 1))
        return leaf if self.step == 1 else Node((Slice(axis, 0, None, self.step),), (leaf,))

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Views."""
        results = []
        for tensor in inputs:
            axis = axis_of(self.dim, tensor.dim(), self.name)
            chosen = self._range(tuple(tensor.shape), axis)
            results.append(
                tensor[(slice(None),) * axis + (slice(chosen.start, chosen.stop, chosen.step),)]
            )
        return results

    def invert(self) -> Inverse:
        """Nothing: the rest is lost."""
        return Inverse((), "lossy", "what `slice` leaves out is lost")


@dataclass(frozen=True, slots=True)
class Pad(Op):
    """So many elements of one value before and after, along a dimension."""

    name: ClassVar[str] = "pad"
    dim: int = 0
    before: int | str = 0
    after: int | str = 0
    value: float = 0

    @classmethod
    def parse(cls, argument: object) -> Self:
        """From `{dim: 0, before: 1, after: 1, value: 0}`, each optional; sizes are at least 0."""
        given = fields(argument, cls.name, ("dim", "before", "after", "value"))
        value = given.get("value", 0)
        if not isinstance(value, int | float):
            raise OpError(f"`pad`: `value` is a number, not {value!r}")
        sizes = [whole_number(given.get(side, 0), cls.name, side) for side in ("before", "after")]
        if any(isinstance(size, int) and size < 0 for size in sizes):
            raise OpError("`pad` adds; `slice` takes away")
        return cls(number(given.get("dim", 0), cls.name, "dim"), sizes[0], sizes[1], value)

    def argument(self) -> object:
        """All fields but a value of 0."""
        value = {} if str(self.value) in ("0", "0.0") else {"value": self.value}
        return {"dim": self.dim, "before": self.before, "after": self.after, **value}

    def parameters(self) -> frozenset[str]:
        """The parameters that `before` and `after` are."""
        return names_in(self.before, self.after)

    def bind(self, values: Mapping[str, int]) -> Self:
        """With numbers for `before` and `after`."""
        return replace(self, before=bound(self.before, values), after=bound(self.after, values))

    def infer(self, inputs: Sequence[TensorForm]) -> tuple[TensorForm, ...]:
        """a ... -> (before + a + after) ... along `dim`."""
        before, after = resolved(self.before, self.name), resolved(self.after, self.name)
        if before < 0 or after < 0:
            raise OpError(f"`pad` by {min(before, after)}; `before` and `after` are at least 0")
        added = before + after
        axes = [axis_of(self.dim, len(form.shape), self.name) for form in inputs]
        return tuple(
            with_axis_size(form, axis, form.shape[axis] + added)
            for form, axis in zip(inputs, axes, strict=True)
        )

    def part(self, output: int, region: Region, inputs: Sequence[TensorForm]) -> Part | None:
        """What of the box is no padding; one row where all of it is."""
        axis = axis_of(self.dim, len(region.shape), self.name)
        length, before = inputs[output].shape[axis], resolved(self.before, self.name)
        start, count = region.offsets[axis] - before, region.shape[axis]
        first = min(max(start, 0), length - 1)
        last = max(min(start + count, length), first + 1)
        if not length:
            return None
        leaf = Leaf(output, region.along(axis, first, last - first))
        if (first, last) == (start, start + count):
            return leaf
        pads = max(first - start, 0), max(start + count - last, 0)
        at = max(start - first, 0)
        return Node((Pad(axis, *pads, self.value), Slice(axis, at, at + count)), (leaf,))

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Copies, padded with the value rounded to the dtype."""
        return [
            self._padded(tensor, axis_of(self.dim, tensor.dim(), self.name)) for tensor in inputs
        ]

    def _padded(self, tensor: torch.Tensor, axis: int) -> torch.Tensor:
        import torch

        fill = (
            torch.tensor(self.value, dtype=torch.float64)
            .to(tensor.dtype)
            .reshape([1] * tensor.dim())
        )
        sizes = [
            [resolved(c, self.name) if i == axis else n for i, n in enumerate(tensor.shape)]
            for c in (self.before, self.after)
        ]

        def joined(parts: list[torch.Tensor]) -> list[torch.Tensor]:
            return [
                torch.cat([parts[0].expand(sizes[0]), parts[1], parts[0].expand(sizes[1])], axis)
            ]

        return moved([fill, tensor], joined)[0]

    def invert(self) -> Inverse:
        """`slice` of what lies between, exact; nothing while `after` is a parameter."""
        if isinstance(self.after, str):
            return Inverse(
                (),
                "exact",
                "the inverse needs the number of its parameter; "
                "an inverse of a concrete plan knows it",
            )
        return Inverse((Slice(self.dim, self.before, -self.after or None),), "exact")


@dataclass(frozen=True, slots=True)
class Index(Op):
    """Elements along a dimension in another order: a list of places, `reverse`, or a roll by so
    many.
    """

    name: ClassVar[str] = "index"
    dim: int = 0
    order: tuple[int, ...] | Literal["reverse"] | None = None
    roll: int = 0

    @classmethod
    def parse(cls, argument: object) -> Self:
        """From `{dim: 0, order: [2, 0, 1]}`; an order may be `reverse` or `{roll: n}`."""
        given = fields(argument, cls.name, ("dim", "order"))
        dim, order = number(given.get("dim", 0), cls.name, "dim"), given.get("order")
        if order == "reverse":
            return cls(dim, "reverse")
        if isinstance(order, Mapping) and set(order) == {"roll"}:
            return cls(dim, None, number(order["roll"], cls.name, "roll"))
        if not isinstance(order, list | tuple) or not order:
            raise OpError("`index`: `order` is a list of places, `reverse`, or `{roll: n}`")
        places = tuple(number(place, cls.name, "order") for place in order)
        if min(places) < 0:
            raise OpError("`index`: places count from 0")
        return cls(dim, places)

    def argument(self) -> object:
        """`dim` and `order`."""
        order: object = {"roll": self.roll} if self.order is None else self.order
        return {"dim": self.dim, "order": list(order) if isinstance(order, tuple) else order}

    def _places(self, length: int) -> list[int]:
        if self.order == "reverse":
            return list(range(length - 1, -1, -1))
        if self.order is None:
            return [(place - self.roll) % length for place in range(length)]
        if max(self.order) >= length:
            raise OpError(f"`index` has place {max(self.order)}, and there are {length}")
        return list(self.order)

    def infer(self, inputs: Sequence[TensorForm]) -> tuple[TensorForm, ...]:
        """a ... -> n ... along `dim`, n the length of the list, else a."""
        axes = [axis_of(self.dim, len(form.shape), self.name) for form in inputs]
        return tuple(
            with_axis_size(form, axis, len(self._places(form.shape[axis])))
            for form, axis in zip(inputs, axes, strict=True)
        )

    def part(self, output: int, region: Region, inputs: Sequence[TensorForm]) -> Part | None:
        """From the first to the last place that the box has."""
        axis = axis_of(self.dim, len(region.shape), self.name)
        start, count = region.offsets[axis], region.shape[axis]
        places = self._places(inputs[output].shape[axis])[start : start + count]
        first, last = min(places), max(places)
        leaf = Leaf(output, region.along(axis, first, last - first + 1))
        if places == list(range(first, last + 1)):
            return leaf
        return Node((Index(axis, tuple(place - first for place in places)),), (leaf,))

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Copies."""
        import torch

        places = [
            torch.tensor(self._places(tensor.shape[self.dim]), dtype=torch.int64)
            for tensor in inputs
        ]
        return moved(
            inputs,
            lambda tensors: [
                t.index_select(self.dim, p) for t, p in zip(tensors, places, strict=True)
            ],
        )

    def invert(self) -> Inverse:
        """The order back: exact for `reverse` and `roll`, checked for a list of all places."""
        if self.order == "reverse":
            return Inverse((self,), "exact")
        if self.order is None:
            return Inverse((replace(self, roll=-self.roll),), "exact")
        if sorted(self.order) != list(range(len(self.order))):
            return Inverse((), "lossy", "`index` leaves places out, or has them twice")
        back = sorted(range(len(self.order)), key=self.order.__getitem__)
        return Inverse(
            (Index(self.dim, tuple(back)),),
            "exact with a check",
            "there must be no place beyond the list",
        )

    def invert_for(self, inputs: Sequence[TensorForm]) -> Inverse:
        """As `invert`, exact for a list that has every place of these tensors."""
        inverse = self.invert()
        if not isinstance(self.order, tuple) or not inverse.ops:
            return inverse
        if any(form.shape[self.dim] > len(self.order) for form in inputs):
            return Inverse((), "lossy", "`index` leaves places out")
        return Inverse(inverse.ops, "exact")
