"""What a score means: each kind of evidence for a pair of modules in an example, and what is taken or left open by it."""

from itertools import product
from math import inf

import pytest
from catalogs import keys, module, modules, place, sides
from literals import catalog

from ckpt_tool.align import align
from ckpt_tool.align.matching.candidates import find_candidates
from ckpt_tool.align.matching.choosing import Match, OpenPairs, best_first, leading
from ckpt_tool.align.matching.confidence import confidence_of, confidences, evidence_of
from ckpt_tool.align.matching.evidence import gather_evidence
from ckpt_tool.align.matching.hints import Hints
from ckpt_tool.align.matching.matching import match
from ckpt_tool.align.matching.neighbours import Kinds, NeighbourAgreement, specificity_of
from ckpt_tool.align.matching.reversed_order import reversed_order
from ckpt_tool.align.matching.sequence import on_common_path, within_blocks
from ckpt_tool.align.matching.shifts import Shifts
from ckpt_tool.align.matching.siblings import with_exchanges
from ckpt_tool.align.matching.similarity import Structures, Words, number_agreement
from ckpt_tool.align.sides import Sides
from ckpt_tool.align.uncertain.blocks import Branch, are_one_sequence
from ckpt_tool.align.uncertain.extra_layers import uncertain_layers
from ckpt_tool.align.uncertain.interchangeable import match_with_exchanges
from ckpt_tool.align.uncertain.twin_branches import uncertain_branches

CERTAIN = {"margin": 1.0, "words": 1.0, "neighbours": 1.0, "order": 1.0, "similarity": 1.0}


def a_match(source=0, target=0, **differing):
    return Match(source, target, **{**CERTAIN, **differing})


def found_by(source, target, **options):
    both = sides(source, target)
    return keys(
        [each.candidate for each in match(gather_evidence(both, True, **options)).found], both
    )


def test_equal_names_and_shapes_score_higher_than_equal_shapes_alone():
    both = sides(["a.conv.weight 8x8"], ["b.conv.weight 8x8", "b.gate.weight 8x8"])
    scores = gather_evidence(both, False).unordered
    assert scores[0, 0] > scores[0, 1]


def test_only_modules_whose_tensors_may_be_the_same_are_candidates():
    source, target = (
        modules("a.weight 8x4"),
        modules("b.weight 4x8", "c.weight 8x5", "d.weight 8x4"),
    )
    found = find_candidates(source, target)
    assert found.keys() == {(0, 0), (0, 2)}
    assert found[0, 2] == 1 > found[0, 0] > 0


def test_a_rare_word_says_more_than_a_usual_one():
    source, target = (
        modules("rare.x.weight 2", *(f"usual.y{i}.weight 2" for i in range(9))),
        modules("rare.z.weight 2", "usual.w.weight 2"),
    )
    words = Words(source, target)
    assert (
        words.of(source[0], target[0])
        > words.of(source[1], target[1])
        > words.of(source[0], target[1])
    )


@pytest.mark.parametrize(("number", "agreement"), [(0, 1.0), (1, 0.3)])
def test_numbers_agree_at_one_place_of_as_many(number, agreement):
    source, target = (
        modules("a.1.weight 2", "a.2.weight 2"),
        modules("b.5.weight 2", "b.6.weight 2"),
    )
    assert number_agreement(source[0], target[number]) <= agreement
    assert (number_agreement(source[0], target[number]) == 1) == (number == 0)


def test_modules_with_the_same_around_them_agree():
    block = ["x.weight 2", "y.weight 3", "z.weight 4", "last.weight 9"]
    other = [f"other.{i}.weight {i + 20}" for i in range(8)]
    source = modules(*(f"a.{line}" for line in block), *other)
    target = modules(
        *(f"b.{line}" for line in block),
        *(f"c.{i}.weight {i + 1}" for i in range(3)),
        "c.last.weight 9",
        *other,
    )
    structures = Structures(source, target)
    assert (
        structures.of(source[3], target[3])
        == structures.above(source[3].names, target[3].names)
        == 1
    )
    assert structures.of(source[3], target[7]) < 1


def test_a_pair_says_less_where_it_could_have_many_partners():
    found = specificity_of([(0, 0), (1, 1), (1, 2)], Sides(2, 3))
    assert list(found.source) == [1, 0.5]
    assert list(found.target) == [1, 1, 1]


def test_pairs_speak_for_their_neighbours():
    both = sides(["a.x.weight 2", "b.x.weight 3"], ["c.x.weight 2", "d.x.weight 3"])
    certain = specificity_of([(0, 0), (1, 1)], Sides(2, 2))
    found = NeighbourAgreement(both, [(0, 0)], certain)
    assert found.of(("a",), ("c",)) == 1
    assert found.of(("a",), ("d",)) == found.of(("b",), ("d",)) == 0


def test_a_pair_whose_neighbours_agree_wins_over_one_whose_dont():
    source = ["a.one.weight 3x3", "a.same.weight 8x8", "b.two.weight 5x5", "b.same.weight 8x8"]
    target = ["m.two.weight 5x5", "m.same.weight 8x8", "n.one.weight 3x3", "n.same.weight 8x8"]
    assert found_by(source, target) >= {
        ("a.same.weight", "n.same.weight"),
        ("b.same.weight", "m.same.weight"),
    }


def test_other_blocks_say_what_names_become():
    both = sides(["a.0.x.weight 2", "a.1.x.weight 2"], ["b.0.y.weight 2", "b.1.y.weight 2"])
    assert Kinds(both, [(0, 0)]).of(1, 1) == 1
    assert Kinds(both, []).of(1, 1) == 0


def test_a_pair_alone_on_the_best_common_path_counts_one_and_one_of_several_a_half():
    both = sides(["a.weight 2", "b.weight 3"], ["c.weight 2", "d.weight 3"])
    assert on_common_path(both, {(0, 0): 1.0, (1, 1): 1.0}) == {(0, 0): 1, (1, 1): 1}
    assert on_common_path(both, {(0, 0): 1.0, (0, 1): 1.0}) == {(0, 0): 0.5, (0, 1): 0.5}
    assert on_common_path(both, {(0, 0): 1.0, (1, 0): 0.2}) == {(0, 0): 1}


def test_blocks_that_are_paired_have_an_order_of_their_own():
    both = sides([f"a.0.{n}.weight 2" for n in "xyz"], [f"b.7.{n}.weight 2" for n in "uvw"])
    scores = dict.fromkeys(product(range(3), repeat=2), 1.0)
    found = within_blocks(both, [(0, 0), (1, 1), (2, 2)], scores)
    assert {pair for pair, how in found.items() if how == 1} == {(0, 0), (1, 1), (2, 2)}
    assert within_blocks(both, [(0, 0)], scores) == {}


def block(path, *sizes):
    return [f"{path}.{name}.weight {size}" for name, size in zip("xyzw", sizes, strict=True)]


def test_a_sequence_that_is_counted_from_its_end_is_reversed():
    sizes = [(2, 3, 4, 5), (6, 7, 8, 9), (12, 13, 14, 15)]
    source = modules(*(line for i, each in enumerate(sizes) for line in block(f"up.{i}", *each)))
    target = modules(
        *(line for i, each in enumerate(sizes[::-1]) for line in block(f"up.{i}", *each))
    )
    found, unknown = reversed_order(source, target)
    assert [each.numbers for each in found] == [(2,)] * 4 + [(1,)] * 4 + [(0,)] * 4
    assert unknown == set()


def test_a_hint_holds_for_the_same_names_in_other_blocks_and_for_what_lies_beside():
    both = sides(
        ["a.0.x.fc.weight 2", "a.1.x.fc.weight 2", "a.0.x.o.weight 2"],
        ["b.0.y.fc.weight 2", "b.1.y.fc.weight 2", "b.0.y.p.weight 2"],
    )
    hints = Hints(both, [(0, 0)])
    named, beside = (
        hints.of(both.source[1], both.target[1]),
        hints.of(both.source[2], both.target[2]),
    )
    assert (
        hints.of(both.source[0], both.target[0])
        > named
        > beside
        > 0
        == hints.of(both.source[1], both.target[2])
    )


def test_a_hint_beats_names():
    source, target = ["x.q.weight 8x8", "x.k.weight 8x8"], ["x.q.weight 8x8", "x.k.weight 8x8"]
    assert found_by(source, target) == {("x.q.weight", "x.q.weight"), ("x.k.weight", "x.k.weight")}
    assert ("x.q.weight", "x.k.weight") in found_by(source, target, hints=[(0, 1)])


def test_a_pair_that_leads_is_clear_and_the_rest_stays_possible():
    pairs = OpenPairs({(0, 0): 3.0, (0, 1): 1.0, (1, 1): 2.0, (1, 0): 1.9})
    assert pairs.clear(1.0) == [((0, 0), pytest.approx(1.1))]
    pairs.take((0, 0))
    assert pairs.is_last((1, 1))
    assert pairs.clear(0.5) == [((1, 1), inf)]
    assert pairs.possible() == {1: (1,)}
    pairs.give_up((1, 1))
    assert not pairs.clear(0.0)
    assert pairs.possible() == {1: (1,)}, "what lacks evidence is still what may be"


def test_the_best_come_first_and_only_leading_pairs_speak_for_others():
    scores = {(0, 0): 3.0, (0, 1): 2.95, (1, 1): 2.0, (1, 0): 1.0}
    assert best_first(scores) == [(0, 0), (1, 1)]
    assert leading([(0, 0), (1, 1)], scores) == []
    assert leading([(0, 0)], {(0, 0): 3.0, (0, 1): 2.0}) == [(0, 0)]


def test_an_exchange_that_loses_nothing_is_noted():
    both = gather_evidence(sides(["a.x.weight 2", "a.y.weight 2"], ["b.x.weight 2", "b.y.weight 2"]), False)
    scores = dict.fromkeys(product(range(2), repeat=2), 1.0)
    found = with_exchanges([a_match(0, 0), a_match(1, 1)], scores, both)
    assert [each.exchange for each in found] == [0, 0]
    alone = gather_evidence(sides(["a.x.weight 2"], ["b.x.weight 2"]), False)
    assert with_exchanges([a_match(0, 0)], {(0, 0): 1.0}, alone)[0].exchange == inf


def test_one_of_two_siblings_whose_names_say_nothing_is_a_guess():
    both = gather_evidence(sides(["a.u.weight 2", "a.v.weight 2"], ["b.s.weight 2", "b.t.weight 2"]), True)
    scores = dict.fromkeys(product(range(2), repeat=2), 1.0)
    assert with_exchanges([a_match(0, 0)], scores, both)[0].exchange == 0


def test_more_support_and_a_larger_lead_make_a_pair_surer():
    assert confidence_of(a_match()) == 0.99
    assert confidence_of(a_match(margin=0.3)) == 0.97
    assert confidence_of(a_match(margin=0.1)) == 0.95
    assert confidence_of(a_match(margin=0.1, neighbours=0.0)) == 0.75
    assert confidence_of(a_match(exchange=0.1)) == 0.75


def test_equal_keys_are_sure_whatever_stands_around_them():
    both = sides(["a.weight 2"], ["a.weight 2"])
    assert confidences(both, [a_match(margin=0.1, neighbours=0.0)]) == {(0, 0): 0.97}


def test_a_pair_is_as_sure_as_most_of_its_siblings():
    both = sides([f"a.{i}.x.weight 2" for i in range(3)], [f"b.{i}.y.weight 2" for i in range(3)])
    matches = [a_match(0, 0), a_match(1, 1), a_match(2, 2, exchange=0.1)]
    assert confidences(both, matches)[2, 2] == 0.93


def test_the_evidence_is_said_in_words():
    assert (
        evidence_of(a_match())
        == "shapes agree, names agree, their neighbours are paired too, the order agrees"
    )
    assert (
        evidence_of(a_match(words=0.6, neighbours=0.0, order=0.0))
        == "shapes agree, names agree in part"
    )


def blocks(name, count):
    return [
        f"{name}.{i}.{part}.{leaf} {shape}"
        for i in range(count)
        for part in "xyz"
        for leaf, shape in (("weight", "2x2"), ("bias", "2"))
    ]


def test_which_of_equal_layers_are_the_extra_ones_nothing_tells_but_a_hint():
    both = sides(blocks("a", 4), blocks("b", 3))
    matches = [a_match(i, i) for i in range(9)]
    assert uncertain_layers(both, matches, []) == {(i, i) for i in range(9)}
    assert uncertain_layers(both, matches, [(0, 0)]) == set()


def test_which_of_equal_branches_is_which_only_words_tell():
    lines = ["x.weight 2", "y.weight 3", "z.weight 4"]
    source = [f"{tower}.{line}" for tower in ("rgb", "depth") for line in lines]
    matches = [a_match(i, i) for i in range(6)]
    unlike = sides(source, [f"{tower}.{line}" for tower in ("first", "second") for line in lines])
    assert uncertain_branches(unlike, matches, []) == {(i, i) for i in range(6)}
    assert uncertain_branches(sides(source, source), matches, []) == set()


def test_equal_blocks_that_could_be_exchanged_are_doubtful():
    lines = [f"{part}.weight {size}" for part, size in (("x", 2), ("y", 3))]
    source = [f"{name}.{line}" for name in ("one", "two") for line in lines]
    target = [f"{name}.{line}" for name in ("red", "blue") for line in lines]
    both = sides(source, target)
    matches, doubtful = match_with_exchanges(gather_evidence(both, False))
    assert {each.candidate for each in matches.found} <= {
        pair for each in doubtful for pair in each.candidates
    }
    settled, none = match_with_exchanges(gather_evidence(sides(source, source), False))
    assert {each.candidate for each in settled.found} == {(i, i) for i in range(4)}
    assert none == []


def test_a_branch_is_what_is_below_a_path_and_not_in_one_inside_of_it():
    branch = Branch(("visual",), ("visual", "text"))
    assert branch.has(("visual", "blocks", "0"))
    assert not branch.has(("visual", "text", "blocks"))
    assert not branch.has(("text",))
    assert are_one_sequence(("blocks", "0"), ("blocks", "11"))
    assert not are_one_sequence(("text", "0"), ("image", "0"))


def test_the_place_of_a_module_is_its_number_in_the_file():
    assert place(modules("a.weight 2", "b.weight 2"), "b.weight") == 1
    assert module("a.weight 2").place == 0


def test_a_hint_that_is_printed_is_followed_and_settles_all_blocks():
    def block(i):
        names = [*(f"attention.{name}_proj" for name in "qkvo"), "layernorm_before", "layernorm_after", "mlp.fc1"]
        return lines(f"vit.layers.{i}", names)

    def other(i):
        return lines(f"layers.{i}", ["ahead", *(f"attn.w{name}" for name in "qkvo"), "later", "mlp.0"])

    def lines(prefix, names):
        shapes = {"mlp.fc1": "16x8", "mlp.0": "16x8", **dict.fromkeys(("layernorm_before", "layernorm_after", "ahead", "later"), "8")}
        return [f"{prefix}.{name}.weight {shapes.get(name, '8x8')}" for name in names]

    source, target = (catalog(*(line for i in range(3) for line in made(i)), last) for made, last in ((block, "vit.layernorm.weight 8"), (other, "final_norm.weight 8")))
    question = align(source, target).questions[0]
    assert question.others == 2
    origin, key = question.group.hint.split(" -> ")
    found = align(source, target, [(origin, key)])
    assert not found.ambiguous
    made = {each.pair.sources[0][0]: each.pair.targets[0][0] for each in found.pairs}
    assert {made[origin.replace("0", str(i))] for i in range(3)} == {key.replace("0", str(i)) for i in range(3)}
    assert len(made) == 22


@pytest.mark.parametrize(
    ("hints", "wanted"),
    [
        ([(1, 0)], {(1, 0), (2, 1), (3, 2)}),
        ([(0, 0), (2, 1)], {(0, 0), (2, 1)}),
        ([(0, 0), (1, 0)], set(product(range(4), range(3)))),  # no line
        ([(0, 0), (1, 1), (3, 2)], set(product(range(4), range(3)))),  # no line
        ([], set(product(range(4), range(3)))),
    ],
)
def test_hints_for_blocks_of_a_deeper_network_lie_on_a_line(hints, wanted):
    both = sides([f"h.{i}.fc.weight 2" for i in range(4)], [f"g.{i}.up.weight 2" for i in range(3)])
    shifts = Shifts(both, hints)
    pairs = product(both.source, both.target)
    assert {(a.place, b.place) for a, b in pairs if not shifts.contradict(a, b)} == wanted
