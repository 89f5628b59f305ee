"""What names mean: common words, modules with their numbers, wrappers, equal names and the places that they settle."""

import pytest
from catalogs import module, modules, sides
from literals import catalog

from ckpt_tool.align.naming.modules import NumberedName, modules_of
from ckpt_tool.align.naming.orientation import are_straight
from ckpt_tool.align.naming.paths import (
    block_of,
    numberless_names,
    numbers_of,
    paths_above,
    pattern_of,
    without_numbers,
)
from ckpt_tool.align.naming.places import Places, without_shifted
from ckpt_tool.align.naming.same_names import same_names
from ckpt_tool.align.naming.shapes import plain, similarity
from ckpt_tool.align.naming.spellings import SYNONYMS
from ckpt_tool.align.naming.vocabulary import (
    are_opposed,
    in_common_words,
    numberless,
    split_role,
    stem_and_number,
    words_of,
)
from ckpt_tool.align.naming.wrappers import States, plain_name
from ckpt_tool.align.sides import Sides


@pytest.mark.parametrize(
    "key", ["attention.self.query.weight", "attn.wq.weight", "self_attn.q_proj.weight"]
)
def test_one_module_has_one_path_in_all_spellings(key):
    assert in_common_words(key) == "attn.q.weight"


def test_a_word_and_its_synonym_are_one_word():
    assert words_of("rms_norm_2") == ("rms", "norm")
    assert words_of("embeddings") == (SYNONYMS["embeddings"],) == ("embed",)


def test_queries_and_keys_exclude_each_other():
    assert are_opposed(frozenset({"attn", "q"}), frozenset({"attn", "k"}))
    assert not are_opposed(frozenset({"attn", "q"}), frozenset({"attn", "q", "fc"}))


def test_the_last_name_is_a_tensors_role_if_it_is_a_known_one():
    assert split_role("norm.gamma") == (("norm",), "weight")
    assert split_role("cls_token") == (("cls_token",), None)


def test_paths_by_their_numbers():
    names = ("encoder", "layer3", "1", "conv")
    assert stem_and_number("layer3") == ("layer", 3)
    assert numbers_of(names) == (3, 1)
    assert block_of(names) == ("encoder", "layer3", "1")
    assert without_numbers(names) == ("encoder", "layer", "", "conv")
    assert pattern_of(names) == ("encoder", "layer.", ".", "conv")
    assert numberless_names(names) == ("encoder", "layer#", "#", "conv")
    assert numberless("a.1/b2") == "a.#.b#"
    assert paths_above(names)[-1] == names[:-1]


def test_a_modules_tensors_are_one_value_by_role():
    found = module("net.3.bn.gamma 8", "net.3.bn.running_mean 8")
    assert found.shapes == (("mean", (8,)), ("weight", (8,)))
    assert found.keys == {"weight": "net.3.bn.gamma", "mean": "net.3.bn.running_mean"}
    assert found.numbers == (3,)
    assert found.indices == ()  # it has no siblings


def test_a_number_has_its_place_among_its_siblings():
    first, last = modules("net.3.fc.weight 8x8", "net.7.fc.weight 8x8")
    assert (first.indices, last.indices) == ((0,), (1,))
    assert last.numbered == (NumberedName("net.", 7, frozenset({3, 7})),)
    assert (first.ordinal, last.ordinal) == ((0, 2), (1, 2))


def test_modules_of_some_keys_alone():
    found = modules_of(catalog("a.weight 2x2", "b.weight 3x3"), ["b.weight"])
    assert [each.names for each in found] == [("b",)]


def test_the_same_shapes_are_more_similar_than_reshaped_ones_and_other_roles():
    same = (("bias", (8,)), ("weight", (8, 4)))
    assert similarity(same, same) == 1
    assert 0 < similarity(same, (("bias", (8,)), ("weight", (4, 8)))) < 1
    assert 0 < similarity(same, (("weight", (8, 4)),)) < 1
    assert similarity(same, (("bias", (8,)), ("weight", (8, 5)))) == 0
    assert plain((8, 1, 4)) == plain((4, 8)) == (4, 8)


def test_a_token_is_no_norm():
    assert similarity((("bias", (8,)), ("weight", (8,))), (("weight", (1, 1, 8)),)) == 0


def test_matrices_that_all_agree_are_not_transposed():
    straight = catalog("a.weight 8x4", "b.weight 6x4")
    assert are_straight(straight, straight)
    assert not are_straight(straight, catalog("a.weight 4x8", "b.weight 4x6"))


def test_wrappers_names_are_written_in_one_way():
    assert plain_name("a.parametrizations.weight.original") == "a.weight_orig"
    assert plain_name("a.base_layer.weight") == "a.weight"
    assert plain_name("a.weight") == "a.weight"


def test_codes_are_no_plain_weight_where_their_scale_stands_beside_them():
    states = States(catalog("a.weight 8x8 I8", "a.weight_scale 8", "b.weight 8x8"))
    assert states.why_not_plain("a.weight") == "it holds codes, whose scale is a tensor beside it"
    assert states.why_not_plain("b.weight") is None


def test_equal_names_pair_as_they_are_behind_a_head_and_but_for_separators():
    source = catalog("a.weight 2x2", "net.b.weight 3x3", "net.c.weight 4x4")
    found = same_names(source, catalog("a.weight 2x2", "b.weight 3x3", "c.weight 4x4"))
    assert {key: each.source for key, each in found.pairs.items()} == {
        "a.weight": "a.weight",
        "b.weight": "net.b.weight",
        "c.weight": "net.c.weight",
    }
    assert found.heads == (("net.", ""),)
    spaced = same_names(
        catalog("layer_1_conv.weight 2x2"), catalog("layer.1.conv.weight 2x2")
    ).pairs["layer.1.conv.weight"]
    assert found.pairs["a.weight"].confidence > spaced.confidence > 0.9


def test_an_equal_name_of_another_shape_keeps_its_place():
    catalogs = Sides(
        catalog("a.weight 2x2", "b.weight 3x3"),
        catalog("a.weight 2x2", "b.weight 5x5", "c.weight 3x3"),
    )
    places = Places(catalogs, same_names(*catalogs))
    assert places.shape_mismatches == [("b.weight", "b.weight")]
    assert places.are_apart(modules_of(catalogs.source)[1], modules_of(catalogs.target)[2])


def test_a_member_that_may_be_another_one_is_not_paired_by_its_name():
    source, target = ["fc.0.weight 6x6", "fc.1.weight 6x6"], ["fc.0.weight 6x6", "start.weight 6x6"]
    named = same_names(catalog(*source), catalog(*target)).pairs
    assert named.keys() == {"fc.0.weight"}
    assert without_shifted(named, sides(source, target)) == {}
