"""Fused projections: queries, keys and values as one tensor and as three, gate and up likewise; by
the words or letters of their names.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from ckpt_tool.align.naming.modules import ModuleTensors, Names
from ckpt_tool.align.naming.vocabulary import BIAS
from ckpt_tool.align.pairs import Pair
from ckpt_tool.ops import parse_ops
from ckpt_tool.tensors import Catalog

_FUSED = {
    "qkv": ("q", "k", "v"),
    "kv": ("k", "v"),
    "gate_up": ("gate", "up"),
    "up_gate": ("up", "gate"),
}
_PARTS = frozenset(part for parts in _FUSED.values() for part in parts)
_OTHERS = frozenset(("o", "out", "project", "proj", "out_proj", "dense", "fc1", "fc2", "down"))
"""Names that mean another matrix of a block than q, k and v."""
_LETTERS = re.compile(r"[a-z]*(qkv|kqv|vkq)[a-z]*")
"""A name that spells its parts by their first letters: `gqkv` is a gate, then q, k and v."""
_UNKNOWN_ORDER = re.compile(r"(^|\.)(query_key_value|wqkv)(?=\.|$)")
"""Names whose rows are interleaved by head, or by rotary pairs, in some libraries."""


def is_order_unknown(source: str, target: str) -> bool:
    """Whether one of two fused tensors has its rows in an order that its name doesn't tell."""
    return bool(_UNKNOWN_ORDER.search(source)) != bool(_UNKNOWN_ORDER.search(target))


Agreement = Callable[[Names, Names], float]
"""How far two paths contain the same."""
Family = Sequence[ModuleTensors]


@dataclass(frozen=True, slots=True)
class Composite:
    """A pair of several tensors with one, or of one with several, and what speaks for it."""

    pair: Pair
    confidence: float
    evidence: str


@dataclass(frozen=True, slots=True)
class Unpaired:
    """What is not paired yet, of one side."""

    catalog: Catalog
    keys: frozenset[str]
    modules: Sequence[ModuleTensors]

    def left(self, module: ModuleTensors) -> dict[str, str]:
        return {role: key for role, key in module.keys.items() if key in self.keys}


def fused(
    whole: Unpaired, parts: Unpaired, agreement: Agreement, is_split: bool
) -> Iterator[Composite]:
    families = _Families(parts.modules)
    # Where q, k and v have homes of their own, nothing beside them is all three unless its name
    # says so.
    at_home = {
        (each.parent, role)
        for each in whole.modules
        if each.names[-1] in _FUSED["qkv"]
        for role in each.keys
    }
    for module in whole.modules:
        left = whole.left(module)
        if not left or any(_UNKNOWN_ORDER.search(key) for key in module.keys.values()):
            continue
        known = families.of(module.names[-1])
        for role, key in left.items():
            keys = {
                parent: [parts.left(part).get(role) for part in family]
                for parent, family in known.items()
            }
            fitting = [
                parent for parent in keys if _makes(whole.catalog, key, keys[parent], parts.catalog)
            ]
            parent = nearest(module.parent, fitting, agreement)
            if parent is not None and (
                families.are_told(module.names[-1]) or (module.parent, role) not in at_home
            ):
                yield _fusion(
                    key, [part.keys[role] for part in known[parent]], parts.catalog, is_split
                )
        if is_split and BIAS in left and module.names[-1] == "qkv":
            yield from _without_keys(left[BIAS], module, whole, parts, agreement)


class _Families:
    """Modules side by side that one module of the other side may hold, by what it is called."""

    def __init__(self, modules: Sequence[ModuleTensors]) -> None:
        self._by_parent: dict[Names, dict[str, ModuleTensors]] = defaultdict(dict)
        for module in modules:
            self._by_parent[module.parent][module.names[-1]] = module
        self._named = self._found()

    def of(self, name: str) -> Mapping[Names, Family]:
        """The families that make a module of this name, by their parent; one whose name says
        nothing may be q, k and v.
        """
        found = self._named.get(name) or self._spelled(name)
        return found if found or name in _PARTS or name in _OTHERS else self._named.get("qkv", {})

    def are_told(self, name: str) -> bool:
        """Whether a name says what it holds."""
        return bool(self._named.get(name) or self._spelled(name))

    def _found(self) -> dict[str, dict[Names, Family]]:
        """q, k and v make `qkv`; q_conv and so on `conv` and `qkv_conv`."""
        found: dict[str, dict[Names, Family]] = defaultdict(dict)
        for parent, children in self._by_parent.items():
            for whole, words in _FUSED.items():
                for name in [name for name in children if words[0] in name.split("_")]:
                    names = [
                        "_".join(word if each == words[0] else each for each in name.split("_"))
                        for word in words
                    ]
                    rest = "_".join(each for each in name.split("_") if each != words[0])
                    for text in (
                        ((rest, f"{whole}_{rest}") if rest else (whole,))
                        if all(each in children for each in names)
                        else ()
                    ):
                        found[text].setdefault(parent, [children[each] for each in names])
        return found

    def _spelled(self, name: str) -> dict[Names, Family]:
        word = next(
            (
                word
                for word in name.split("_")
                if _LETTERS.fullmatch(word) and len(set(word)) == len(word) > 3
            ),
            "",
        )
        found: dict[Names, Family] = {}
        for parent, children in self._by_parent.items() if word else ():
            meant = [
                [
                    module
                    for name, module in children.items()
                    if name == letter or name.split("_")[0].startswith(letter)
                ]
                for letter in word
            ]
            if all(len(modules) == 1 for modules in meant):
                found[parent] = [modules[0] for modules in meant]
        return found


def _makes(catalog: Catalog, key: str, parts: Sequence[str | None], others: Catalog) -> bool:
    """Whether the parts have the fused tensor's rows."""
    shapes = [others[part].shape for part in parts if part is not None]
    whole = catalog[key].shape
    if len(shapes) < len(parts) or not all(len(shape) == len(whole) and shape for shape in shapes):
        return False
    return sum(shape[0] for shape in shapes) == whole[0] and all(
        shape[1:] == whole[1:] for shape in shapes
    )


def _fusion(key: str, parts: Sequence[str], catalog: Catalog, is_split: bool) -> Composite:
    sizes = [catalog[part].shape[0] for part in parts]
    slots = tuple((part,) for part in parts)
    evidence = "the rows of one make the rows of the others, in the order of the name"
    if is_split:
        split: object = 0 if len(set(sizes)) == 1 else {"dim": 0, "sizes": sizes}
        return Composite(Pair(((key,),), slots, parse_ops({"split": split})), 0.95, evidence)
    return Composite(Pair(slots, ((key,),), parse_ops({"concat": 0})), 0.95, evidence)


def _without_keys(
    key: str, module: ModuleTensors, whole: Unpaired, parts: Unpaired, agreement: Agreement
) -> Iterator[Composite]:
    """The first and the last third of a bias, where queries and values have one and keys have none."""
    modules: dict[Names, dict[str, ModuleTensors]] = defaultdict(dict)
    for part in parts.modules:
        if part.names[-1] in ("q", "k", "v") and BIAS in part.keys:
            modules[part.parent][part.names[-1]] = part
    size = whole.catalog[key].shape[0]
    fitting = [
        parent
        for parent, found in modules.items()
        if found.keys() == {"q", "v"} and _are_thirds(found.values(), parts, size)
    ]
    parent = nearest(module.parent, fitting, agreement)
    if parent is not None:
        targets = tuple((modules[parent][name].keys[BIAS],) for name in ("q", "v"))
        yield Composite(
            Pair(((key,),), targets, parse_ops(_OUTER_THIRDS)),
            0.93,
            "the first and the last third of the rows; keys have no bias",
        )


_OUTER_THIRDS: list[object] = [
    {"rearrange": "(p n) -> p n", "p": 3},
    {"slice": {"dim": 0, "start": 0, "step": 2}},
    {"rearrange": "p n -> (p n)"},
    {"split": 0},
]


def _are_thirds(modules: Iterable[ModuleTensors], parts: Unpaired, size: int) -> bool:
    return all(
        (key := parts.left(module).get(BIAS)) is not None
        and parts.catalog[key].shape == (size / 3,)
        for module in modules
    )


def nearest(path: Names, others: Sequence[Names], agreement: Agreement) -> Names | None:
    """The path that clearly agrees best with this one."""
    rated = sorted(
        ((agreement(path, other) + 0.05 * _shared_end(path, other), other) for other in others),
        reverse=True,
    )
    if not rated or rated[0][0] < 0.05 or (len(rated) > 1 and rated[0][0] - rated[1][0] < 0.03):
        return None
    return rated[0][1]


def _shared_end(a: Names, b: Names) -> int:
    pairs = zip(reversed(a), reversed(b), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
