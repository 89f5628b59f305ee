"""What names alone settle and what the evidence decides, before anything is completed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ckpt_tool.align.findings import Hint
from ckpt_tool.align.matching.choosing import Match
from ckpt_tool.align.matching.confidence import confidences
from ckpt_tool.align.matching.evidence import Evidence, gather_evidence
from ckpt_tool.align.matching.matching import Matches
from ckpt_tool.align.naming.modules import Candidate, Modules, ModuleTensors, modules_of
from ckpt_tool.align.naming.places import Places, without_shifted
from ckpt_tool.align.naming.same_names import Named, SameNames, same_names
from ckpt_tool.align.naming.vocabulary import numberless
from ckpt_tool.align.sides import Sides
from ckpt_tool.align.uncertain.blocks import Exchange
from ckpt_tool.align.uncertain.extra_layers import uncertain_layers
from ckpt_tool.align.uncertain.interchangeable import match_with_exchanges
from ckpt_tool.align.uncertain.twin_branches import uncertain_branches
from ckpt_tool.align.weights import WEIGHTS
from ckpt_tool.formats.key_order import is_sorted
from ckpt_tool.tensors import Catalog


@dataclass(frozen=True, slots=True)
class Doubtful:
    """Pairs of modules that nobody could know, each in one group."""

    layers: frozenset[Candidate]
    """In equal blocks of which one side has more."""
    branches: frozenset[Candidate]
    """In equal parts side by side."""
    exchangeable: frozenset[Candidate]
    """In equal blocks that could as well be exchanged."""

    @property
    def every(self) -> frozenset[Candidate]:
        """All of them."""
        return self.layers | self.branches | self.exchangeable


@dataclass(frozen=True, slots=True)
class Decided:
    """The modules of two catalogs, what names settle, and the pairs that the evidence decides."""

    catalogs: Sides[Catalog]
    modules: Modules
    named: Mapping[str, Named]
    """The keys that names alone pair, by target key."""
    places: Places
    evidence: Evidence
    matches: Matches
    doubtful: Doubtful
    sure: Sequence[Match]
    """The matches that aren't doubtful."""
    confidence: Mapping[Candidate, float]
    """How sure these are."""

    def pair(self, candidate: Candidate) -> Sides[ModuleTensors]:
        """The two modules."""
        return Sides(self.modules.source[candidate[0]], self.modules.target[candidate[1]])


def decide(catalogs: Sides[Catalog], hints: Sequence[Hint], are_names_settled: bool) -> Decided:
    """What names, hints and all evidence of modules say. Without `are_names_settled` equal names
    are evidence among others.

    Raises InputError where too many modules have the same shapes and names without numbers.
    """
    modules: Modules = catalogs.map(modules_of)
    same = same_names(*catalogs) if are_names_settled else SameNames({}, ())
    named = _unless_hinted(without_shifted(same.pairs, modules), hints)
    places = Places(catalogs if are_names_settled else Sides(Catalog(()), Catalog(())), same)
    fixed = _same_modules(modules, named)
    hinted = _hinted_modules(modules, hints)
    is_ordered = all(has_module_order(catalog) for catalog in catalogs)
    evidence = gather_evidence(modules, is_ordered, hinted, fixed, places)
    matches, exchanges = match_with_exchanges(evidence)
    layers = uncertain_layers(modules, matches.found, hinted) - fixed
    branches = uncertain_branches(modules, matches.found, hinted) - fixed - layers
    exchangeable = _exchangeable(exchanges, evidence, matches.found) - fixed - layers - branches
    doubtful = Doubtful(frozenset(layers), frozenset(branches), frozenset(exchangeable))
    sure = [match for match in matches.found if match.candidate not in doubtful.every]
    return Decided(
        catalogs=catalogs,
        modules=modules,
        named=named,
        places=places,
        evidence=evidence,
        matches=matches,
        doubtful=doubtful,
        sure=sure,
        confidence=confidences(modules, sure),
    )


def _unless_hinted(named: Mapping[str, Named], hints: Sequence[Hint]) -> dict[str, Named]:
    """The pairs by name without those of keys of which a hint says otherwise, in this block or in
    another one.
    """
    kinds = {(numberless(a), numberless(b)) for a, b in hints}
    source, target = {a for a, _ in kinds}, {b for _, b in kinds}
    found = {}
    for key, each in named.items():
        kind = (numberless(each.source), numberless(key))
        if kind in kinds or (kind[0] not in source and kind[1] not in target):
            found[key] = each
    return found


def _owners(modules: Sequence[ModuleTensors]) -> dict[str, int]:
    """For each key the place of its module."""
    return {key: module.place for module in modules for key in module.keys.values()}


def _hinted_modules(modules: Modules, hints: Sequence[Hint]) -> list[Candidate]:
    """The modules of each hint's keys."""
    source, target = modules.map(_owners)
    return [(source[a], target[b]) for a, b in hints if a in source and b in target]


def _same_modules(modules: Modules, named: Mapping[str, Named]) -> set[Candidate]:
    """The modules of which names alone say that they belong together."""
    owners = _owners(modules.source)
    met = {
        module.place: {owners[named[key].source] for key in module.keys.values() if key in named}
        for module in modules.target
    }
    counts = Counter(place for places in met.values() for place in places)
    single = {place: next(iter(places)) for place, places in met.items() if len(places) == 1}
    return {(source, place) for place, source in single.items() if counts[source] == 1}


def _exchangeable(
    exchanges: Sequence[Exchange], evidence: Evidence, found: Sequence[Match]
) -> set[Candidate]:
    """The pairs of blocks that could be exchanged, and of the branches that these are in, but for
    those that a hint tells apart.
    """
    open_ones = [(each, each.not_settled(evidence.hinted)) for each in exchanges]
    branches = {pair for each, left in open_ones if left for pair in each.branches()}
    source, target = evidence.modules
    return {candidate for _, left in open_ones for candidate in left} | {
        match.candidate
        for match in (found if branches else ())
        if any(
            here.has(source[match.source].names) and there.has(target[match.target].names)
            for here, there in branches
        )
    }


def has_module_order(catalog: Catalog) -> bool:
    """Whether the keys stand as modules do: not sorted, and those of one module side by side."""
    owners = [key.rpartition(".")[0] for key in catalog]
    starts = sum(owner != before for owner, before in zip(owners, ["\n", *owners], strict=False))
    most = WEIGHTS.module_order * len(set(owners)) + 2
    return catalog.is_ordered and not is_sorted(list(catalog)) and starts < most
