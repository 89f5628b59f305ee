"""What is left of a source: whether it can be dropped without making a wrong network."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from ckpt_tool.advising.harmless import (
    changes_a_weight,
    flat,
    is_averaged,
    is_computed,
    is_constant,
    is_network,
    is_untrained,
)
from ckpt_tool.advising.leftovers import Doubt, Leftovers, shape_mismatches, shapes_of
from ckpt_tool.advising.parts import (
    Part,
    common_path,
    contents,
    ends_of,
    is_below,
    is_in_block,
    paths_above,
    siblings_of,
    whole_parts,
)
from ckpt_tool.mapping.accounting.scales import Scales
from ckpt_tool.tensors import Shape
from ckpt_tool.wording import EMPTY


class UnusedKeys:
    """What is left of the source: `parts` are whole modules of it, `halves` keys of modules that
    are mapped in part, `harmless` keys that a network does without, `root` the module that all
    mapped keys are in.
    """

    def __init__(self, leftovers: Leftovers) -> None:
        self._all, self._source = leftovers, leftovers.source
        taken = leftovers.taken
        self.root = common_path(taken)
        flats = {flat(key): key for key in taken}
        self.harmless = {key for key in leftovers.left if self._is_harmless(key, flats)}
        rest = [key for key in leftovers.left if key not in self.harmless]
        self.parts, self.halves = whole_parts(rest, taken)
        self._used = {path for key in taken for path in paths_above(key)}

    @property
    def renamed(self) -> list[Part]:
        """The modules that the target has under no name of theirs."""
        mismatched = {source for source, _ in shape_mismatches(self._all)}
        return [part for part in self.parts if mismatched.isdisjoint(part.keys)]

    def _is_harmless(self, key: str, flats: dict[str, str]) -> bool:
        """Whether a network does without this key."""
        return (
            is_computed(key)
            or is_constant(key, self._shape(key))
            or is_untrained(key, self._all.taken)
            or self._is_copy(key, flats)
            or self._is_plain_alpha(key)
        )

    def _is_copy(self, key: str, flats: dict[str, str]) -> bool:
        """Whether this is an average of a tensor that is taken, by its name and shape."""
        if not is_averaged(key) or key not in self._source:
            return False
        name = flat(key)
        ends = (flats.get(name[cut:]) for cut in range(1, len(name)))
        twin = next(
            (
                other
                for other in ends
                if other and self._source[other].shape == self._source[key].shape
            ),
            None,
        )
        return twin is not None or not is_below(key, self.root)

    def _is_plain_alpha(self, key: str) -> bool:
        """Whether this is the `alpha` of a LoRA that is taken, and equal to its rank: then it
        scales by 1.
        """
        stem = key.removesuffix(".alpha")
        downs = (f"{stem}.{name}.weight" for name in ("lora_down", "lora_A", "lora_A.default"))
        down = next((name for name in downs if name in self._all.taken), None)
        if stem == key or down is None or self._all.value_of is None or self._shape(key):
            return False
        return self._all.value_of(key) == self._source[down].shape[0]

    def doubts(self) -> Iterator[Doubt]:
        """Why some of it can't be dropped."""
        mismatched = {source for source, _ in shape_mismatches(self._all)}
        for key in self.halves:
            if key not in mismatched and is_below(key, self.root):
                yield Doubt(key or EMPTY, "is left of a module that is mapped")
        for part in self.parts:
            if not mismatched.issuperset(part.keys):
                yield from self._faults(part)

    def _faults(self, part: Part) -> Iterator[Doubt]:
        is_inside = is_below(part.path, self.root)
        if is_inside and any(changes_a_weight(key) for key in part.keys):
            yield Doubt(part.path, "is a part of the weights beside it")
        elif not is_network(part.path) and self._mirrors(part):
            why = "has something for the weights that are mapped, under their names"
            yield Doubt(part.path, why)
        if key := self._scaled_by(part):
            yield Doubt(part.path, "belongs to", key)
        if is_inside and (why := self._place_of(part)):
            yield Doubt(part.path, why)

    def _scaled_by(self, part: Part) -> str | None:
        """A key that is mapped, and whose scale is in this module."""
        scales = Scales(part.keys)
        return next((key for key in self._all.taken if scales.of(key)), None)

    def _place_of(self, part: Part) -> str:
        """Why a module of the network that is mapped can't be left out of it; nothing
        where it can.
        """
        if all(key in self._source.unreadable for key in part.keys):
            return ""
        siblings = siblings_of(part, list(self._all.taken))
        if any(self._is_alike(part, other) for other in siblings):
            return "is one of several equal blocks, of which others are mapped"
        if is_in_block(part.path, self._used):
            return "is left of a block that is mapped"
        if not self._has_matrices(part) and not self._is_of_another(part):
            what = "is no matrix" if part.is_bare else "has vectors only, as a norm has"
            return f"{what}, and what is mapped may need it"
        return ""

    def _is_of_another(self, part: Part) -> bool:
        """Whether a module is one of several of a name that go together, `decoder_norm` with
        `decoder_blocks`, or `bn_end` with `conv_end`.
        """
        stem, mark, _ = part.name.partition("_")
        end = part.name.rpartition("_")[2]
        others = (
            other for other in self.parts if other is not part and other.parent == part.parent
        )
        return bool(mark) and any(
            self._has_matrices(other)
            for other in others
            if other.name.startswith(f"{stem}_") or other.name.endswith(f"_{end}")
        )

    def _has_matrices(self, part: Part) -> bool:
        return any(len(self._shape(key)) > 1 for key in part.keys)

    def _mirrors(self, part: Part) -> bool:
        """Whether a tree of its own repeats the names of what is mapped: masks, differences,
        adapters.
        """
        return 2 * sum(
            self._is_mirrored(key, key[len(part.path) + 1 :]) for key in part.keys
        ) >= len(part.keys)

    def _is_mirrored(self, key: str, name: str) -> bool:
        if changes_a_weight(key):
            return any((path, None) in self._ends for path in paths_above(name))
        return len(self._shape(key)) > 0 and (name, self._shape(key)) in self._ends

    @cached_property
    def _ends(self) -> set[tuple[str, Shape | None]]:
        """The ends of the names of what is mapped, with their shapes, and those of the modules
        without.
        """
        tensors = (
            (end, self._shape(key)) for key in self._all.taken for end in ends_of(key, self.root)
        )
        modules = {key.rpartition(".")[0] for key in self._all.taken}
        return {
            *tensors,
            *((end, None) for module in modules for end in ends_of(module, self.root)),
        }

    def _is_alike(self, part: Part, other: str) -> bool:
        shapes = {
            key: shape for key, shape in shapes_of(self._source).items() if not is_computed(key)
        }
        return contents(part.path, part.keys, shapes) == contents(other, self._source, shapes)

    def _shape(self, key: str) -> Shape:
        return self._source[key].shape if key in self._source else ()
