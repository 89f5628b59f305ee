"""Modules paired with modules: the clearest first, each pair speaking for those around it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median_high

from ckpt_tool.align.matching.choosing import (
    Match,
    OpenPairs,
    Scores,
    best_first,
    leading,
)
from ckpt_tool.align.matching.evidence import Evidence, name_agreement
from ckpt_tool.align.matching.neighbours import Kinds, NeighbourAgreement
from ckpt_tool.align.matching.sequence import within_blocks
from ckpt_tool.align.matching.siblings import with_exchanges
from ckpt_tool.align.matching.similarity import number_agreement
from ckpt_tool.align.naming.modules import Candidate, ModuleTensors
from ckpt_tool.align.naming.paths import Names
from ckpt_tool.align.weights import WEIGHTS


@dataclass(frozen=True, slots=True)
class Matches:
    """What was decided, for each undecided module of the source the targets that it may be, and
    what the pairs say of paths.
    """

    found: tuple[Match, ...]
    open: Mapping[int, tuple[int, ...]]
    neighbours: NeighbourAgreement


def match(evidence: Evidence, advised: Collection[Candidate] = ()) -> Matches:
    """The pairs that are clear. `advised` ones get the better of others by what stands around.

    Round by round more pairs speak for their neighbours; how sure a pair is doesn't follow from
    what other blocks say: that may be the same guess again.
    """
    view = _View.first(evidence, advised)
    pairs: list[Candidate] = []
    for least in WEIGHTS.specificities:
        scores = view.scores()
        pairs = best_first(view.with_kinds(scores))
        view = view.after(pairs, scores, least)
    standards = _Standards(view, pairs)
    scores = view.scores()
    alone, _ = _chosen(standards, scores)
    found, possible = _chosen(standards, view.with_kinds(scores))
    margins = {each.candidate: each.margin for each in alone}
    matches = [replace(each, margin=margins.get(each.candidate, 0.0)) for each in found]
    exchanges = with_exchanges(matches, scores, evidence)
    return Matches(tuple(exchanges), possible, view.neighbours)


@dataclass(frozen=True, slots=True)
class _View:
    """What one round knows: the order within blocks, and what the pairs of the last round say."""

    evidence: Evidence
    advised: Collection[Candidate]
    order: Mapping[Candidate, float]
    neighbours: NeighbourAgreement
    kinds: Kinds

    @classmethod
    def first(cls, evidence: Evidence, advised: Collection[Candidate]) -> _View:
        nothing = NeighbourAgreement(evidence.modules, (), evidence.specificity)
        return cls(evidence, advised, evidence.order, nothing, Kinds(evidence.modules, ()))

    def after(self, pairs: Sequence[Candidate], scores: Scores, least: float) -> _View:
        """The next round: pairs of at least this specificity speak for their neighbours."""
        evidence, specificity = self.evidence, self.evidence.specificity
        supporting = [
            (i, j) for i, j in pairs if min(specificity.source[i], specificity.target[j]) >= least
        ]
        inside = (
            within_blocks(evidence.modules, pairs, evidence.path_scores)
            if evidence.is_ordered
            else {}
        )
        return replace(
            self,
            order={**self.order, **inside},
            neighbours=NeighbourAgreement(evidence.modules, supporting, specificity),
            kinds=Kinds(evidence.modules, leading(pairs, scores)),
        )

    def scores(self) -> dict[Candidate, float]:
        """What speaks for each pair, but for the same names in other blocks."""
        of, (source, target) = self.neighbours.of, self.evidence.modules
        return {
            (i, j): self._base((i, j), score)
            + WEIGHTS.neighbours * of(source[i].parent, target[j].parent)
            for (i, j), score in self.evidence.unordered.items()
        }

    def _base(self, candidate: Candidate, score: float) -> float:
        """What speaks for a pair besides other pairs: advice and the order too."""
        how = self.order.get(candidate, 0.0)
        advice = WEIGHTS.advice if candidate in self.advised else 0.0
        if not how and not advice:
            return score
        return score + advice + WEIGHTS.order * how * self.evidence.order_share(candidate)

    def with_kinds(self, scores: Scores) -> dict[Candidate, float]:
        """The scores with what the other blocks say."""
        kinds = self.kinds
        return {(i, j): score + WEIGHTS.kinds * kinds.of(i, j) for (i, j), score in scores.items()}


def _chosen(
    standards: _Standards, scores: Scores
) -> tuple[list[Match], dict[int, tuple[int, ...]]]:
    """The pairs that lead and have enough in common, the clearest first; and what is left open.

    The last two of modules that have a pair already belong together even if they have little in
    common.
    """
    open_pairs, modules = OpenPairs(scores), standards.evidence.modules
    siblings: Counter[tuple[Names, Names]] = Counter()
    found: list[Match] = []
    for margin in WEIGHTS.margins:
        while clear := open_pairs.clear(margin):
            for candidate, lead in clear:
                source, target = modules.source[candidate[0]], modules.target[candidate[1]]
                parents = (source.parent, target.parent)
                is_left = siblings[parents] > 0 and len(source.shapes) > 2
                if (is_left and open_pairs.is_last(candidate)) or standards.are_met(candidate):
                    found.append(standards.match(candidate, lead))
                    siblings[parents] += 1
                    open_pairs.take(candidate)
                else:
                    open_pairs.give_up(candidate)
    return found, open_pairs.possible()


class _Standards:
    """What a pair must have in common to be taken, by what the pairs of these files have."""

    def __init__(self, view: _View, pairs: Sequence[Candidate]) -> None:
        self.evidence = view.evidence
        self._order, self._neighbours = view.order, view.neighbours
        words = [self.evidence.words[pair] for pair in pairs]
        self._usual_words = median_high(words) if words else 0.0
        self._beside = (
            {(i + step, j + step) for i, j in pairs for step in (-1, 1)} if self._order else set()
        )

    def match(self, candidate: Candidate, lead: float) -> Match:
        """The pair with what speaks for it."""
        return Match(
            *candidate,
            lead,
            self.evidence.words[candidate],
            self._neighbours_of(candidate),
            self._order.get(candidate, 0.0),
            self.evidence.similarities[candidate],
        )

    def are_met(self, candidate: Candidate) -> bool:
        """Whether a pair has enough in common, or a person or its names settled it."""
        if candidate in self.evidence.hinted or candidate in self.evidence.fixed:
            return True
        if candidate in self.evidence.undirected:
            return False
        if self.evidence.is_only(candidate):
            return True
        words, neighbours = self.evidence.words[candidate], self._neighbours_of(candidate)
        most = max(words, neighbours, self._order.get(candidate, 0.0))
        return most >= WEIGHTS.least_evidence and not self._is_odd(candidate, words, neighbours)

    def _neighbours_of(self, candidate: Candidate) -> float:
        source, target = self.evidence.pair(candidate)
        return self._neighbours.of(source.parent, target.parent)

    def _is_odd(self, candidate: Candidate, words: float, neighbours: float) -> bool:
        """Whether a pair has much less in common than the others of these files."""
        source, target = self.evidence.pair(candidate)
        if (
            neighbours < WEIGHTS.strange_neighbours
            and words < 1
            and self._is_elsewhere(source, target)
        ):
            return True
        most = max(words, neighbours)
        if most < WEIGHTS.backed and self._have_better_namesakes(source, target):
            return True
        if self._is_in_order(candidate, source, target):
            return False
        return words < WEIGHTS.usual_words * self._usual_words and neighbours < WEIGHTS.backed

    def _is_elsewhere(self, source: ModuleTensors, target: ModuleTensors) -> bool:
        """Whether what is around two modules is not alike, and the source's has a like elsewhere,
        or their numbers differ.
        """
        structures, least = self.evidence.structures, WEIGHTS.strange_structure
        if structures.around(source, target) >= least:
            return False
        if structures.nearest(source) >= least:
            return True
        return _are_numbered(source, target) and number_agreement(source, target) < 1.0

    def _have_better_namesakes(self, source: ModuleTensors, target: ModuleTensors) -> bool:
        """Whether the names of two numbered modules agree better with modules of other shapes."""
        if not _are_numbered(source, target):
            return False
        names = name_agreement(source, target, self.evidence.shared_words.of(source, target))
        least, namesakes = names + WEIGHTS.better_namesake, self.evidence.namesakes
        return namesakes.of_source(source.place) > least < namesakes.of_target(target.place)

    def _is_in_order(
        self, candidate: Candidate, source: ModuleTensors, target: ModuleTensors
    ) -> bool:
        """Whether a pair is on every best common path, beside a pair or with all its numbers."""
        if self._order.get(candidate, 0.0) != 1.0:
            return False
        is_numbered = len(source.indices) > 1 and number_agreement(source, target) == 1.0
        return candidate in self._beside or is_numbered


def _are_numbered(source: ModuleTensors, target: ModuleTensors) -> bool:
    return bool(source.indices and target.indices)
