"""What speaks for each pair of modules besides other pairs, computed once for two catalogs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ckpt_tool.align.matching.candidates import find_candidates
from ckpt_tool.align.matching.choosing import Scores
from ckpt_tool.align.matching.hints import Hints
from ckpt_tool.align.matching.neighbours import NeighbourAgreement, Specificity, specificity_of
from ckpt_tool.align.matching.reversed_order import reversed_order
from ckpt_tool.align.matching.sequence import on_common_path
from ckpt_tool.align.matching.shifts import Shifts
from ckpt_tool.align.matching.similarity import Structures, Words, number_agreement
from ckpt_tool.align.naming.modules import Candidate, Modules, ModuleTensors, roles_of
from ckpt_tool.align.naming.places import Places
from ckpt_tool.align.naming.vocabulary import are_opposed
from ckpt_tool.align.sides import Sides
from ckpt_tool.align.weights import WEIGHTS


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence for each pair of modules that may belong together."""

    modules: Modules
    """The target's with numbers as the source counts them."""
    is_ordered: bool
    """Whether both files stand in the order of their modules."""
    fixed: frozenset[Candidate]
    """The pairs that names alone settled."""
    hinted: frozenset[Candidate]
    """The pairs that a person's hint names, in any block."""
    undirected: frozenset[Candidate]
    """The pairs in sequences of unknown direction."""
    similarities: Scores
    """How well the tensors of each pair go together: these are all pairs there are."""
    shared_words: Words
    words: Scores
    """How far the words of each pair agree."""
    best_words: Sides[Mapping[int, float]]
    """For each module, how far its words agree with those of its best partner."""
    structures: Structures
    unordered: Scores
    """What speaks for each pair besides the order and other pairs."""
    path_scores: Scores
    """By what the best common path is searched."""
    order: Scores
    """How far each pair stands on the best common paths through both files."""
    specificity: Specificity
    namesakes: Namesakes

    def pair(self, candidate: Candidate) -> Sides[ModuleTensors]:
        """The two modules."""
        return Sides(self.modules.source[candidate[0]], self.modules.target[candidate[1]])

    def order_share(self, candidate: Candidate) -> float:
        """How much the order counts: words matter more."""
        i, j = candidate
        known = max(self.best_words.source.get(i, 0.0), self.best_words.target.get(j, 0.0))
        return 1.0 - known

    def is_alone(self, candidate: Candidate) -> bool:
        """Whether both modules have no other candidate."""
        i, j = candidate
        return self.specificity.source[i] == self.specificity.target[j] == 1

    def is_only(self, candidate: Candidate) -> bool:
        """Whether no other module has such shapes, on either side, and these are more than a
        length.
        """
        shapes = self.modules.source[candidate[0]].shapes
        return self.is_alone(candidate) and any(len(shape) > 1 for _, shape in shapes)

    def anchored(self) -> NeighbourAgreement:
        """What those pairs alone say that need no others: of shapes that no other module has, or
        settled by names.
        """
        pairs = [each for each in self.similarities if each in self.fixed or self.is_alone(each)]
        return NeighbourAgreement(self.modules, pairs, self.specificity)


def gather_evidence(
    modules: Modules,
    is_ordered: bool,
    hints: Sequence[Candidate] = (),
    fixed: Collection[Candidate] = (),
    places: Places | None = None,
) -> Evidence:
    """The evidence for pairs of these modules. `hints` are pairs that a person gave, `fixed` those
    that names settled.

    Raises InputError where too many modules have the same shapes and names without numbers.
    """
    target, undirected = reversed_order(*modules)
    backwards = _renumbered(modules.target, target)
    modules = Sides(modules.source, target)
    similarities = _similarities(modules, fixed, places, Shifts(modules, hints))
    shared_words, structures = Words(*modules), Structures(*modules)
    words = {(i, j): shared_words.of(modules.source[i], modules.target[j]) for i, j in similarities}
    hinted = _hinted(modules, similarities, hints)
    unordered = {
        (i, j): _by_itself(modules.source[i], modules.target[j], how, words[i, j], structures)
        + hinted.get((i, j), 0.0)
        for (i, j), how in similarities.items()
    }
    path_scores = {
        candidate: how * (WEIGHTS.order_by_shapes + words[candidate])
        for candidate, how in similarities.items()
    }
    order = on_common_path(modules, path_scores) if is_ordered else {}
    return Evidence(
        modules=modules,
        is_ordered=is_ordered,
        fixed=frozenset(fixed),
        hinted=frozenset(
            pair for pair, score in hinted.items() if score >= WEIGHTS.hint_same_names
        ),
        undirected=frozenset(undirected),
        similarities=similarities,
        shared_words=shared_words,
        words=words,
        best_words=_best_words(words),
        structures=structures,
        unordered=unordered,
        path_scores=path_scores,
        order={pair: how for pair, how in order.items() if pair[1] not in backwards},
        specificity=specificity_of(similarities, modules.map(len)),
        namesakes=Namesakes(modules, shared_words),
    )


def name_agreement(source: ModuleTensors, target: ModuleTensors, words: float) -> float:
    """What the names of two modules count, whose words agree so far."""
    return WEIGHTS.words * words + WEIGHTS.numbers * number_agreement(source, target)


class Namesakes:
    """How well the names of modules agree with those of modules of other shapes."""

    def __init__(self, modules: Modules, words: Words) -> None:
        self._modules, self._words = modules, words
        self._by_roles = modules.map(_by_roles)
        self._best: Sides[dict[int, float]] = Sides({}, {})

    def of_source(self, place: int) -> float:
        """The best agreement with a target module that has the same roles in other shapes."""
        if place not in self._best.source:
            module = self._modules.source[place]
            others = self._by_roles.target.get(roles_of(module), ())
            rated = (self._names(module, each) for each in others if each.shapes != module.shapes)
            self._best.source[place] = max(rated, default=0.0)
        return self._best.source[place]

    def of_target(self, place: int) -> float:
        """The same for a target module, among the source's."""
        if place not in self._best.target:
            module = self._modules.target[place]
            others = self._by_roles.source.get(roles_of(module), ())
            rated = (self._names(each, module) for each in others if each.shapes != module.shapes)
            self._best.target[place] = max(rated, default=0.0)
        return self._best.target[place]

    def _names(self, source: ModuleTensors, target: ModuleTensors) -> float:
        return name_agreement(source, target, self._words.of(source, target))


def _by_roles(modules: Sequence[ModuleTensors]) -> dict[object, list[ModuleTensors]]:
    found: dict[object, list[ModuleTensors]] = defaultdict(list)
    for module in modules:
        found[roles_of(module)].append(module)
    return found


def _renumbered(before: Sequence[ModuleTensors], after: Sequence[ModuleTensors]) -> set[int]:
    """The places of modules whose numbers were counted from the other end."""
    pairs = zip(before, after, strict=True)
    return {module.place for old, module in pairs if module.numbers != old.numbers}


def _similarities(
    modules: Modules, fixed: Collection[Candidate], places: Places | None, shifts: Shifts
) -> dict[Candidate, float]:
    """How well the tensors of modules go together, for those that names settled, and for each two
    that are free, not apart, and in blocks that hints don't tell apart.
    """
    taken = Sides({i for i, _ in fixed}, {j for _, j in fixed})
    found = find_candidates(
        [module for module in modules.source if module.place not in taken.source],
        [module for module in modules.target if module.place not in taken.target],
    )
    found = {
        (i, j): how
        for (i, j), how in found.items()
        if not shifts.contradict(modules.source[i], modules.target[j])
        and not (places and places.are_apart(modules.source[i], modules.target[j]))
    }
    return dict.fromkeys(sorted(fixed), 1.0) | found


def _hinted(
    modules: Modules, candidates: Collection[Candidate], hints: Sequence[Candidate]
) -> dict[Candidate, float]:
    """The pairs that hints speak for, with how much they do."""
    known = Hints(modules, hints)
    rated = (((i, j), known.of(modules.source[i], modules.target[j])) for i, j in candidates)
    return {candidate: score for candidate, score in rated if score > 0} if hints else {}


def _by_itself(
    source: ModuleTensors, target: ModuleTensors, how: float, words: float, structures: Structures
) -> float:
    """What speaks for a pair besides the order, hints and other pairs."""
    clash = WEIGHTS.opposed_words if are_opposed(source.words, target.words) else 0.0
    structure = WEIGHTS.structure * structures.of(source, target)
    return how + (name_agreement(source, target, words) + structure) - clash


def _best_words(words: Scores) -> Sides[Mapping[int, float]]:
    best: Sides[dict[int, float]] = Sides({}, {})
    for candidate, score in words.items():
        for side, place in zip(best, candidate, strict=True):
            side[place] = max(side.get(place, 0.0), score)
    return best
