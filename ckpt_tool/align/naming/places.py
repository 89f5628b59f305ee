"""What names that are the same say of those that are not: a name that both sides have keeps its
place, whatever its shape.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from ckpt_tool.align.naming.modules import Modules, ModuleTensors
from ckpt_tool.align.naming.orientation import are_opposite, are_straight, shapes_both_ways
from ckpt_tool.align.naming.paths import Names, paths_above
from ckpt_tool.align.naming.same_names import Heads, KeyPair, Named, SameNames
from ckpt_tool.align.naming.shapes import ModuleShape, plain
from ckpt_tool.align.naming.vocabulary import stem_and_number
from ckpt_tool.align.sides import Sides
from ckpt_tool.align.weights import WEIGHTS
from ckpt_tool.tensors import Catalog, Shape


class Places:
    """Which keys have their place by name though not by shape, and which modules lie outside of
    what names cover.
    """

    def __init__(self, catalogs: Sides[Catalog], same: SameNames) -> None:
        known = _covering_heads(catalogs, same.heads)
        pairs = dict.fromkeys(pair for pairs in known.values() for pair in pairs)
        self.shape_mismatches = _unlike(pairs, catalogs, same)
        """Keys that have one place on both sides, and other shapes."""
        self.kept = Sides(
            frozenset(origin for origin, _ in self.shape_mismatches),
            frozenset(key for _, key in self.shape_mismatches),
        )
        """The keys of these, for each side."""
        self._are_straight = are_straight(*catalogs)
        self._both_ways = shapes_both_ways(*catalogs) if are_opposite(*catalogs) else frozenset()
        self._shared = _shared_paths(catalogs, same)
        self._covers = [heads for heads in known if any(heads) and not all(heads)]

    def are_apart(self, source: ModuleTensors, target: ModuleTensors) -> bool:
        """Whether one of two modules has a place of its own, would have to be transposed where
        nothing is, or need not where everything is, or lies outside.

        Outside is what isn't in the part that is the whole other side.
        What ends a stage here may begin the next one there.
        """
        if self._are_straight and _is_transposed(source, target):
            return True
        if self._both_ways and _shares_any(source, target, self._both_ways):
            return True
        if not self._say_something() or _is_next(source.names, target.names):
            return False
        return (
            self._is_moved(source.names, target.names)
            or self._is_kept(source, target)
            or any(_is_outside(source, target, heads) for heads in self._covers)
        )

    def _say_something(self) -> bool:
        return bool(self.shape_mismatches or self._covers or self._shared)

    def _is_moved(self, source: Names, target: Names) -> bool:
        """Whether a module would leave a part that both sides have under one name, or come into
        one.
        """
        for depth, (name, other) in enumerate(zip(source, target, strict=False), 1):
            if name != other:
                return source[:depth] in self._shared or target[:depth] in self._shared
        return False

    def _is_kept(self, source: ModuleTensors, target: ModuleTensors) -> bool:
        """Whether one of two modules has a tensor that keeps its place."""
        return not (
            self.kept.source.isdisjoint(source.keys.values())
            and self.kept.target.isdisjoint(target.keys.values())
        )


def _covering_heads(catalogs: Sides[Catalog], heads: Sequence[Heads]) -> dict[Heads, list[KeyPair]]:
    """The heads behind which enough of one side has equal names, with all keys whose names are."""
    least = min(map(len, catalogs))
    found = {}
    for each in dict.fromkeys([("", ""), *heads]):
        pairs = _pairs_behind(each, catalogs)
        equal = sum(catalogs.source[a].shape == catalogs.target[b].shape for a, b in pairs)
        is_much = len(pairs) >= WEIGHTS.shared_names * least
        if pairs and is_much and equal >= WEIGHTS.shared_shapes * least:
            found[each] = pairs
    return found


def _pairs_behind(heads: Heads, catalogs: Sides[Catalog]) -> list[KeyPair]:
    """The keys that have equal names behind two heads."""
    from_source, from_target = heads
    found = []
    for key in catalogs.target:
        origin = f"{from_source}{key.removeprefix(from_target)}"
        if key.startswith(from_target) and origin in catalogs.source:
            found.append((origin, key))
    return found


def _unlike(
    pairs: Mapping[KeyPair, None], catalogs: Sides[Catalog], same: SameNames
) -> list[KeyPair]:
    """Those pairs of keys that nothing has paired, and that no layout makes one tensor."""
    taken = {each.source for each in same.pairs.values()}
    return [
        (origin, key)
        for origin, key in pairs
        if origin not in taken
        and key not in same.pairs
        and plain(catalogs.source[origin].shape) != plain(catalogs.target[key].shape)
    ]


def _shared_paths(catalogs: Sides[Catalog], same: SameNames) -> set[Names]:
    """The paths of modules that hold something under one name on both sides; none where that is
    little of a side.
    """
    unmoved = [key for key, each in same.pairs.items() if key == each.source]
    if len(unmoved) < WEIGHTS.shared_names * min(map(len, catalogs)):
        return set()
    return {path for key in unmoved for path in paths_above(tuple(key.split(".")))}


def _is_transposed(source: ModuleTensors, target: ModuleTensors) -> bool:
    """Whether a matrix of one module would have to be transposed for the other."""
    if source.shapes == target.shapes:
        return False
    others = dict(target.shapes)
    shared = [(shape, others[role]) for role, shape in source.shapes if role in others]
    return any(len(a) == len(b) == 2 and a != b and a == b[::-1] for a, b in shared)


def _shares_any(source: ModuleTensors, target: ModuleTensors, shapes: Container[Shape]) -> bool:
    """Whether two modules have a tensor of one role and of one of these shapes."""
    others = dict(target.shapes)
    return any(shape in shapes and others.get(role) == shape for role, shape in source.shapes)


def _is_outside(source: ModuleTensors, target: ModuleTensors, heads: Heads) -> bool:
    """Whether a module isn't in the part that is the whole other side, and is called otherwise
    than its partner.
    """
    outer, head = (source, heads[0]) if heads[0] else (target, heads[1])
    if any(key.startswith(head) for key in outer.keys.values()):
        return False
    names, others = set(source.names), set(target.names)
    return not (names <= others or others <= names)


def _is_next(source: Names, target: Names) -> bool:
    """Whether two modules have the same name in neighbours of one sequence."""
    differing = [pair for pair in zip(source[:-1], target[:-1], strict=False) if pair[0] != pair[1]]
    if len(source) != len(target) or source[-1] != target[-1] or len(differing) != 1:
        return False
    a, b = (stem_and_number(name) for name in differing[0])
    return a is not None and b is not None and a[0] == b[0] and abs(a[1] - b[1]) == 1


def without_shifted(named: Mapping[str, Named], modules: Modules) -> dict[str, Named]:
    """The pairs by name but for members of a sequence that may be other ones: `layers.0` to `2`
    became `in`, `layers.0` and `out`.
    """
    taken = {each.source for each in named.values()}
    source, target = _OpenSequences(modules.source, taken), _OpenSequences(modules.target, named)
    return {
        key: each
        for key, each in named.items()
        if not (source.has_in_sequence(each.source) and target.has_beside(key))
    }


class _OpenSequences:
    """The modules of one side that are not paired yet, by their shapes and what they stand in."""

    def __init__(self, modules: Sequence[ModuleTensors], paired: Container[str]) -> None:
        self._shapes = {key: module.shapes for module in modules for key in module.keys.values()}
        self._in: set[tuple[str, ModuleShape]] = set()
        self._beside: set[tuple[str, ModuleShape]] = set()
        for module in modules:
            if not any(key in paired for key in module.keys.values()):
                above, name = _above_and_name(next(iter(module.keys.values())))
                known = self._in if name.isdigit() else self._beside
                known.add((above, module.shapes))

    def has_in_sequence(self, key: str) -> bool:
        """Whether an equal module is free in the sequence that a key's module is a member of."""
        sequence, number = _above_and_name(key)
        return number.isdigit() and (sequence, self._shapes[key]) in self._in

    def has_beside(self, key: str) -> bool:
        """Whether an equal module is free beside the sequence of a key's module."""
        sequence, number = _above_and_name(key)
        around = sequence.rpartition(".")[0]
        return number.isdigit() and (around, self._shapes[key]) in self._beside


def _above_and_name(key: str) -> tuple[str, str]:
    """The path above a key's module, and the module's own name."""
    above, _, name = key.rpartition(".")[0].rpartition(".")
    return above, name
