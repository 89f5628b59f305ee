"""What a pairing of two catalogs leaves, and what is in doubt about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from ckpt_tool.advising.relatives import Relative
from ckpt_tool.mapping.plan import Step
from ckpt_tool.tensors import Catalog, Shape


@dataclass(frozen=True)
class Leftovers:
    """What a pairing of two catalogs leaves: `left` of the source and `fresh` of the target, which
    nobody named.

    `name_of` is what the target calls a key of the source. `value_of` reads a tensor of one number,
    where there are values.
    """

    source: Catalog
    target: Catalog
    steps: Sequence[Step]
    left: Sequence[str]
    fresh: Sequence[str]
    name_of: Callable[[str], str | None] = str
    value_of: Callable[[str], float] | None = None

    @cached_property
    def taken(self) -> dict[str, None]:
        """The keys of the source that are mapped, in order."""
        return dict.fromkeys(key for step in self.steps for key in step.inputs)

    @cached_property
    def made(self) -> dict[str, None]:
        """The keys of the target that are mapped onto, in order."""
        return dict.fromkeys(key for step in self.steps for key in step.outputs)


@dataclass(frozen=True, slots=True)
class Doubt:
    """A key or a module that may not be left just so, and why; `other` is what it may have to do
    with. No path: a doubt about the whole.
    """

    path: str
    why: str
    other: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Keys that may be dropped and kept without making a wrong network; `doubts` are why the others
    may not.
    """

    drop: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    doubts: tuple[Doubt, ...] = ()

    @property
    def is_safe(self) -> bool:
        """Whether nothing is in doubt."""
        return not self.doubts


def shape_mismatches(leftovers: Leftovers) -> Iterator[tuple[str, str]]:
    """Keys of the source and of the target that are left, have one name, and other shapes."""
    fresh = frozenset(leftovers.fresh)
    for key in leftovers.left:
        name = leftovers.name_of(key)
        if name not in fresh or key not in leftovers.source:
            continue
        if leftovers.source[key].shape != leftovers.target[name].shape:
            yield key, name


def shapes_of(catalog: Catalog) -> dict[str, Shape]:
    """The shapes of a catalog's tensors by their keys."""
    return {key: info.shape for key, info in catalog.items()}


def in_doubt(relative: Relative) -> Doubt:
    """The doubt that something left of the source may be what is fresh in the target."""
    return Doubt(relative.source, relative.how, relative.target)
