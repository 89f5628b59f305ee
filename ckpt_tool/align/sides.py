"""Two things of one kind: what belongs to the source, and what belongs to the target."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

Side = Literal["source", "target"]
T = TypeVar("T", covariant=True)
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Sides(Generic[T]):
    """The source's and the target's; iterates over both, the source's first."""

    source: T
    target: T

    def __iter__(self) -> Iterator[T]:
        yield self.source
        yield self.target

    def of(self, side: Side) -> T:
        """The one of this side."""
        return self.source if side == "source" else self.target

    def map(self, function: Callable[[T], R]) -> Sides[R]:
        """What a function makes of each."""
        return Sides(function(self.source), function(self.target))
