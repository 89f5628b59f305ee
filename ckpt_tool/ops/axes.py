"""The axes of a pattern in einops' notation, and their lengths in a tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import TYPE_CHECKING

from ckpt_tool.frozen import frozen
from ckpt_tool.ops.op import (
    OpError,
    axis_word,
)
from ckpt_tool.regions import Region
from ckpt_tool.tensors import Shape, shape_text

if TYPE_CHECKING:
    from einops.parsing import ParsedExpression


def sides_of(pattern: str) -> tuple[ParsedExpression, ParsedExpression]:
    """What stands on each side of the arrow, by einops' own parser. Raises OpError."""
    from einops import EinopsError
    from einops.parsing import ParsedExpression

    left, right = pattern.split("->")
    try:
        return ParsedExpression(left), ParsedExpression(right)
    except EinopsError as error:
        raise OpError(f"`{pattern}`: {str(error).strip()}") from None


def shown_axis(identifier: str) -> str:
    """An axis as patterns write it."""
    return "..." if identifier == "…" else identifier


def composition_of(side: ParsedExpression) -> list[list[str] | None]:
    """The axes that make up each dimension; None for the ellipsis."""
    return [None if axes == "…" else [str(axis) for axis in axes] for axes in side.composition]


def match_dimensions(
    left: ParsedExpression, shape: Shape, pattern: str
) -> tuple[list[Dimension], Shape]:
    """The dimensions that have axes, and the sizes that the ellipsis stands for."""
    composition = composition_of(left)
    has_ellipsis = None in composition
    free = len(shape) - len(composition) + has_ellipsis
    if free < 0 or (not has_ellipsis and free):
        raise OpError(
            f"`{pattern}` is for {len(composition)} dimensions, the tensor is {shape_text(shape)}"
        )
    at = composition.index(None) if has_ellipsis else len(composition)
    sizes = (*shape[:at], *shape[at + free :])
    groups = [axes for axes in composition if axes is not None]
    dimensions = [
        Dimension(tuple(axes), size, index, shape)
        for index, (axes, size) in enumerate(zip(groups, sizes, strict=True))
    ]
    return dimensions, shape[at : at + free]


@frozen
class Dimension:
    """One dimension of a tensor: the axes that make it up, its size, and where it stands."""

    axes: tuple[str, ...]
    size: int
    index: int
    shape: Shape

    def solve(self, known: Mapping[str, int], labels: Mapping[str, str]) -> dict[str, int]:
        """The length of the one axis that is not known, or nothing where all are.

        `labels` is what messages call the axes. Raises OpError where lengths don't make the size.
        """
        given = prod(known.get(axis, 1) for axis in self.axes)
        unknown = [axis for axis in self.axes if axis not in known]
        if len(unknown) > 1:
            raise OpError(
                f"the lengths of `{unknown[0]}` and `{unknown[1]}` can't both be worked out; "
                "give one"
            )
        if unknown:
            return {unknown[0]: self._length_beside(given, known, labels)}
        if given != self.size:
            names = " × ".join(self.axes) or "1"
            raise OpError(f"{names} make {given}, the tensor has {self}")
        return {}

    def _length_beside(
        self, given: int, known: Mapping[str, int], labels: Mapping[str, str]
    ) -> int:
        if not given or self.size % given:
            named = [axis for axis in self.axes if axis in known]
            label = labels.get(named[0], named[0]) if len(named) == 1 else " × ".join(named)
            raise OpError(f"{given} {label} do not divide {self}")
        return self.size // given

    def __str__(self) -> str:
        return f"{self.size} {axis_word(self.index)} ({shape_text(self.shape)})"


class AxisRanges:
    """The ranges of a pattern's axes that make up a box of its result, of which the box may be a
    part: of the axes of one dimension, the first may be a range, all others are whole.

    `known` are the lengths of the axes, `composition` the axes of each dimension of the result, and
    `free` is how many dimensions the ellipsis stands for.
    """

    def __init__(
        self,
        known: Mapping[str, int],
        composition: list[list[str] | None],
        region: Region,
        free: int,
    ) -> None:
        self.ranges = {axis: (0, length) for axis, length in known.items()}
        self._known, self._composition, self._region, self._free = known, composition, region, free
        for at, axes in self._dimensions(composition):
            if axes:
                self._narrow(axes, region.offsets[at], region.shape[at])

    def _dimensions(self, composition: list[list[str] | None]) -> Iterator[tuple[int, list[str]]]:
        """The number of each dimension with its axes; those of the ellipsis are left out."""
        at = 0
        for axes in composition:
            if axes is not None:
                yield at, axes
            at += self._free if axes is None else 1

    def _narrow(self, axes: list[str], start: int, count: int) -> None:
        for i, axis in enumerate(axes):
            inner = prod(self._known[each] for each in axes[i + 1 :])
            first, last = start // inner, -(-(start + count) // inner)
            self.ranges[axis] = first, last - first
            if last - first > 1:
                return
            start -= first * inner

    def source(self, composition: list[list[str] | None]) -> Region:
        """The box of the input that has these ranges; axes that would cut it up become whole."""
        for _, axes in self._dimensions(composition):
            is_open = False
            for axis in axes:
                if is_open:
                    self.ranges[axis] = 0, self._known[axis]
                is_open = is_open or self.ranges[axis][1] > 1
        ellipsis = self._of_ellipsis()
        offsets: list[int] = []
        shape: list[int] = []
        for composed in composition:
            if composed is None:
                offsets.extend(at for at, _ in ellipsis)
                shape.extend(count for _, count in ellipsis)
            else:
                offsets.append(self._first(composed))
                shape.append(prod(self.ranges[axis][1] for axis in composed))
        return Region(tuple(offsets), tuple(shape))

    def _of_ellipsis(self) -> list[tuple[int, int]]:
        if None not in self._composition:
            return []
        at = self._composition.index(None)
        pairs = list(zip(self._region.offsets, self._region.shape, strict=True))
        return pairs[at : at + self._free]

    def _first(self, axes: list[str]) -> int:
        """The number of the first element of a dimension that has these ranges of its axes."""
        number = 0
        for axis in axes:
            number = number * self._known[axis] + self.ranges[axis][0]
        return number

    def crops(self) -> Iterator[tuple[int, int, int]]:
        """Dimension, start and count of what is to be cut out of the result of the ranges."""
        for at, axes in self._dimensions(self._composition):
            start, count = self._region.offsets[at], self._region.shape[at]
            if count != prod(self.ranges[axis][1] for axis in axes):
                yield at, self._place(axes, start), count

    def _place(self, axes: list[str], start: int) -> int:
        """Where an element of a whole dimension lies in that of the ranges."""
        place, inner = 0, prod(self._known[axis] for axis in axes)
        for axis in axes:
            inner //= self._known[axis]
            first, count = self.ranges[axis]
            place, start = place * count + start // inner - first, start % inner
        return place
