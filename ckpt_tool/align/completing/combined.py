"""What one tensor holds that several hold on the other side: fused projections, stacked experts,
normalised weights.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

from ckpt_tool.align.completing.fused import Agreement, Composite, Unpaired, fused, nearest
from ckpt_tool.align.naming.modules import ModuleTensors, Names
from ckpt_tool.align.naming.vocabulary import common_path, words_of
from ckpt_tool.align.pairs import Pair
from ckpt_tool.ops import parse_ops
from ckpt_tool.tensors import Catalog

_EXPERT = re.compile(r"(?<=\.experts\.)[0-9]{1,9}(?=\.)")


def combined(source: Unpaired, target: Unpaired, agreement: Agreement) -> list[Composite]:
    def back(from_source: Names, from_target: Names) -> float:
        return agreement(from_target, from_source)

    found = [
        *fused(source, target, agreement, is_split=True),
        *fused(target, source, back, is_split=False),
    ]
    found += [
        *_stacked(source, target, back, is_split=False),
        *_stacked(target, source, agreement, is_split=True),
    ]
    return [*found, *_normalised(source, target, back)]


def _stacked(
    parts: Unpaired, whole: Unpaired, agreement: Agreement, is_split: bool
) -> Iterator[Composite]:
    """Tensors of all experts, with those of each: `rate` takes a path to the whole, then one to the
    parts.
    """
    families = _experts(parts)
    for module in whole.modules if families else ():
        for key in whole.left(module).values():
            shape = whole.catalog[key].shape
            parent = (
                nearest(_expert_path(module.names), list(families), agreement)
                if len(shape) == 3
                else None
            )
            slots = (
                _slots(module.names[-1], shape, families[parent], parts.catalog)
                if parent is not None
                else None
            )
            if slots is not None:
                evidence = f"{shape[0]} experts of these shapes, by their words"
                yield Composite(_stack(key, slots, is_split), 0.95, evidence)


def _stack(key: str, slots: tuple[tuple[str, ...], ...], is_split: bool) -> Pair:
    if is_split:
        return Pair(
            ((key,),),
            slots,
            parse_ops([{"unstack": 0}] if len(slots) == 1 else [{"unstack": 0}, {"split": 0}]),
        )
    return Pair(
        slots,
        ((key,),),
        parse_ops([{"stack": 0}] if len(slots) == 1 else [{"stack": 0}, {"concat": 1}]),
    )


def _expert_path(names: Names) -> Names:
    return names[: names.index("experts")] if "experts" in names else names[:-1]


def _experts(rest: Unpaired) -> dict[Names, dict[str, dict[int, str]]]:
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
    wanted = (
        ("gate", "up")
        if {"gate", "up"} <= words
        else tuple(word for word in ("down", "gate", "up") if word in words)[:1]
    )
    if not wanted or any(kind not in kinds for kind in wanted):
        return None
    slots = tuple(tuple(kinds[kind][number] for number in sorted(kinds[kind])) for kind in wanted)
    rows = sum(catalog[slot[0]].shape[0] for slot in slots if catalog[slot[0]].shape)
    fits = all(
        len(slot) == shape[0] and all((catalog[key].shape or (0,))[1:] == shape[2:] for key in slot)
        for slot in slots
    )
    return slots if fits and rows == shape[1] else None


def _normalised(source: Unpaired, target: Unpaired, agreement: Agreement) -> Iterator[Composite]:
    """Weights that the source holds as a length and a direction."""
    from_source = {module.names: module for module in source.modules}
    stems = [
        names[:-1]
        for names in from_source
        if names[-1] == "weight_v" and (*names[:-1], "weight_g") in from_source
    ]
    for module in target.modules:
        key = target.left(module).get("weight")
        if key is None:
            continue
        fitting = [
            stem
            for stem in stems
            if _shape(from_source, stem, source.catalog) == target.catalog[key].shape
        ]
        stem = nearest(module.names, fitting, agreement)
        if stem is not None:
            g, v = (from_source[(*stem, leaf)].keys["weight"] for leaf in ("weight_g", "weight_v"))
            if {g, v} <= source.keys:
                yield Composite(
                    Pair(((g,), (v,)), ((key,),), parse_ops({"weight_norm": 0})),
                    0.95,
                    "a length and a direction make a weight",
                )


def _shape(
    modules: Mapping[Names, ModuleTensors], stem: Names, catalog: Catalog
) -> tuple[int, ...]:
    return catalog[modules[(*stem, "weight_v")].keys["weight"]].shape
