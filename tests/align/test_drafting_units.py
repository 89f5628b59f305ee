"""The parts of drafting rules, each in small examples: what it gives for what."""

import pytest
from literals import catalog

from ckpt_tool.align import Pair
from ckpt_tool.align.drafting.checked import Setting, checked_draft, keys_in, starts_of, written_out
from ckpt_tool.align.drafting.choices import merge_slots
from ckpt_tool.align.drafting.draft import draft_rules
from ckpt_tool.align.drafting.merging import MAX_WORDS, choice, is_readable, merge_choices
from ckpt_tool.align.drafting.number_patterns import RuleDraft, abstract, split_numbers, with_words
from ckpt_tool.align.drafting.rule_order import in_order
from ckpt_tool.ops import Each, parse_ops


def rename(source, target):
    return Pair(((source,),), ((target,),))


def abstracted(*arrows, others=()):
    """The patterns of renames' drafts."""
    found = [rename(*arrow.split(" -> ")) for arrow in arrows]
    keys = [*keys_in(slot for pair in found for slot in pair.sources), *others]
    return [f"{draft.sources[0]} -> {draft.targets[0]}" for draft in abstract(found, keys)]


# number_patterns


def test_numbers_are_whole_runs_of_digits_without_leading_zeros():
    assert split_numbers("h.10.conv2.w") == (("h.", ".conv", ".w"), (10, 2))
    assert split_numbers("h.007.w") == (("h.007.w",), ())


@pytest.mark.parametrize(
    ("arrows", "others", "patterns"),
    [
        (["a.0.w -> b.0.w", "a.1.w -> b.1.w"], [], ["a.{i}.w -> b.{i}.w"]),
        (["a.0.w -> b.1.w", "a.1.w -> b.3.w"], [], ["a.{i}.w -> b.{2*i+1}.w"]),
        (["a.0.w -> b.w"], [], ["a.0.w -> b.w"]),
        (["a.0.w -> b.0.w"], ["a.1.w"], ["a.{i}.w -> b.{i}.w"]),
        (["a.0.1.w -> b.1.0.w", "a.2.3.w -> b.3.2.w"], [], ["a.{i}.{j}.w -> b.{j}.{i}.w"]),
        (["a.0.w -> b.0.w", "a.1.w -> b.7.w", "a.2.w -> b.3.w"], [], ["a.0.w -> b.0.w", "a.1.w -> b.7.w", "a.2.w -> b.3.w"]),
    ],
    ids=["equal", "affine", "one value", "one of several", "exchanged", "no law"],
)
def test_numbers_become_holes_where_the_targets_follow(arrows, others, patterns):
    assert abstracted(*arrows, others=others) == patterns


def test_numbers_that_differ_within_a_slot_are_collected():
    experts = Pair((("m.0.w", "m.1.w"),), (("all.w",),), parse_ops({"stack": 0}))
    (draft,) = abstract([experts], ["m.0.w", "m.1.w"])
    assert (draft.sources, draft.targets) == (("m.{e}.w",), ("all.w",))


def test_only_the_words_of_each_are_other_words():
    (each,) = parse_ops({"each": {"q": "transpose"}})
    assert isinstance(each, Each)
    renamed = with_words(each, {"q": "query", "transpose": "x"})
    assert isinstance(renamed, Each)
    assert [word for word, _ in renamed.chains] == ["query"]
    (op,) = parse_ops("transpose")
    assert with_words(op, {"transpose": "x"}) is op


# merging


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["q_proj", "k_proj"], "{q,k}_proj"),
        (["to_q", "to_out_0"], "to_{q,out_0}"),
        (["a", "b"], "{a,b}"),
        (["a_a", "a"], "{a_a,a}"),
        (["same", "same"], "same"),
    ],
)
def test_what_all_words_share_stands_outside_the_choice(words, text):
    assert choice(words) == text


def test_renames_that_differ_in_one_part_of_each_side_are_one():
    assert merge_choices([("a.q", "b.query"), ("a.k", "b.key"), ("c.*", "d.*")]) == [("a.{q,k}", "b.{query,key}"), ("c.*", "d.*")]
    assert merge_choices([("x", "y"), ("a.*", "b.*"), ("x.*", "y.*")]) == [("x", "y"), ("{a,x}.*", "{b,y}.*")]


def test_renames_of_other_holes_are_not_merged():
    renames = [("a.*", "b.*"), ("c.{i}", "d.{i}")]
    assert merge_choices(renames) == renames


def test_a_choice_of_too_many_words_is_not_made():
    renames = [(f"a.{chr(97 + i)}x", f"b.{chr(97 + i)}y") for i in range(MAX_WORDS + 1)]
    assert merge_choices(renames) == renames


def test_a_text_is_readable_that_is_a_pattern():
    assert is_readable("a.{q,k}.**")
    assert not is_readable("a.{q,q}")


# choices


def slots(sources, targets, ops):
    return RuleDraft(tuple(sources), tuple(targets), parse_ops(ops), (*sources, *targets))


def test_several_patterns_that_differ_in_one_name_become_a_choice():
    (draft,) = merge_slots([slots(["q.w", "k.w"], ["qk.w"], {"concat": 0})], ["q.w", "k.w"])
    assert (draft.sources, draft.targets) == (("{q,k}.w",), ("qk.w",))


def test_patterns_that_differ_in_two_names_stay_apart():
    (draft,) = merge_slots([slots(["q.w", "k.v"], ["qk"], {"concat": 0})], ["q.w", "k.v"])
    assert draft.sources == ("q.w", "k.v")


def test_leaves_of_the_same_ops_are_a_star_or_where_others_are_a_choice():
    drafts = [slots([f"qkv.{leaf}"], [f"q.{leaf}", f"k.{leaf}"], {"split": 0}) for leaf in ("weight", "bias")]
    keys = ["qkv.weight", "qkv.bias"]
    assert [draft.sources for draft in merge_slots(drafts, keys)] == [("qkv.*",)]
    assert [draft.sources for draft in merge_slots(drafts, [*keys, "qkv.scale"])] == [("qkv.{leaf=weight,bias}",)]


# rule_order


def test_an_exception_comes_before_what_it_excepts():
    renames = [("a.**", "b.**"), ("a.x.**", "c.**")]
    assert in_order(renames, {"a.x.w": "c.w", "a.w": "b.w"}) == renames[::-1]


def test_keys_that_no_rename_gets_right_are_written_out():
    assert in_order([("a.**", "b.**")], {"a.w": "b.w", "a.v": "odd.v"}) == [("a.v", "odd.v"), ("a.**", "b.**")]


def test_where_no_order_does_the_wrong_keys_come_first():
    renames = [("a.*.w", "b.*.w"), ("a.x.*", "c.x.*")]
    wanted = {"a.y.w": "b.y.w", "a.x.v": "c.x.v", "a.x.w": "b.x.w"}
    assert in_order(renames, wanted) == renames
    circle = [("*.w", "one.*"), ("a.*", "two.*")]
    assert in_order(circle, {"a.w": "one.a"}) == circle


# draft, checked


def test_a_path_is_moved_where_all_below_it_moves():
    pairs = [rename("a.x.w", "b.x.w"), rename("a.y.w", "b.y.w"), rename("fc.w", "head.w")]
    keys = [pair.sources[0][0] for pair in pairs]
    assert draft_rules(pairs, keys) == ['"{a,fc}.** -> {b,head}.**"']
    assert draft_rules(pairs, keys, are_paths_moved=False) == ['"{a.x,a.y,fc}.w -> {b.x,b.y,head}.w"']


def test_pairs_with_ops_come_before_renames():
    split = Pair((("qkv",),), (("q",), ("k",)), parse_ops({"split": 0}))
    assert draft_rules([rename("a", "b"), split], ["a", "qkv"]) == ['qkv -> {q,k}: {split: 0}', "a -> b"]


def test_rules_begin_where_their_lines_do():
    assert starts_of(["a -> b", "from: a\n    to: b\n    ops: []", "c -> d"]) == [2, 3, 6]


def test_what_is_written_out_has_no_holes():
    assert written_out([rename("a.0.w", "b.1.w")], ["a.0.w", "a.1.w"]) == ["a.0.w -> b.1.w"]


def test_a_short_draft_is_kept_where_it_makes_exactly_the_pairs():
    source, target = catalog("a.0.w 2", "a.1.w 2", "x 3"), catalog("b.0.w 2", "b.1.w 2", "y 3")
    pairs = [rename(f"a.{i}.w", f"b.{i}.w") for i in range(2)]
    found = checked_draft(pairs, Setting(source, target))
    assert found.lines == ("a.{i}.** -> b.{i}.**",)
    assert found.refused == ()
    assert found.plan.dropped == ("x",)


def test_a_pair_of_other_shapes_is_refused_with_the_planners_reason():
    found = checked_draft([rename("a", "b")], Setting(catalog("a 2"), catalog("b 3")))
    assert found.plan is None
    assert [(pair.targets, reason) for pair, reason in found.refused] == [((("b",),), "`b` would get 2, the target has 3")]
