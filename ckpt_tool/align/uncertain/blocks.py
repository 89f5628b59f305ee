"""Equal blocks, where they went, and what exchanging two of them would lose."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import inf

from ckpt_tool.align.naming.modules import Candidate, ModuleTensors
from ckpt_tool.align.naming.paths import Names, is_below, numberless_names, paths_above
from ckpt_tool.align.weights import WEIGHTS

MIN_MODULES = 2


@dataclass(frozen=True, slots=True)
class Placed:
    """A block of the source, and the block of the target that its modules went to; one of them may
    be missing, with all pairs.
    """

    source: Names
    target: Names
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Branch:
    """What is below a path, and not below another one inside of it."""

    path: Names
    other: Names

    def has(self, names: Names) -> bool:
        """Whether a module is in it."""
        is_inside = is_below(self.other, self.path) and is_below(names, self.other)
        return is_below(names, self.path) and not is_inside


@dataclass(frozen=True, slots=True)
class Exchange:
    """Two equal blocks with their places, and how much worse it would be, for a module, if these
    were exchanged.
    """

    first: Placed
    second: Placed
    loss: float
    without_order: float = inf
    """The same where order says nothing: in which order branches with names of their own are
    declared means nothing.
    """

    @property
    def is_open(self) -> bool:
        """Whether the two could as well be exchanged."""
        known = self.loss if self.without_order == inf else max(self.loss, self.without_order)
        return known < WEIGHTS.exchange_loss or self.without_order < WEIGHTS.not_by_order

    @property
    def is_wrong(self) -> bool:
        """Whether they had better be."""
        known = self.loss if self.without_order == inf else self.without_order
        return known < -WEIGHTS.exchange_loss

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The pairs of both blocks."""
        return (*self.first.candidates, *self.second.candidates)

    def not_settled(self, hinted: Collection[Candidate]) -> tuple[Candidate, ...]:
        """The pairs of both that hints don't tell apart."""
        sides = [each for each in (self.first, self.second) if not is_hinted(each, hinted)]
        is_one = self.first.source == self.second.source
        if len(sides) < 2 and not is_one:
            return ()
        return tuple(candidate for each in sides for candidate in each.candidates)

    def branches(self) -> tuple[tuple[Branch, Branch], ...]:
        """The branches that the two blocks are in, with the branches that these went to; nothing
        for blocks of one sequence, or one that goes nowhere.
        """
        if not self.second.candidates or are_one_sequence(self.first.source, self.second.source):
            return ()
        sources = _branches(self.first.source, self.second.source)
        targets = _branches(self.first.target, self.second.target)
        return tuple(zip(sources, targets, strict=True))


class Blocks:
    """The paths of one side with what lies below them, and which of them are equal: the same names,
    the same shapes.
    """

    def __init__(self, modules: Sequence[ModuleTensors]) -> None:
        self.at = {module.names: module for module in modules}
        self.inside: dict[Names, list[ModuleTensors]] = defaultdict(list)
        for module in modules:
            for path in paths_above(module.names):
                self.inside[path].append(module)
        self._kinds = {
            path: frozenset((module.names[len(path) :], module.shapes) for module in found)
            for path, found in self.inside.items()
        }
        self.groups: dict[object, list[Names]] = defaultdict(list)
        for path, found in self.inside.items():
            if len(found) >= MIN_MODULES:
                self.groups[self.kind(path)].append(path)

    def kind(self, path: Names) -> object:
        """What equal blocks share."""
        return self._kinds[path]

    def moved(self, module: ModuleTensors, before: Names, after: Names) -> ModuleTensors | None:
        """The module that stands in a block where this one does in another."""
        if not is_below(module.names, before):
            return None
        return self.at.get((*after, *module.names[len(before) :]))

    def free_of(self, kind: object, taken: set[int]) -> list[Names]:
        """The blocks of a kind of which no module is taken."""
        return [
            path
            for path in self.groups.get(kind, ())
            if not any(module.place in taken for module in self.inside[path])
        ]


def is_hinted(placed: Placed, hinted: Collection[Candidate]) -> bool:
    return not set(hinted).isdisjoint(placed.candidates)


def are_one_sequence(path: Names, other: Names) -> bool:
    """Whether two blocks differ in numbers alone."""
    return numberless_names(path) == numberless_names(other)


def _branches(path: Names, other: Names) -> tuple[Branch, Branch]:
    """What two paths are in, as far as that differs: `a.x` and `b.x` are in `a` and `b`."""
    while path and other and path[-1] == other[-1]:
        path, other = path[:-1], other[:-1]
    return Branch(path, other), Branch(other, path)
