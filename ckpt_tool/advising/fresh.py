"""What is left of a target: whether it can stay fresh without making a wrong network."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator
from functools import cached_property

from ckpt_tool.advising.harmless import COUNTERS, is_computed, is_idle_adapter
from ckpt_tool.advising.leftovers import Doubt, Leftovers, in_doubt, shape_mismatches, shapes_of
from ckpt_tool.advising.parts import (
    Part,
    contents,
    is_below,
    is_in_block,
    is_of_a_layer,
    numbered,
    paths_above,
    siblings_of,
    whole_parts,
)
from ckpt_tool.advising.relatives import relatives, structure
from ckpt_tool.mapping.accounting.heads import (
    ShapeMismatch,
    are_heads,
    is_named_head,
    is_table,
    is_vocabulary,
    may_be_head,
)
from ckpt_tool.tensors import Shape
from ckpt_tool.wording import EMPTY

_OF_NO_WORDS = re.compile(r"(?i)(^|[._])(t|add|label|(time|pos|patch)\w*)_?emb")
"""Names of what embeds times, positions, patches and classes."""


class FreshKeys:
    """What is left of the target: `parts` are whole modules of it, `halves` keys of modules that
    are mapped in part.
    """

    def __init__(self, leftovers: Leftovers) -> None:
        self._all, self._target = leftovers, leftovers.target
        self._counted = any(COUNTERS.search(key) for key in leftovers.left)
        self._computed = {key for key in leftovers.fresh if self._is_computed(key)}
        rest = [key for key in leftovers.fresh if key not in self._computed]
        self.parts, self.halves = whole_parts(rest, leftovers.made)
        self._used = {path for key in leftovers.made for path in paths_above(key)}
        self._wanted = {
            key: leftovers.source[key].shape
            for key in leftovers.left
            if key in leftovers.source and not is_computed(key)
        }

    def _is_computed(self, key: str) -> bool:
        """Whether a network makes this key itself; no counter, where the source has one."""
        is_wanted = self._counted and COUNTERS.search(key)
        return (is_computed(key) and not is_wanted) or is_idle_adapter(key, self._all.made)

    def doubts(self) -> Iterator[Doubt]:
        """Why some of it can't be kept."""
        mismatched = {target: source for source, target in shape_mismatches(self._all)}
        heads = [self._mismatch(source, key) for key, source in mismatched.items()]
        if heads and not are_heads(heads, self._all.source, self._target):
            yield from (Doubt(head.target, "has another shape in the source") for head in heads)
        halves = (key for key in self.halves if key not in mismatched)
        yield from (Doubt(key or EMPTY, "is missing in a module that is mapped") for key in halves)
        for part in self.parts:
            yield from () if set(part.keys) <= mismatched.keys() else self._faults(part)
        keys = [key for part in self.parts for key in part.keys if key not in mismatched]
        yield from self._relatives(keys)
        yield from self._namesakes(keys)

    @cached_property
    def _learned(self) -> dict[str, Shape]:
        """The shapes of the target's keys that no module computes itself."""
        shapes = shapes_of(self._target)
        return {key: shape for key, shape in shapes.items() if not is_computed(key)}

    def _mismatch(self, source: str, target: str) -> ShapeMismatch:
        shapes = self._all.source[source].shape, self._target[target].shape
        return ShapeMismatch(source, target, *shapes)

    def _faults(self, part: Part) -> Iterator[Doubt]:
        shapes = self._learned
        held = contents(part.path, part.keys, shapes) or Counter(shapes[key] for key in part.keys)
        if why := self._place_of(part, held, shapes):
            yield Doubt(part.path, why)
        tables = (key for key in self._all.made if _may_be_tied(key, self._target[key].shape))
        vocabularies = {self._target[key].shape for key in tables}
        if any(shape in vocabularies for shape in held):
            yield Doubt(part.path, "has the shape of an embedding, which it may be tied to")

    def _place_of(self, part: Part, held: object, shapes: dict[str, Shape]) -> str:
        """Why a module belongs to what is mapped, and can't stay fresh; nothing where it can."""
        siblings = siblings_of(part, list(self._all.made))
        if any(contents(other, self._target, shapes) == held for other in siblings):
            return "is one of several equal blocks, of which others are mapped"
        if is_in_block(part.path, self._used):
            return "is missing in a block that is mapped"
        if any(self._is_deeper(part, other, shapes) for other in siblings):
            return "is one of several blocks of one kind, of which others are mapped"
        if self._is_between(part, siblings):
            return "is missing between modules that are mapped"
        is_words = part.is_bare and is_vocabulary(part.path)
        if is_words or all(_is_buffer(key, shapes.get(key, (0, 0))) for key in part.keys):
            return "is missing in the source"
        return ""

    def _is_between(self, part: Part, siblings: Collection[str]) -> bool:
        """Whether a module of the body is mapped that comes after this one: the number in its name
        is higher, or, in a network that keeps its order, others stand on both sides of it.
        """
        if mine := numbered(part.name):
            numbers = (numbered(other.rpartition(".")[2]) for other in siblings)
            if any(other and other[1] > mine[1] for other in numbers):
                return True
        if part.is_bare or not self._target.is_ordered or is_named_head(part.path):
            return False
        beside = [key for key in self._weights if is_below(key, part.parent)]
        first, last = (self._places[part.keys[end]] for end in (0, -1))
        after = [key for key in beside if self._places[key] > last]
        return any(self._places[key] < first for key in beside) and not all(
            may_be_head(key, self._target) for key in after
        )

    @cached_property
    def _places(self) -> dict[str, int]:
        return {key: place for place, key in enumerate(self._target)}

    @cached_property
    def _weights(self) -> list[str]:
        """The weights of the target that are mapped."""
        return [key for key in self._all.made if len(self._target[key].shape) > 1]

    @property
    def renamed(self) -> list[Part]:
        """The modules that the source has under no name of theirs."""
        mismatched = {target for _, target in shape_mismatches(self._all)}
        return [part for part in self.parts if mismatched.isdisjoint(part.keys)]

    def _is_deeper(self, part: Part, other: str, shapes: dict[str, Shape]) -> bool:
        """Whether a numbered module is another one of a sequence, in another width."""
        mine = structure(part.path, part.keys, shapes, 1)
        return bool(mine) and mine == structure(other, shapes, shapes, 1)

    def _relatives(self, fresh: Collection[str]) -> Iterator[Doubt]:
        """Tensors that are left of the source and could be what is fresh."""
        has_matrices = any(len(self._target[key].shape) > 1 for key in fresh)
        least = 2 if has_matrices else 0
        left = {key: shape for key, shape in self._wanted.items() if len(shape) >= least}
        shapes = {key: self._target[key].shape for key in fresh}
        wanted = {key: shape for key, shape in shapes.items() if len(shape) >= least}
        yield from (in_doubt(one) for one in relatives(left, wanted))

    def _namesakes(self, fresh: Collection[str]) -> Iterator[Doubt]:
        """What is fresh in a module of whose name something is left of the source."""
        modules = {self._all.name_of(key) or "" for key in self._wanted}
        paths = {name.rpartition(".")[0] for name in modules if "." in name}
        for key in fresh:
            if key.rpartition(".")[0] in paths:
                yield Doubt(key or EMPTY, "has something in the source under its own name")


def _may_be_tied(key: str, shape: Shape) -> bool:
    """Whether this is an embedding of words, whose rows an output may share. A square matrix is a
    layer of what embeds times or patches, whatever its name.
    """
    return is_table(key, shape) and shape[0] != shape[1] and not _OF_NO_WORDS.search(key)


def _is_buffer(key: str, shape: Shape) -> bool:
    """Whether a vector is none of those that layers learn."""
    return len(shape) < 2 and not is_of_a_layer(key.rpartition(".")[2])
