"""What one side still has open: the tensors that are in no pair yet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ckpt_tool.align.findings import Aligned
from ckpt_tool.align.naming.modules import Modules, ModuleTensors
from ckpt_tool.align.pairs import Slot
from ckpt_tool.align.sides import Sides
from ckpt_tool.tensors import Catalog


@dataclass(frozen=True, slots=True)
class Unpaired:
    """The keys of one side that are in no pair; those that are `kept` have a place of their own by
    name, though not by shape.
    """

    catalog: Catalog
    modules: Sequence[ModuleTensors]
    keys: frozenset[str]
    kept: frozenset[str] = frozenset()

    def of(self, module: ModuleTensors) -> dict[str, str]:
        """A module's keys that are in no pair, by role."""
        return {role: key for role, key in module.keys.items() if key in self.keys}

    def whole(self) -> set[int]:
        """The places of modules of which no tensor is in a pair."""
        return {each.place for each in self.modules if self.keys.issuperset(each.keys.values())}

    def movable(self) -> set[int]:
        """The places of those that also have no tensor with a place of its own."""
        keys = self.keys - self.kept
        return {each.place for each in self.modules if keys.issuperset(each.keys.values())}


def unpaired_after(
    pairs: Iterable[Aligned],
    catalogs: Sides[Catalog],
    modules: Modules,
    kept: Sides[frozenset[str]],
) -> Sides[Unpaired]:
    """What is open on both sides beside these pairs."""
    slots: Sides[set[Slot]] = Sides(set(), set())
    for each in pairs:
        slots.source.update(each.pair.sources)
        slots.target.update(each.pair.targets)
    source, target = (
        _without(catalogs.source, slots.source),
        _without(catalogs.target, slots.target),
    )
    return Sides(
        Unpaired(catalogs.source, modules.source, source, kept.source),
        Unpaired(catalogs.target, modules.target, target, kept.target),
    )


def _without(catalog: Catalog, slots: Iterable[Slot]) -> frozenset[str]:
    """The keys of a catalog that are in no slot."""
    return frozenset(catalog).difference(*slots)
