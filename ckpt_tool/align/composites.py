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

_FUSED = {"qkv": ("q", "k", "v"), "kv": ("k", "v"), "gate_up": ("gate", "up"), "up_gate": ("up", "gate")}
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
    found += [*_stacked(source, target, back, is_split=False), *_stacked(target, source, rate, is_split=True)]
    return [*found, *_normalised(source, target, back)]


def _fused(whole: Rest, parts: Rest, rate: Rate, is_split: bool) -> Iterator[Composite]:
    families = _families(parts.units)
    for unit in whole.units:
        known = families.get(unit.names[-1], {})
        if not known or any(_UNKNOWN_ORDER.search(key) for key in unit.keys.values()):
            continue
        for role, key in whole.left(unit).items():
            keys = {parent: [parts.left(part).get(role) for part in family] for parent, family in known.items()}
            fitting = [parent for parent in keys if _makes(whole.catalog, key, keys[parent], parts.catalog)]
            parent = _nearest(unit.parent, fitting, rate)
            if parent is not None:
                yield _fusion(key, [part.keys[role] for part in known[parent]], parts.catalog, is_split)


def _families(units: Sequence[Unit]) -> dict[str, dict[Names, list[Unit]]]:
    """For each name of a whole the modules that would make it, by their parent: q, k and v make `qkv`; q_conv and so on `conv`."""
    by_parent: dict[Names, dict[str, Unit]] = defaultdict(dict)
    for unit in units:
        by_parent[unit.parent][unit.names[-1]] = unit
    found: dict[str, dict[Names, list[Unit]]] = defaultdict(dict)
    for parent, children in by_parent.items():
        for whole, words in _FUSED.items():
            for name in [name for name in children if words[0] in name.split("_")]:
                names = ["_".join(word if each == words[0] else each for each in name.split("_")) for word in words]
                if all(each in children for each in names):
                    rest = "_".join(each for each in name.split("_") if each != words[0])
                    family = [children[each] for each in names]
                    found |= {text: {parent: family, **found[text]} for text in ((rest, f"{whole}_{rest}") if rest else (whole,))}
    return found


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


def _stacked(parts: Rest, whole: Rest, rate: Rate, is_split: bool) -> Iterator[Composite]:
    """Tensors of all experts, with those of each: `rate` takes a path to the whole, then one to the parts."""
    families = _experts(parts)
    for unit in whole.units if families else ():
        for key in whole.left(unit).values():
            shape = whole.catalog[key].shape
            parent = _nearest(_expert_path(unit.names), list(families), rate) if len(shape) == 3 else None
            slots = _slots(unit.names[-1], shape, families[parent], parts.catalog) if parent is not None else None
            if slots is not None:
                evidence = f"{shape[0]} experts of these shapes, by their words"
                yield Composite(_stack(key, slots, is_split), 0.95, evidence)


def _stack(key: str, slots: tuple[tuple[str, ...], ...], is_split: bool) -> Pair:
    if is_split:
        return Pair(((key,),), slots, parse_ops([{"unstack": 0}] if len(slots) == 1 else [{"unstack": 0}, {"split": 0}]))
    return Pair(slots, ((key,),), parse_ops([{"stack": 0}] if len(slots) == 1 else [{"stack": 0}, {"concat": 1}]))


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
