"""Fused projections: queries, keys and values as one tensor and as three, gate and up likewise; by
the words or letters of their names, as rows, or as columns where a weight is stored as (in, out).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import NamedTuple

from ckpt_tool.align.completing.nearest import Agreement, nearest_path
from ckpt_tool.align.completing.unpaired import Unpaired
from ckpt_tool.align.naming.modules import ModuleTensors
from ckpt_tool.align.naming.paths import Names
from ckpt_tool.align.naming.spellings import BIAS
from ckpt_tool.tensors import Catalog, Shape

_FUSED = {
    "qkv": ("q", "k", "v"),
    **{"".join(letters): letters for letters in permutations("qkv")},
    "kv": ("k", "v"),
    "gate_up": ("gate", "up"),
    "up_gate": ("up", "gate"),
}
_PARTS = frozenset(part for parts in _FUSED.values() for part in parts)
_OTHERS = frozenset(("o", "out", "project", "proj", "out_proj", "dense", "fc1", "fc2", "down"))
"""Names that mean another matrix of a block than q, k and v."""
_LETTERS = re.compile(rf"[a-z]*({'|'.join(map(''.join, permutations('qkv')))})[a-z]*")
"""A name that spells its parts by their first letters: `gqkv` is a gate, then q, k and v."""
_UNKNOWN_ORDER = re.compile(r"(^|\.)(query_key_value|wqkv)(?=\.|$)")
"""Names whose rows are interleaved by head, or by rotary pairs, in some libraries."""

Family = Sequence[ModuleTensors]
"""Modules side by side that one module of the other side may hold, in the order of its rows."""


def is_order_unknown(source: str, target: str) -> bool:
    """Whether one of two fused tensors has its rows in an order that its name does not show."""
    return bool(_UNKNOWN_ORDER.search(source)) != bool(_UNKNOWN_ORDER.search(target))


def _has_unknown_order(module: ModuleTensors, is_codegen: bool) -> bool:
    return any(
        _UNKNOWN_ORDER.search(key) or (is_codegen and ".qkv_proj." in key)
        for key in module.keys.values()
    )


def _is_codegen(catalog: Catalog) -> bool:
    """Whether a file has CodeGen's names, which cuts its rows into groups of q, v and k."""
    return any(".mlp.fc_in." in key for key in catalog)


AreTransposed = Callable[[], bool | None]
"""Whether matrices of one side are those of the other transposed; None where no shape tells."""


class Cut(NamedTuple):
    """How a tensor consists of others: along which of its dimensions, and whether each is then
    transposed.
    """

    dim: int
    is_transposed: bool = False


@dataclass(frozen=True, slots=True)
class Fused:
    """The key of a tensor, and the keys of those that it consists of, in this order."""

    key: str
    parts: tuple[str, ...]
    cut: Cut
    is_named: bool = True
    """Whether its name says what it holds."""


def fused(
    whole: Unpaired, parts: Unpaired, agreement: Agreement, are_transposed: AreTransposed
) -> Iterator[Fused]:
    """The tensors of `whole` that hold several of `parts`, rows below rows or beside each other.
    `agreement` takes a path of the whole's side, then one of the parts'.
    """
    families = _Families(parts.modules)
    at_home, is_codegen = _at_home(whole.modules), _is_codegen(whole.catalog)
    for module in whole.modules:
        left = whole.of(module)
        if not left or _has_unknown_order(module, is_codegen):
            continue
        is_named, known = families.are_named(module.names[-1]), families.of(module.names[-1])
        for role, key in left.items():
            if is_named or (module.parent, role) not in at_home:
                found = _fitting(
                    whole.catalog[key].shape,
                    _keys_of(known, role, parts),
                    parts.catalog,
                    are_transposed,
                )
                parent = nearest_path(module.parent, list(found), agreement)
                if parent is not None:
                    yield Fused(key, *found[parent], is_named)


def _at_home(modules: Sequence[ModuleTensors]) -> set[tuple[Names, str]]:
    """Where q, k and v have homes of their own: nothing beside them is all three unless its name
    says so.
    """
    return {
        (each.parent, role)
        for each in modules
        if each.names[-1] in _FUSED["qkv"]
        for role in each.keys
    }


def _keys_of(
    families: Mapping[Names, Family], role: str, parts: Unpaired
) -> Iterator[tuple[Names, tuple[str, ...]]]:
    """Each family all of whose members have this role left, by its parent."""
    for parent, family in families.items():
        keys = [parts.of(part).get(role) for part in family]
        found = tuple(key for key in keys if key is not None)
        if len(found) == len(keys):
            yield parent, found


def _fitting(
    shape: Shape,
    families: Iterator[tuple[Names, tuple[str, ...]]],
    parts: Catalog,
    are_transposed: AreTransposed,
) -> dict[Names, tuple[tuple[str, ...], Cut]]:
    """The families that a tensor of this shape may consist of, and how."""
    found = {}
    for parent, keys in families:
        cut = _cut(shape, [parts[each].shape for each in keys], are_transposed)
        if cut is not None:
            found[parent] = (keys, cut)
    return found


def _cut(shape: Shape, parts: Sequence[Shape], are_transposed: AreTransposed) -> Cut | None:
    """How a tensor consists of parts of these shapes; None where it doesn't, or where the other
    matrices contradict, or leave open whether square parts are transposed.

    >>> _cut((6, 4), [(2, 4)] * 3, lambda: None)
    Cut(dim=0, is_transposed=False)
    >>> _cut((4, 12), [(4, 4)] * 3, lambda: True)
    Cut(dim=1, is_transposed=True)
    """
    if _consists_of(shape, parts, 0):
        return Cut(0)
    if len(shape) != 2:
        return None
    plain = _consists_of(shape, parts, 1)
    transposed = _consists_of(shape[::-1], parts, 0)
    fitting = [Cut(1, each) for each, fits in ((False, plain), (True, transposed)) if fits]
    known = are_transposed() if fitting else None
    if known is None:
        return fitting[0] if len(fitting) == 1 else None
    return next((each for each in fitting if each.is_transposed is known), None)


def _consists_of(shape: Shape, parts: Sequence[Shape], dim: int) -> bool:
    """Whether parts of these shapes fill a shape along a dimension."""
    if len(shape) <= dim or any(len(each) != len(shape) for each in parts):
        return False
    others = [each[:dim] + each[dim + 1 :] for each in parts]
    is_filled = sum(each[dim] for each in parts) == shape[dim]
    return is_filled and all(each == shape[:dim] + shape[dim + 1 :] for each in others)


class _Families:
    """Modules side by side that one module of the other side may hold, by what it is called."""

    def __init__(self, modules: Sequence[ModuleTensors]) -> None:
        self._by_parent: dict[Names, dict[str, ModuleTensors]] = defaultdict(dict)
        for module in modules:
            self._by_parent[module.parent][module.names[-1]] = module
        self._named: dict[str, dict[Names, Family]] = defaultdict(dict)
        for parent, children in self._by_parent.items():
            for name, family in _families_in(children):
                self._named[name].setdefault(parent, family)

    def of(self, name: str) -> Mapping[Names, Family]:
        """The families that make a module of this name, by their parent; one whose name says
        nothing may be q, k and v.
        """
        found = self._named.get(name) or self._spelled(name)
        return found if found or name in _PARTS or name in _OTHERS else self._named.get("qkv", {})

    def are_named(self, name: str) -> bool:
        """Whether a name says what it holds."""
        return bool(self._named.get(name) or self._spelled(name))

    def _spelled(self, name: str) -> dict[Names, Family]:
        """The families whose members' first letters a name has, in its order."""
        word = next(filter(_is_spelling, name.split("_")), None)
        if word is None:
            return {}
        found: dict[Names, Family] = {}
        for parent, children in self._by_parent.items():
            family = [each for letter in word for each in _meant_by(letter, children)]
            if [each.names[-1][:1] for each in family] == list(word):
                found[parent] = family
        return found


def _families_in(children: Mapping[str, ModuleTensors]) -> Iterator[tuple[str, Family]]:
    """The families among modules side by side, under each name that the whole may have: q, k and v
    make `qkv`; q_conv and so on `conv` and `qkv_conv`.
    """
    for whole, words in _FUSED.items():
        for name in children:
            parts = name.split("_")
            names = [_with_word(parts, words[0], word) for word in words]
            if words[0] in parts and children.keys() >= {*names}:
                family = [children[each] for each in names]
                for text in _names_of_whole(whole, [part for part in parts if part != words[0]]):
                    yield text, family


def _names_of_whole(whole: str, rest: Sequence[str]) -> Sequence[str]:
    """What a family's whole may be called, by what its members' names have in common."""
    shared = "_".join(rest)
    return (shared, f"{whole}_{shared}") if shared else (whole,)


def _with_word(parts: Sequence[str], first: str, word: str) -> str:
    """A name with another word in the place of the first one: `k_conv` for `q_conv`."""
    return "_".join(word if part == first else part for part in parts)


def _is_spelling(word: str) -> bool:
    """Whether a word names more than three things by their letters."""
    return bool(_LETTERS.fullmatch(word)) and len(set(word)) == len(word) > 3


def _meant_by(letter: str, children: Mapping[str, ModuleTensors]) -> Iterator[ModuleTensors]:
    """The modules whose names begin with a letter."""
    for name, module in children.items():
        if name.startswith(letter):
            yield module


@dataclass(frozen=True, slots=True)
class OuterThirds:
    """The key of a fused bias whose middle third stands for nothing, and those of the other two."""

    key: str
    queries: str
    values: str


def biases_without_keys(
    whole: Unpaired, parts: Unpaired, agreement: Agreement
) -> Iterator[OuterThirds]:
    """The fused biases where queries and values have one and keys have none."""
    families = _biases_of_two(parts)
    for module in whole.modules:
        key = whole.of(module).get(BIAS) if module.names[-1] == "qkv" else None
        if key is None or _has_unknown_order(module, is_codegen=False):
            continue
        third = (whole.catalog[key].shape[0] / 3,)
        fitting = [
            parent
            for parent, keys in families.items()
            if all(parts.catalog[each].shape == third for each in keys)
        ]
        parent = nearest_path(module.parent, fitting, agreement)
        if parent is not None:
            yield OuterThirds(key, *families[parent])


def _biases_of_two(parts: Unpaired) -> dict[Names, tuple[str, str]]:
    """The biases of q and v that are left where k has none, by their parent."""
    biases: dict[Names, dict[str, str]] = defaultdict(dict)
    for part in parts.modules:
        if part.names[-1] in _FUSED["qkv"] and BIAS in part.keys:
            biases[part.parent][part.names[-1]] = part.keys[BIAS]
    return {
        parent: (found["q"], found["v"])
        for parent, found in biases.items()
        if found.keys() == {"q", "v"} and parts.keys.issuperset(found.values())
    }
