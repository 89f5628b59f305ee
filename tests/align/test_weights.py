"""What each weight decides, in small examples that turn out otherwise when it moves."""

from dataclasses import fields

import pytest
from catalogs import module, modules, sides
from literals import catalog

from ckpt_tool.align import MIN_CONFIDENCE, align
from ckpt_tool.align.matching.choosing import Match
from ckpt_tool.align.matching.confidence import confidence_of
from ckpt_tool.align.matching.evidence import gather_evidence
from ckpt_tool.align.matching.similarity import Words, number_agreement
from ckpt_tool.align.naming.shapes import similarity
from ckpt_tool.align.sides import Sides
from ckpt_tool.align.weights import WEIGHTS, Weights


def renamed(source, target):
    pairs = align(catalog(*source), catalog(*target)).at_least(MIN_CONFIDENCE)
    return {pair.targets[0][0]: pair.sources[0][0] for pair in pairs}


def shares_an_uncommon_word():
    """Words of the last names against one of those above."""
    source, target = modules("a.b.fc.weight 2"), modules("a.c.d.weight 2", "x.y.fc.weight 2")
    words = Words(source, target)
    return words.of(source[0], target[1]) > words.of(source[0], target[0])


def goes_by_words_against_numbers():
    """A module with the words, and one with the number."""
    both = sides(["a.0.fc.weight 2", "a.1.fc.weight 2"], ["a.0.oo.weight 2", "a.1.fc.weight 2"])
    scores = gather_evidence(both, False).unordered
    return scores[0, 1] > scores[0, 0]


def goes_by_neighbours_against_words():
    """What stands around two equal modules says more than the words of their own names."""
    shapes = ("3x3", "5x5", "7x7")
    source = [f"a.{i}.{n}.weight {s}" for i in (0, 1) for n, s in zip("xyz", shapes, strict=True)]
    source += [f"a.{i}.same.weight 8x8" for i in (0, 1)]
    target = [line.replace("a.", "b.") for line in source]
    return renamed(source, target).get("b.1.same.weight") == "a.1.same.weight"


def a_bias_costs_less_than_a_role():
    """A missing bias, and another role that is missing."""
    both = (("bias", (8,)), ("weight", (8, 8)))
    lacks_bias = similarity(both, both[1:])
    return lacks_bias > similarity((("other", (8,)), ("weight", (8, 8))), both[1:])


def keeps_reshaped_below_equal():
    shapes = (("weight", (8, 4)),)
    return similarity(shapes, shapes) > similarity(shapes, (("weight", (4, 8)),))


def a_clear_pair_is_sure():
    return confidence_of(Match(0, 0, 0.1, 1.0, 1.0, 1.0, 1.0)) > MIN_CONFIDENCE


def a_pair_that_could_be_exchanged_is_not():
    return confidence_of(Match(0, 0, 1.0, 1.0, 1.0, 1.0, 1.0, exchange=0.2)) < MIN_CONFIDENCE


def opposed_words_are_worse_than_none():
    both = sides(["x.q.weight 8x8"], ["x.k.weight 8x8", "x.other.weight 8x8"])
    scores = gather_evidence(both, False).unordered
    return scores[0, 0] < scores[0, 1]


def another_place_is_worse_than_no_number():
    """A number at another place among as many, and a module without any."""
    numbered = modules("a.0.weight 2", "a.1.weight 2")
    other = number_agreement(numbered[0], numbered[1])
    return other < number_agreement(module("b.weight 2"), module("c.weight 2"))


def a_hint_is_worth_more_than_names():
    both = sides(["x.q.weight 8x8"], ["x.q.weight 8x8", "x.other.weight 8x8"])
    scores = gather_evidence(both, False, hints=[(0, 1)]).unordered
    return scores[0, 1] > scores[0, 0]


EXAMPLES = [
    (shares_an_uncommon_word, "near_word", 0.1),
    (goes_by_words_against_numbers, "words", 0.1),
    (goes_by_words_against_numbers, "numbers", 3.0),
    (a_bias_costs_less_than_a_role, "missing_bias", 0.3),
    (keeps_reshaped_below_equal, "reshaped", 1.0),
    (a_clear_pair_is_sure, "support_words", 0.0),
    (a_pair_that_could_be_exchanged_is_not, "exchange_of_named", 0.1),
    (a_pair_that_could_be_exchanged_is_not, "open_exchange", 0.95),
    (opposed_words_are_worse_than_none, "opposed_words", -1.0),
    (another_place_is_worse_than_no_number, "no_indices", -1.0),
    (a_hint_is_worth_more_than_names, "hint_same_names", 0.0),
]


@pytest.mark.parametrize(
    ("example", "name", "moved"), EXAMPLES, ids=[f"{e.__name__}-{n}" for e, n, _ in EXAMPLES]
)
def test_an_example_turns_out_otherwise_when_its_weight_moves(example, name, moved):
    before = getattr(WEIGHTS, name)
    assert example()
    object.__setattr__(WEIGHTS, name, moved)
    try:
        assert not example()
    finally:
        object.__setattr__(WEIGHTS, name, before)


def test_what_stands_around_decides():
    assert goes_by_neighbours_against_words()


def test_shares_and_confidences_are_between_none_and_all():
    shares = [
        each.name
        for each in fields(Weights)
        if each.name.startswith(("same_", "support_", "sure", "doubted", "combined", "last_"))
    ]
    assert all(0 <= getattr(WEIGHTS, name) <= 1 for name in shares)
    assert (
        WEIGHTS.support_words + WEIGHTS.support_neighbours + WEIGHTS.support_order
        == pytest.approx(1)
    )
    assert [*WEIGHTS.margins] == sorted(WEIGHTS.margins, reverse=True)
    assert WEIGHTS.doubted < WEIGHTS.open_exchange < WEIGHTS.sure < WEIGHTS.same_name


def test_sides_are_two_things_of_one_kind():
    both = Sides("a", "b")
    assert (both.of("source"), both.of("target"), [*both]) == ("a", "b", ["a", "b"])
    assert both.map(str.upper) == Sides("A", "B")
