"""The axes of a pattern in einops' notation, and their lengths in a tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from ckpt_tool.ops.op import (
    OpError,
    axis_word,
)
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


@dataclass(frozen=True, slots=True)
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
