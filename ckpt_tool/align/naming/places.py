"""What names that are the same say of those that are not: a name that both sides have keeps its
place, whatever its shape.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence

from ckpt_tool.align.completing.layouts import are_straight
from ckpt_tool.align.naming.modules import ModuleShape, ModuleTensors, Names, plain
from ckpt_tool.align.naming.same_names import Heads, Named, SameNames
from ckpt_tool.align.naming.vocabulary import stem_and_number
from ckpt_tool.tensors import Catalog, Shape

MAX_OF_A_FILE = 0.5
"""The share of a side's keys that must have the same name behind a head for that to say anything of
the others.
"""
EQUAL = 0.25
"""The share that must have the same shape too."""


class Places:
    """Which keys have their place by name though not by shape, and which modules lie outside of
    what names cover.
    """

    def __init__(self, source: Catalog, target: Catalog, same: SameNames) -> None:
        least = min(len(source), len(target))
        known: dict[Heads, list[tuple[str, str]]] = {}
        for heads in dict.fromkeys([("", ""), *same.heads]):
            moved = (
                (f"{heads[0]}{key.removeprefix(heads[1])}", key)
                for key in target
                if key.startswith(heads[1])
            )
            pairs = [(origin, key) for origin, key in moved if origin in source]
            equal = sum(source[a].shape == target[b].shape for a, b in pairs)
            if pairs and len(pairs) >= MAX_OF_A_FILE * least and equal >= EQUAL * least:
                known[heads] = pairs
        taken = {each.source for each in same.pairs.values()}
        open_pairs = [
            (a, b)
            for pairs in known.values()
            for a, b in pairs
            if a not in taken and b not in same.pairs
        ]
        self.shape_mismatches = [
            (a, b)
            for a, b in dict.fromkeys(open_pairs)
            if plain(source[a].shape) != plain(target[b].shape)
        ]
        self.kept = (
            frozenset(a for a, _ in self.shape_mismatches),
            frozenset(b for _, b in self.shape_mismatches),
        )
        self._are_straight = are_straight(source, target)
        unmoved = [
            key
            for key in target
            if key in source and key in same.pairs and same.pairs[key].source == key
        ]
        self._shared = (
            {path for key in unmoved for path in _above(key)}
            if len(unmoved) >= MAX_OF_A_FILE * least
            else set()
        )
        self._covers = [heads for heads in known if any(heads) and not all(heads)]

    def are_apart(self, source: ModuleTensors, target: ModuleTensors) -> bool:
        """Whether one of two modules has a place of its own, would have to be transposed where
        nothing is, or lies outside.

        Outside is what isn't in the part that is the whole other side.
        What ends a stage here may begin the next one there.
        """
        if (
            self._are_straight
            and source.shapes != target.shapes
            and _is_transposed(dict(source.shapes), dict(target.shapes))
        ):
            return True
        if not (self.shape_mismatches or self._covers or self._shared) or _is_next(
            source.names, target.names
        ):
            return False
        if self._shared and self._is_moved(source.names, target.names):
            return True
        if any(key in self.kept[0] for key in source.keys.values()) or any(
            key in self.kept[1] for key in target.keys.values()
        ):
            return True
        for heads in self._covers:
            outer, head = (source, heads[0]) if heads[0] else (target, heads[1])
            is_outside = not any(key.startswith(head) for key in outer.keys.values())
            if is_outside and not (
                set(source.names) <= set(target.names) or set(target.names) <= set(source.names)
            ):
                return True
        return False

    def _is_moved(self, source: Names, target: Names) -> bool:
        """Whether a module would leave a part that both sides have under one name, or come into
        one.
        """
        depth = next(
            (at for at, pair in enumerate(zip(source, target, strict=False)) if pair[0] != pair[1]),
            None,
        )
        return depth is not None and (
            source[: depth + 1] in self._shared or target[: depth + 1] in self._shared
        )


def _above(key: str) -> Iterator[Names]:
    """The paths of the modules that a key is in."""
    names = tuple(key.split(".")[:-1])
    return (names[: depth + 1] for depth in range(len(names)))


def _is_transposed(source: Mapping[str, Shape], target: Mapping[str, Shape]) -> bool:
    """Whether a matrix of one module would have to be transposed for the other."""
    shared = [(source[role], target[role]) for role in source.keys() & target.keys()]
    return any(len(a) == len(b) == 2 and a != b and a == b[::-1] for a, b in shared)


def _is_next(source: Names, target: Names) -> bool:
    """Whether two modules have the same name in neighbours of one sequence."""
    differing = [pair for pair in zip(source[:-1], target[:-1], strict=False) if pair[0] != pair[1]]
    if len(source) != len(target) or source[-1] != target[-1] or len(differing) != 1:
        return False
    a, b = (stem_and_number(name) for name in differing[0])
    return a is not None and b is not None and a[0] == b[0] and abs(a[1] - b[1]) == 1


def without_shifted(
    named: Mapping[str, Named], modules: tuple[Sequence[ModuleTensors], Sequence[ModuleTensors]]
) -> dict[str, Named]:
    """The pairs by name but for members of a sequence that may be other ones: `layers.0` to `2`
    became `in`, `layers.0` and `out`.
    """
    taken = {each.source for each in named.values()}
    source, target = _Sequences(modules[0], taken), _Sequences(modules[1], named)
    shifted = {
        key
        for key, each in named.items()
        if source.may_be_another(each.source) and target.may_be_another(key, is_beside=True)
    }
    return {key: each for key, each in named.items() if key not in shifted}


class _Sequences:
    """The modules of one side that are not paired yet, by their shapes and by what they stand in."""

    def __init__(self, modules: Sequence[ModuleTensors], paired: Container[str]) -> None:
        self._shapes = {key: module.shapes for module in modules for key in module.keys.values()}
        self._in: dict[tuple[str, ModuleShape], int] = defaultdict(int)
        self._beside: dict[tuple[str, ModuleShape], int] = defaultdict(int)
        for module in modules:
            if not any(key in paired for key in module.keys.values()):
                path = next(iter(module.keys.values())).rpartition(".")[0]
                above, _, name = path.rpartition(".")
                (self._in if name.isdigit() else self._beside)[above, module.shapes] += 1

    def may_be_another(self, key: str, is_beside: bool = False) -> bool:
        """Whether an equal module is free in a member's sequence, or beside its sequence."""
        sequence, _, number = key.rpartition(".")[0].rpartition(".")
        around = sequence.rpartition(".")[0]
        if not number.isdigit():
            return False
        return bool(
            self._beside.get((around, self._shapes[key]))
            if is_beside
            else self._in.get((sequence, self._shapes[key]))
        )
