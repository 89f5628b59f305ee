"""What one tensor holds that several hold on the other side: fused projections, stacked experts,
normalised weights.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ckpt_tool.align.completing.fused import (
    AreTransposed,
    Fused,
    OuterThirds,
    biases_without_keys,
    fused,
)
from ckpt_tool.align.completing.nearest import Agreement, nearest_path
from ckpt_tool.align.completing.unpaired import Unpaired
from ckpt_tool.align.findings import Aligned
from ckpt_tool.align.naming.paths import Names
from ckpt_tool.align.naming.vocabulary import in_common_words, words_of
from ckpt_tool.align.pairs import Pair, Slot
from ckpt_tool.align.sides import Sides
from ckpt_tool.align.weights import WEIGHTS
from ckpt_tool.ops import parse_ops
from ckpt_tool.tensors import Catalog, Shape

_EXPERT = re.compile(r"(?<=\.experts\.)[0-9]{1,9}(?=\.)")


def combined(
    unpaired: Sides[Unpaired], agreement: Agreement, are_transposed: AreTransposed
) -> list[Aligned]:
    """Pairs of one tensor with several. `agreement` takes a path of the source, then one of the
    target.
    """
    source, target = unpaired

    def reverse(from_target: Names, from_source: Names) -> float:
        return agreement(from_source, from_target)

    return [
        *(
            _split(each, target.catalog)
            for each in fused(source, target, agreement, are_transposed)
        ),
        *map(_outer_thirds, biases_without_keys(source, target, agreement)),
        *map(_concatenated, fused(target, source, reverse, are_transposed)),
        *map(_stacked, stacked(target, source, reverse)),
        *map(_unstacked, stacked(source, target, agreement)),
        *_normalised(source, target, reverse),
    ]


def _evidence(found: Fused) -> str:
    source = "columns" if found.cut.dim else "rows"
    target = "columns" if found.cut.dim and not found.cut.is_transposed else "rows"
    order = ", in the order of the name" if found.is_named else ""
    return f"the {source} of one make the {target} of the others{order}"


def _split(found: Fused, parts: Catalog) -> Aligned:
    dim = 0 if found.cut.is_transposed else found.cut.dim
    sizes = [parts[part].shape[dim] for part in found.parts]
    split: object = dim if len(set(sizes)) == 1 else {"dim": dim, "sizes": sizes}
    ops: list[object] = ["transpose"] if found.cut.is_transposed else []
    pair = Pair(((found.key,),), _each(found.parts), parse_ops([*ops, {"split": split}]))
    return _combined(found, pair)


def _concatenated(found: Fused) -> Aligned:
    cut = found.cut
    ops: list[object] = [{"concat": 0}, "transpose"] if cut.is_transposed else [{"concat": cut.dim}]
    pair = Pair(_each(found.parts), ((found.key,),), parse_ops(ops))
    return _combined(found, pair)


def _combined(found: Fused, pair: Pair) -> Aligned:
    aligned = Aligned(pair, WEIGHTS.combined, _evidence(found))
    if found.is_named:
        return aligned
    return aligned.doubted("but no name says that it is queries, keys, values")


def _each(keys: Sequence[str]) -> tuple[Slot, ...]:
    return tuple((key,) for key in keys)


_OUTER_THIRDS: list[object] = [
    {"rearrange": "(p n) -> p n", "p": 3},
    {"slice": {"dim": 0, "start": 0, "step": 2}},
    {"rearrange": "p n -> (p n)"},
    {"split": 0},
]


def _outer_thirds(found: OuterThirds) -> Aligned:
    pair = Pair(((found.key,),), _each((found.queries, found.values)), parse_ops(_OUTER_THIRDS))
    evidence = "the first and the last third of the rows; keys have no bias"
    return Aligned(pair, WEIGHTS.outer_thirds, evidence)


@dataclass(frozen=True, slots=True)
class Stacked:
    """The key of a tensor of all experts, and the keys of each: one slot, or gate's and up's."""

    key: str
    slots: tuple[Slot, ...]

    @property
    def evidence(self) -> str:
        """What speaks for it, in words."""
        return f"{len(self.slots[0])} experts of these shapes, by their words"


def stacked(whole: Unpaired, parts: Unpaired, agreement: Agreement) -> Iterator[Stacked]:
    """The tensors of `whole` that hold those of all experts of `parts`. `agreement` takes a path of
    the whole's side, then one of the parts'.
    """
    families = _experts(parts)
    for module in whole.modules if families else ():
        for key in whole.of(module).values():
            shape = whole.catalog[key].shape
            if len(shape) == 3:
                parent = nearest_path(_expert_path(module.names), list(families), agreement)
                kinds = families[parent] if parent is not None else {}
                slots = _slots(module.names[-1], shape, kinds, parts.catalog)
                if slots:
                    yield Stacked(key, slots)


def _stacked(found: Stacked) -> Aligned:
    ops: list[object] = [{"stack": 0}] if len(found.slots) == 1 else [{"stack": 0}, {"concat": 1}]
    pair = Pair(found.slots, ((found.key,),), parse_ops(ops))
    return Aligned(pair, WEIGHTS.combined, found.evidence)


def _unstacked(found: Stacked) -> Aligned:
    ops: list[object] = (
        [{"unstack": 0}] if len(found.slots) == 1 else [{"unstack": 0}, {"split": 0}]
    )
    pair = Pair(((found.key,),), found.slots, parse_ops(ops))
    return Aligned(pair, WEIGHTS.combined, found.evidence)


def _expert_path(names: Names) -> Names:
    return names[: names.index("experts")] if "experts" in names else names[:-1]


def _experts(parts: Unpaired) -> dict[Names, dict[str, dict[int, str]]]:
    """For each parent of experts, their tensors: by kind, then by number."""
    found: dict[Names, dict[str, dict[int, str]]] = defaultdict(lambda: defaultdict(dict))
    for key in parts.catalog:
        path = in_common_words(key)
        if key not in parts.keys or not (place := _EXPERT.search(path)):
            continue
        parent = tuple(path[: place.start()].removesuffix(".experts.").split("."))
        kind = path[place.end() + 1 :].split(".")[0]
        found[parent][kind][int(place[0])] = key
    return found


def _slots(
    name: str, shape: Shape, kinds: Mapping[str, Mapping[int, str]], catalog: Catalog
) -> tuple[Slot, ...]:
    """The keys to stack for a tensor of all experts: those of one kind, or of gate and up; none
    where they don't fill it.
    """
    wanted = _kinds_in(name)
    if any(kind not in kinds for kind in wanted):
        return ()
    slots = tuple(tuple(kinds[kind][number] for number in sorted(kinds[kind])) for kind in wanted)
    return slots if _fill(slots, shape, catalog) else ()


def _kinds_in(name: str) -> tuple[str, ...]:
    """The kinds of matrices that a name of all experts' tensor says it holds."""
    words = set(words_of(name)) | set(name.split("_"))
    if {"gate", "up"} <= words:
        return ("gate", "up")
    return tuple(word for word in ("down", "gate", "up") if word in words)[:1]


def _fill(slots: Sequence[Slot], shape: Shape, catalog: Catalog) -> bool:
    """Whether as many experts as a tensor has make all of its rows."""
    experts, rows, *rest = shape
    firsts = [catalog[slot[0]].shape or (0,) for slot in slots]
    if {len(slot) for slot in slots} != {experts} or sum(first[0] for first in firsts) != rows:
        return False
    return all([*catalog[key].shape[1:]] == rest for slot in slots for key in slot)


def _normalised(source: Unpaired, target: Unpaired, agreement: Agreement) -> Iterator[Aligned]:
    """Weights that the source holds as a length and a direction."""
    stems = _length_and_direction(source)
    for module in target.modules:
        key = target.of(module).get("weight")
        if key is None:
            continue
        shape = target.catalog[key].shape
        fitting = [stem for stem, (_, v) in stems.items() if source.catalog[v].shape == shape]
        stem = nearest_path(module.names, fitting, agreement)
        if stem is not None and source.keys.issuperset(stems[stem]):
            pair = Pair(_each(stems[stem]), ((key,),), parse_ops({"weight_norm": 0}))
            yield Aligned(pair, WEIGHTS.combined, "a length and a direction make a weight")


def _length_and_direction(source: Unpaired) -> dict[Names, tuple[str, str]]:
    """The keys of the length and of the direction of each weight that is held so."""
    weights = {each.names: each.keys["weight"] for each in source.modules if "weight" in each.keys}
    return {
        names[:-1]: (weights[(*names[:-1], "weight_g")], direction)
        for names, direction in weights.items()
        if names[-1] == "weight_v" and (*names[:-1], "weight_g") in weights
    }
