"""Every number by which names, shapes, order and neighbours are weighed against each other.

All were found by hand on those conversions of tests/proofs that aren't held out, one after the
other, and kept where no pair of these went wrong. `benchmarks/align.py` shows what a change does
to all of them, `benchmarks/weights.py NAME VALUE...` what a few values of one weight do. Limits
that only bound the time stand where they bound it.
"""

from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, slots=True)
class ConfidenceStep:
    """What a pair is given that leads by less than `margin`: `sure` with more support than this."""

    margin: float
    support: float
    sure: float
    otherwise: float


@dataclass(frozen=True, slots=True)
class Weights:
    """Scores add up from these; shares and confidences are between 0 and 1."""

    # How well the tensors of two modules go together: 1 where roles and shapes are the same.
    single_tensor: float = 0.4
    """Two single tensors of one shape under other roles: a `scale` may be another's `weight`."""
    reshaped: float = 0.7
    """Shapes that are the same but for their order and for ones."""
    missing_role: float = 0.15
    """Taken off for each role that only one of them has."""
    missing_bias: float = 0.1
    """Taken off for a bias that only one of them has: libraries differ in these."""
    least_similarity: float = 0.05
    """What is left of any two that can go together, however many roles are missing."""

    # How far the words of two modules agree.
    foreign_word: float = 0.2
    """A word that the other side doesn't know at all, as part of its specificity: it can't speak
    against a pair."""
    near_word: float = 2.0
    """A word of the last two names against one of the names above."""

    # How far the numbers in names agree: 1 where both stand at one place among as many.
    other_ordinal: float = 0.3
    """At most this at different places among as many of a kind."""
    same_outer_ordinal: float = 0.8
    """The modules around them stand at one place among as many of a kind."""
    other_outer_ordinal: float = 0.2
    """At most this where those stand at different places."""
    same_blocks: float = 0.85
    """As many numbers around their own agree, where only one of them has an own one."""
    other_blocks: float = 0.2
    """They don't agree."""
    contained_indices: float = 0.6
    """The numbers of one stand in those of the other, in order."""
    other_indices: float = 0.3
    """They don't."""
    no_indices: float = 0.5
    """Neither has numbers: that says nothing either way."""
    some_indices: float = 0.7
    """The share of numbers that agree counts this."""
    last_index: float = 0.1
    """Added where the last one agrees."""

    # The score of a pair of modules; the similarity of their tensors counts 1.
    words: float = 1.0
    """Words that agree: the measure of all others."""
    numbers: float = 0.6
    """Numbers that agree: less than words, because libraries count from other starts."""
    neighbours: float = 1.6
    """Modules around them are paired with each other: more than words, which lie more often."""
    order: float = 0.5
    """They stand on the best common path through both files, as far as no words decide."""
    structure: float = 0.6
    """The modules around them hold tensors of the same shapes."""
    nearly_all: float = 0.5
    """The share of a side's modules from which on a path holds too much to mean anything."""
    opposed_words: float = 0.7
    """Taken off where words exclude each other: `q` and `k`."""
    kinds: float = 0.8
    """Modules of the same names in other blocks are paired likewise."""
    hint_same_names: float = 3.0
    """A person paired modules of these names: more than all evidence of names."""
    hint_same_place: float = 1.0
    """A person paired modules beside them."""
    order_by_shapes: float = 0.5
    """Shapes alone, against words, in the search for the best common path."""
    several_paths: float = 0.5
    """Only some of the best common paths have the pair."""
    no_partner: float = 0.02
    """The specificity of a module that fits nothing."""

    # Which pairs are taken.
    specificities: tuple[float, ...] = (0.9, 0.45, 0.3, 0.15, 0.05, 0.0, 0.0)
    """From which specificity on pairs speak for their neighbours, round by round: shapes that few
    modules have come first."""
    margins: tuple[float, ...] = (0.5, 0.3, 0.2, 0.12, 0.06)
    """How far a pair must lead to be taken, the clearest pairs first."""
    leading: float = 0.12
    """How far a pair must lead to speak for the same names in other blocks."""
    near_best: float = 0.3
    """How far behind the best one a partner may be to count as possible."""
    least_evidence: float = 0.35
    """The evidence besides shapes that a pair needs."""

    # Pairs that have much less in common than the others of their files.
    strange_neighbours: float = 0.4
    """Below this agreement of neighbours a pair may lie elsewhere."""
    strange_structure: float = 0.45
    """Below this, what is around them is not alike."""
    better_namesake: float = 0.25
    """How much better names must agree with modules of other shapes to speak against a pair."""
    backed: float = 0.6
    """Words or neighbours that agree so far need nothing else."""
    usual_words: float = 0.5
    """The share of what words usually agree in these files that a pair must have."""

    # Equal blocks that could be exchanged.
    same_block: float = 0.8
    """The share of a block's modules that must be in one block of the other side."""
    exchange_loss: float = 0.25
    """What the exchange must lose, for a module, to be sure that two blocks stand right."""
    not_by_order: float = 0.05
    """What it must lose besides the order, for blocks that differ in more than a number."""
    elsewhere: float = 1.6
    """Modules of the same names in other blocks, where nothing is doubtful, are paired likewise."""
    advice: float = 1.0
    """Added to a pair that everything around its blocks speaks for, in the next try."""

    # Sequences that one side counts from its end, and blocks of which one side has more.
    same_run: float = 0.6
    """The share of tensors that two sequences of blocks have in common."""
    reversal: float = 0.05
    """How much better, for a block, the reversed order must fit."""
    same_series: float = 0.7
    """The share of its pairs with which a deeper place is still the partner."""
    whole_block: float = 4.0
    """Tensors in a block, on average, from which on it is more than a list of parts."""

    # How sure a pair is; docs/align.md has how often pairs were right.
    support_words: float = 0.5
    support_neighbours: float = 0.4
    support_order: float = 0.1
    """What words, neighbours and order count as support; they add up to 1."""
    confidence_steps: tuple[ConfidenceStep, ...] = (
        ConfidenceStep(0.2, 0.8, 0.95, 0.75),
        ConfidenceStep(0.35, 0.6, 0.97, 0.93),
        ConfidenceStep(inf, 0.4, 0.99, 0.95),
    )
    """The first step with a larger margin than the pair's holds, or the last one."""
    exchange_of_named: float = 0.3
    exchange_of_others: float = 0.4
    """Less than this lost by exchanging partners leaves a pair open; pairs whose words agree
    need less."""
    crossed: float = 0.1
    """What the names of two siblings must say more than if they were exchanged where the one
    side has them in the other order; and how much less they may say where it has them in one."""
    open_exchange: float = 0.75
    """The confidence of a pair that could be exchanged with another one of its block."""
    same_keys: float = 0.97
    """The least confidence of modules whose keys are all the same."""
    as_siblings: float = 0.93
    """The least confidence of a pair most of whose siblings in other blocks have it, in one
    order."""
    agreeing: float = 0.5
    """From here on words and neighbours are reported as agreeing, words in part."""
    agreeing_words: float = 0.8
    """From here on words are reported as agreeing."""
    agreeing_order: float = 0.9
    """From here on the order is."""
    sure: float = 0.9
    """From here on a pair speaks for what is left around it, and becomes a rule."""
    doubted: float = 0.5
    """At most this for what agrees, and is no plain copy all the same."""

    # Names that pair keys alone.
    same_name: float = 0.99
    same_unwrapped: float = 0.98
    same_but_separators: float = 0.98
    same_joined: float = 0.97
    """The confidence of equal names: as they are; without what wraps a tensor; with one kind of
    separator; without separators."""
    of_the_file: float = 0.5
    """The share of a side that one head must pair; else the next."""
    of_its_own: float = 0.9
    """The share of the keys with this head that it must pair."""
    rival: float = 0.3
    """The share of a head's pairs from which on another head makes it doubtful."""
    shared_names: float = 0.5
    """The share of a side's keys that must have the same name behind a head for that to mean
    anything of the others."""
    shared_shapes: float = 0.25
    """The share that must have the same shape too."""

    # What is left when modules are matched.
    last_leaf: float = 0.92
    """The confidence of single tensors that alone are left in modules that belong together."""
    continued: float = 0.93
    """That of members of a sequence whose others are paired likewise."""
    last_fit: float = 0.93
    """That of modules that nothing else fits."""
    other_width: float = 0.93
    """That of tensors that keep their shape in a network of another width."""
    combined: float = 0.95
    """That of fused projections, stacked experts and normalised weights, by their words."""
    outer_thirds: float = 0.93
    """That of a fused bias without the keys' part."""
    shared_end: float = 0.05
    """What each last name that two paths share adds to the agreement of what they contain."""
    least_agreement: float = 0.05
    """What the nearest path must agree at least."""
    nearest_lead: float = 0.03
    """How far it must lead."""
    most_left: float = 0.25
    """The share of modules that may be left for the last ones to mean anything."""
    last_similarity: float = 0.8
    """How well the tensors of the last ones must go together."""
    same_sizes: float = 0.3
    """Sizes that are the same, where sizes may differ."""
    width_agreement: float = 0.95
    """The share of pairs that must be found again without sizes."""
    width_evidence: float = 0.5
    """What words or neighbours must agree for a pair of other sizes."""
    straight: float = 0.9
    """The share of matrices that must have an equal one, for nothing to be transposed."""
    fewer_transposed: float = 0.67
    """The share of these that may have a transposed one."""
    module_order: float = 1.1
    """How often, for a module, another one may begin, where keys stand in the order of modules."""


WEIGHTS = Weights()
