"""What one tensor holds that several hold on the other side: fused projections, stacked experts, normalised weights."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from ckpt_tool.align.pairs import Pair
from ckpt_tool.align.units import Names, Unit
from ckpt_tool.align.words import common_path, words_of
from ckpt_tool.ops import parse_ops
from ckpt_tool.tensors import Catalog

_FUSED = {"qkv": ("q", "k", "v"), "kv": ("k", "v"), "gate_up": ("gate", "up")}
_UNKNOWN_ORDER = re.compile(r"(^|\.)(query_key_value|wqkv)(?=\.|$)")
"""Names whose rows are interleaved by head, or by rotary pairs, in some libraries."""
_EXPERT = re.compile(r"(?<=\.experts\.)\d+(?=\.)")

Rate = Callable[[Names, Names], float]
"""How far two paths contain the same."""


@dataclass(frozen=True, slots=True)
class Composite:
    """A pair of several tensors with one, or of one with several, and what speaks for it."""

    pair: Pair
    confidence: float
    evidence: str


@dataclass(frozen=True, slots=True)
class Rest:
    """What is not paired yet, of one side."""

    catalog: Catalog
    keys: frozenset[str]
    units: Sequence[Unit]

    def left(self, unit: Unit) -> dict[str, str]:
        return {role: key for role, key in unit.keys.items() if key in self.keys}


def composites(source: Rest, target: Rest, rate: Rate) -> list[Composite]:
    def back(ours: Names, theirs: Names) -> float:
        return rate(theirs, ours)

    found = [*_fused(source, target, rate, is_split=True), *_fused(target, source, back, is_split=False)]
    found += [*_stacked(source, target, back), *_normalised(source, target, back)]
    return found


def _fused(whole: Rest, parts: Rest, rate: Rate, is_split: bool) -> Iterator[Composite]:
    by_parent: dict[Names, dict[str, Unit]] = defaultdict(dict)
    for unit in parts.units:
        by_parent[unit.parent][unit.names[-1]] = unit
    for unit in whole.units:
        words = _FUSED.get(unit.names[-1])
        if words is None or any(_UNKNOWN_ORDER.search(key) for key in unit.keys.values()):
            continue
        families = [parent for parent, units in by_parent.items() if all(word in units for word in words)]
        for role, key in whole.left(unit).items():
            fitting = [
                parent
                for parent in families
                if _makes(whole.catalog, key, [parts.left(by_parent[parent][word]).get(role) for word in words], parts.catalog)
            ]
            parent = _nearest(unit.parent, fitting, rate)
            if parent is not None:
                yield _fusion(key, [by_parent[parent][word].keys[role] for word in words], parts.catalog, is_split)


def _makes(catalog: Catalog, key: str, parts: Sequence[str | None], others: Catalog) -> bool:
    """Whether the parts have the fused tensor's rows."""
    shapes = [others[part].shape for part in parts if part is not None]
    whole = catalog[key].shape
    if len(shapes) < len(parts) or not all(len(shape) == len(whole) and shape for shape in shapes):
        return False
    return sum(shape[0] for shape in shapes) == whole[0] and all(shape[1:] == whole[1:] for shape in shapes)


def _fusion(key: str, parts: Sequence[str], catalog: Catalog, is_split: bool) -> Composite:
    sizes = [catalog[part].shape[0] for part in parts]
    slots = tuple((part,) for part in parts)
    evidence = "the rows of one make the rows of the others, in the order of the name"
    if is_split:
        split: object = 0 if len(set(sizes)) == 1 else {"dim": 0, "sizes": sizes}
        return Composite(Pair(((key,),), slots, parse_ops({"split": split})), 0.95, evidence)
    return Composite(Pair(slots, ((key,),), parse_ops({"concat": 0})), 0.95, evidence)


def _nearest(path: Names, others: Sequence[Names], rate: Rate) -> Names | None:
    """The path that clearly agrees best with this one."""
    rated = sorted(((rate(path, other) + 0.05 * _shared_end(path, other), other) for other in others), reverse=True)
    if not rated or rated[0][0] < 0.05 or (len(rated) > 1 and rated[0][0] - rated[1][0] < 0.03):
        return None
    return rated[0][1]


def _shared_end(a: Names, b: Names) -> int:
    pairs = zip(reversed(a), reversed(b), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _stacked(source: Rest, target: Rest, rate: Rate) -> Iterator[Composite]:
    families = _experts(source)
    for unit in target.units:
        for key in target.left(unit).values():
            shape = target.catalog[key].shape
            above = {family[0]: family[1] for family in families.items() if len(family[1]) and len(shape) == 3}
            parent = _nearest(_expert_path(unit.names), list(above), rate)
            if parent is None:
                continue
            slots = _slots(unit.names[-1], shape, above[parent], source.catalog)
            if slots is not None:
                ops = [{"stack": 0}] if len(slots) == 1 else [{"stack": 0}, {"concat": 1}]
                yield Composite(Pair(slots, ((key,),), parse_ops(ops)), 0.95, f"{shape[0]} experts of these shapes, by their words")


def _expert_path(names: Names) -> Names:
    return names[: names.index("experts")] if "experts" in names else names[:-1]


def _experts(rest: Rest) -> dict[Names, dict[str, dict[int, str]]]:
    """For each parent of experts, their tensors: by kind, then by number."""
    found: dict[Names, dict[str, dict[int, str]]] = defaultdict(lambda: defaultdict(dict))
    for key in rest.catalog:
        path = common_path(key)
        if key not in rest.keys or not (place := _EXPERT.search(path)):
            continue
        parent = tuple(path[: place.start()].removesuffix(".experts.").split("."))
        kind = path[place.end() + 1 :].split(".")[0]
        found[parent][kind][int(place[0])] = key
    return found


def _slots(
    name: str, shape: tuple[int, ...], kinds: Mapping[str, Mapping[int, str]], catalog: Catalog
) -> tuple[tuple[str, ...], ...] | None:
    """The keys to stack for a tensor of all experts: those of one kind, or of gate and up."""
    words = set(words_of(name)) | set(name.split("_"))
    wanted = ("gate", "up") if {"gate", "up"} <= words else tuple(word for word in ("down", "gate", "up") if word in words)[:1]
    if not wanted or any(kind not in kinds for kind in wanted):
        return None
    slots = tuple(tuple(kinds[kind][number] for number in sorted(kinds[kind])) for kind in wanted)
    rows = sum(catalog[slot[0]].shape[0] for slot in slots if catalog[slot[0]].shape)
    fits = all(len(slot) == shape[0] and all((catalog[key].shape or (0,))[1:] == shape[2:] for key in slot) for slot in slots)
    return slots if fits and rows == shape[1] else None


def _normalised(source: Rest, target: Rest, rate: Rate) -> Iterator[Composite]:
    """Weights that the source holds as a length and a direction."""
    ours = {unit.names: unit for unit in source.units}
    stems = [names[:-1] for names in ours if names[-1] == "weight_v" and (*names[:-1], "weight_g") in ours]
    for unit in target.units:
        key = target.left(unit).get("weight")
        if key is None:
            continue
        fitting = [stem for stem in stems if _shape(ours, stem, source.catalog) == target.catalog[key].shape]
        stem = _nearest(unit.names, fitting, rate)
        if stem is not None:
            g, v = (ours[(*stem, leaf)].keys["weight"] for leaf in ("weight_g", "weight_v"))
            if {g, v} <= source.keys:
                yield Composite(
                    Pair(((g,), (v,)), ((key,),), parse_ops({"weight_norm": 0})), 0.95, "a length and a direction make a weight"
                )


def _shape(units: Mapping[Names, Unit], stem: Names, catalog: Catalog) -> tuple[int, ...]:
    return catalog[units[(*stem, "weight_v")].keys["weight"]].shape
